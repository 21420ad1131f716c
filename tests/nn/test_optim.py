import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from athena.nn.optim import Muon, make_optimizer, orthogonalize, schedule


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.wide = nn.Linear(4, 6)
        self.tall = nn.Linear(6, 4)
        self.lm_head = nn.Linear(4, 7, bias=False)

    def forward(self, ids):
        return self.lm_head(self.tall(self.wide(self.embedding(ids))))


def small(seed=0):
    torch.manual_seed(seed)
    return Small()


def step(model, optimizers, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 7, (16,), generator=generator)
    nn.functional.cross_entropy(model(ids), ids.flip(0)).backward()
    optimizers.step()
    optimizers.zero_grad()


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8), (2, 6, 6)])
def test_orthogonalized_matrices_have_singular_values_near_one_and_the_same_singular_vectors(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    result = orthogonalize(matrices)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.3
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(result.flatten(1), (left @ right).flatten(1)).min() > 0.9


def test_muon_agrees_with_torchs_up_to_its_bfloat16():
    torch.manual_seed(0)
    start, gradients = torch.randn(24, 16), torch.randn(5, 24, 16)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.1, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_muon_refuses_vectors():
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.zeros(3)], lr=0.1)


def test_embeddings_heads_and_vectors_go_to_adamw_without_decay():
    model = small()
    muon, adamw = make_optimizer(model, 0.1).parts
    assert [p.shape for group in muon.param_groups for p in group["params"]] == [(6, 4), (4, 6)]
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.0}
    covered = [p for part in (muon, adamw) for group in part.param_groups for p in group["params"]]
    assert len(covered) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_restored_state_goes_on_bit_for_bit(name):
    straight = small()
    optimizers = make_optimizer(straight, 0.05, name=name)
    for i in range(3):
        step(straight, optimizers, i)
    resumed = small(1)
    resumed.load_state_dict(straight.state_dict())
    second = make_optimizer(resumed, 0.05, name=name)
    second.initialise()
    for name, value in optimizers.tensors().items():
        second.tensors()[name].copy_(value)
    for i in range(3, 6):
        step(straight, optimizers, i)
        step(resumed, second, i)
    for ours, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_set_lr_reaches_every_part():
    optimizers = make_optimizer(small(), 0.1)
    optimizers.set_lr(0.02)
    assert {group["lr"] for part in optimizers.parts for group in part.param_groups} == {0.02}


@given(st.integers(0, 20), st.integers(0, 30), st.integers(0, 20))
def test_schedule_in_closed_form(warmup, stable, decay):
    total = warmup + stable + decay
    factors = [schedule(step, total, warmup, decay) for step in range(total)]
    expected = [(i + 1) / warmup for i in range(warmup)] + [1.0] * stable
    expected += [(decay - i) / decay for i in range(decay)]
    assert factors == pytest.approx(expected)
    assert schedule(total, total, warmup, decay) == 0.0
