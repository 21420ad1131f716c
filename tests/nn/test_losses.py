import pytest
import torch
import torch.nn.functional as F

from athena.nn import losses
from athena.nn.losses import IGNORED, head_losses


@pytest.fixture
def head(monkeypatch):
    """Hidden states, weight and labels; chunks of three tokens."""
    monkeypatch.setitem(losses._CHUNK_BYTES, "cpu", 3 * 4 * 50)
    torch.manual_seed(0)
    labels = torch.randint(0, 50, (20,))
    labels[[0, 7, 19]] = IGNORED
    return torch.randn(20, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True), labels


def plain(hidden, weight, labels):
    """Cross entropy, z-loss and smoothing over all logits at once."""
    logits = (hidden @ weight.T)[labels != IGNORED]
    kept = labels[labels != IGNORED]
    smooth = -logits.log_softmax(-1).mean(-1).sum()
    return F.cross_entropy(logits, kept, reduction="sum"), logits.logsumexp(-1).square().sum(), smooth


def test_values_and_gradients_are_those_of_all_logits_at_once(head):
    factors = {"cross_entropy": 0.9, "z_loss": 0.01, "label_smoothing": 0.1}
    total, terms = head_losses(*head, factors)
    gradients = torch.autograd.grad(3 * total, head[:2])
    expected = plain(*head)
    torch.testing.assert_close(terms, torch.stack(expected))
    objective = sum(f * value for f, value in zip(factors.values(), expected, strict=True))
    for gradient, right in zip(gradients, torch.autograd.grad(3 * objective, head[:2]), strict=True):
        torch.testing.assert_close(gradient, right)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_cross_entropy_alone_takes_a_way_of_its_own_to_the_same_values(head, factor):
    total, (alone,) = head_losses(*head, {"cross_entropy": factor})
    expected = plain(*head)[0]
    torch.testing.assert_close(alone, expected)
    gradients = torch.autograd.grad(total, head[:2])
    for gradient, right in zip(gradients, torch.autograd.grad(factor * expected, head[:2]), strict=True):
        torch.testing.assert_close(gradient, right)


def test_smoothing_is_torchs(head):
    hidden, weight, labels = head
    total, _ = head_losses(hidden, weight, labels, {"cross_entropy": 0.9, "label_smoothing": 0.1})
    logits = hidden @ weight.T
    right = F.cross_entropy(logits, labels, ignore_index=IGNORED, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(total, right)


def test_under_autocast_the_value_is_right_to_bfloat16(head):
    hidden, weight, labels = head
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = head_losses(hidden, weight, labels, {"cross_entropy": 1.0})
    torch.testing.assert_close(total, plain(*head)[0], rtol=1e-2, atol=0)
    total.backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="cross_entropy"):
        losses.loss(losses.cross_entropy)
