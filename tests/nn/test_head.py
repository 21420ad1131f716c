"""Output layer and cross entropy in one: the value and the gradients of torch's own."""

import pytest
import torch
import torch.nn.functional as F

from athena.nn import head


@pytest.mark.parametrize(("tokens", "vocabulary"), [(1, 5), (7, 40_000), (300, 4096), (1024, 64)])
def test_value_and_gradients_are_those_of_cross_entropy(tokens, vocabulary):
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 16, requires_grad=True)
    weight = torch.randn(vocabulary, 16, requires_grad=True)
    labels = torch.randint(vocabulary, (tokens,))
    found = head.mean_cross_entropy(hidden, weight, labels)
    expected = F.cross_entropy(hidden.double() @ weight.double().T, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for own, other in zip(
        torch.autograd.grad(3 * found, (hidden, weight)),
        torch.autograd.grad(3 * expected, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_logits_far_from_zero_do_not_overflow():
    hidden = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    loss = head.mean_cross_entropy(hidden, torch.tensor([[1.0], [-1.0]], requires_grad=True), torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(1000.0)
    loss.backward()
    assert hidden.grad is not None and hidden.grad.isfinite().all()
