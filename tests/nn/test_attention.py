from itertools import pairwise

import torch
import torch.nn.functional as F

from athena.nn.attention import boundaries, packed_attention


def test_documents_begin_at_zero_and_at_every_window():
    positions = torch.tensor([[0, 1, 0, 1, 2], [4, 5, 0, 0, 1]])
    assert boundaries(positions).tolist() == [0, 2, 5, 7, 8, 10]


def test_attention_is_that_of_each_document_alone():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, 70, 16, requires_grad=True) for heads in (4, 2, 2))
    bounds = torch.tensor([0, 1, 33, 70], dtype=torch.int32)
    out, _ = packed_attention(None, q, k, v, None, scaling=0.25, document_bounds=bounds, longest_document=40)
    alone = [
        F.scaled_dot_product_attention(*(x[:, :, a:b] for x in (q, k, v)), is_causal=True, enable_gqa=True)
        for a, b in pairwise(bounds.tolist())
    ]
    expected = torch.cat(alone, dim=2).transpose(1, 2)
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(out)
    gradients = torch.autograd.grad((out * weights).sum(), (q, k, v))
    for gradient, right in zip(gradients, torch.autograd.grad((expected * weights).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(gradient, right)
