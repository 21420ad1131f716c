import pytest

from athena.errors import BadInput
from athena.nn import losses, optim
from athena.train import planning
from athena.train.planning import plan_memory
from athena.train.presets import PRESETS


def test_state_is_cut_evenly_and_activations_are_not():
    one, eight = (plan_memory(PRESETS["7b"], gpus=n, micro_tokens=8192, checkpointing=True) for n in (1, 8))
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(one, part) == pytest.approx(8 * getattr(eight, part), rel=1e-6)
    assert (one.activations, one.logits) == (eight.activations, eight.logits)


def test_twenty_seven_billion_fit_eight_gpus_of_139_gib_only_with_checkpointing():
    kept, computed_again = (
        plan_memory(PRESETS["27b"], gpus=8, micro_tokens=8192, checkpointing=again) for again in (False, True)
    )
    assert computed_again.total < 80 * 2**30 < 139 * 2**30 < kept.total


def test_the_plan_knows_the_sizes_that_training_uses():
    assert losses._CHUNK_BYTES["cuda"] == planning._CHUNK_BYTES
    assert planning._EXCHANGE_ELEMENTS == optim.EXCHANGE_ELEMENTS


def test_no_gpu_is_no_plan():
    with pytest.raises(BadInput, match="at least one"):
        plan_memory(PRESETS["tiny"], gpus=0, micro_tokens=1, checkpointing=True)
