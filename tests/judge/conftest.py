"""Score sheets and arms without any proxy run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from athena.protocol import Arm, DatasetRef, Effect, ScoreSheet, SignedSheet

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.fixture
def make_sheet() -> Callable[..., ScoreSheet]:
    def make(**changes: object) -> ScoreSheet:
        fields = {
            "task_id": "0" * 32, "hotkey": HOTKEY, "validator": HOTKEY, "rule_version": "1", "eval_pack": "1" * 64,
            "dataset": DatasetRef(location="file:a/b", revision="2" * 40, root="3" * 64), "issued_block": 1,
            "commit_block": 10, "seed_block": 20, "outcome": "pass", "gates": (), "units": 1.0,
            "effect": Effect(mean=0.0, low=-0.01, high=0.01, by_domain={"web": 0.0}),
        }  # fmt: skip
        return ScoreSheet(**{**fields, **changes})

    return make


@pytest.fixture
def sign() -> Callable[[ScoreSheet], SignedSheet]:
    return lambda sheet: SignedSheet(sheet=sheet, signature="0" * 128)


@pytest.fixture
def make_arm() -> Callable[..., Arm]:
    def make(name: str, seed: int = 0, **bits: float) -> Arm:
        return Arm(name=name, seed=f"{seed:064x}", tokens=1, bits_per_byte=bits)

    return make
