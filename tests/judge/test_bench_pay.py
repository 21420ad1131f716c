"""The pay formula keeps the network's promises under the measured noise, as `make bench-pay` prints them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_pay.py"


@pytest.fixture(scope="module")
def simulated():
    command = [sys.executable, str(SCRIPT)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_work_is_paid_as_promised(simulated):
    result = simulated[-1]
    assert result["canonical_unit_pay"] == pytest.approx(1, abs=0.05)
    assert result["plus_01_pay"] >= 2
    assert result["null_p99"] <= 1.2


def test_more_keys_never_earn_more(simulated):
    shares = {line["ring_effect"]: list(line["share_by_keys"].values()) for line in simulated if "ring_effect" in line}
    assert simulated[-1]["ring_share_max"] == max(shares[0.0]) <= 1.02
    assert shares[0.01] == sorted(shares[0.01], reverse=True)


def test_dropping_leases_does_not_pay(simulated):
    assert simulated[-1]["half_leases_pay"] < 1
