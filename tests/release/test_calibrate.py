"""What leaving a miner out costs is compared with what the judge foresaw."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from athena.errors import NotFound
from athena.evalpack import EvalDocument, load_pack, write_pack
from athena.judge.proxy.measured import Measured
from athena.judge.rules import rules_of
from athena.train.calibrate import ALL, AblationPlan, MinerEffect, RunCalibration, forecasts_of, summed_up

MINERS = (
    "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y",
    "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
)
LOSS_WITHOUT = dict(zip(MINERS, (2.1, 2.0, 1.9), strict=True))
RULES = rules_of("demo-1")


class Workers:
    """Proxies whose loss is known by arm; seeds differ by a ten-thousandth."""

    def __init__(self):
        self.trained = []

    def run(self, jobs, finished):
        found = []
        for job in jobs:
            if not job.result.exists():
                self.trained.append(job)
                loss = {ALL: 2.0, **LOSS_WITHOUT}[job.name] + int(job.seed[:2], 16) / 255 * 1e-4
                measured = Measured.of(job.name, job.seed, job.budget_tokens, {"web": [loss * 1000]}, {"web": [1000]})
                job.result.write_bytes(measured.canonical())
            found.append(Measured.model_validate_json(job.result.read_bytes()))
            finished(found[-1].arm)
        return found


@pytest.fixture
def plan(tmp_path):
    write_pack(tmp_path / "pack", "test", [EvalDocument(id="1", domain="web", text="A text that is held out.")])
    (tmp_path / "mixture").mkdir()
    rows = [(MINERS[i % 3], f"Text {i} of a page about rivers and mills.") for i in range(30)]
    table = pa.table({"hotkey": [hotkey for hotkey, _ in rows], "text": [text for _, text in rows]})
    pq.write_table(table, tmp_path / "mixture" / "documents.parquet")
    return AblationPlan(tmp_path / "mixture", load_pack(tmp_path / "pack"), RULES, tmp_path / "arms")


def test_each_miner_is_left_out_for_the_same_budget(plan):
    workers, seen = Workers(), []
    forecasts = dict(zip(MINERS, (0.02, 0.0, -0.01), strict=True))
    found = plan.measure(forecasts, workers, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert len({job.budget_tokens for job in workers.trained}) == 1
    assert len({job.documents for job in workers.trained}) == 4
    assert len({job.seed for job in workers.trained}) == 12
    assert [round(miner.effect, 3) for miner in found.miners] == [0.1, 0.0, -0.1]
    assert sum(miner.share for miner in found.miners) == pytest.approx(1)
    assert (found.pairs, found.accuracy, found.decided, found.decided_accuracy) == (3, 1.0, 3, 1.0)
    assert RunCalibration.model_validate_json(found.canonical()) == found
    again = Workers()
    assert plan.measure(forecasts, again) == found
    assert again.trained == []


def test_wrong_forecasts_show_and_missing_ones_do_not_count(plan):
    found = plan.measure({MINERS[0]: -0.02, MINERS[2]: 0.01}, Workers())
    assert (found.pairs, found.accuracy) == (1, 0.0)
    assert found.miners[1].forecast is None
    assert plan.measure({}, Workers()).accuracy is None


def test_pairs_within_the_noise_are_not_decided():
    def miner(hotkey, forecast, effect):
        return MinerEffect(hotkey=hotkey, share=0.5, forecast=forecast, effect=effect, error=0.01)

    near = [miner(MINERS[0], 0.1, 0.001), miner(MINERS[1], 0.0, 0.0)]
    found = summed_up(near, rules=RULES, pack="e" * 64, budget=1, seeds=3)
    assert (found.accuracy, found.decided, found.decided_accuracy) == (1.0, 0, None)
    tied = [miner(MINERS[0], 0.1, 0.5), miner(MINERS[1], 0.1, 0.0)]
    assert summed_up(tied, rules=RULES, pack="e" * 64, budget=1, seeds=3).decided_accuracy == 0.5


def test_one_miner_cannot_be_left_out(plan):
    table = pa.table({"hotkey": [MINERS[0]], "text": ["alone"]})
    pq.write_table(table, plan.mixture / "documents.parquet")
    with pytest.raises(NotFound, match="one miner"):
        plan.measure({}, Workers())


def test_the_forecast_is_the_median_of_passing_sheets():
    def sheet(hotkey, mean, outcome="pass"):
        return SimpleNamespace(hotkey=hotkey, outcome=outcome, effect=SimpleNamespace(mean=mean))

    sheets = [sheet("a", 0.1), sheet("a", 0.3), sheet("a", 0.2), sheet("a", 9.0, "fail"), sheet("b", 1.0, "none")]
    assert forecasts_of(sheets) == {"a": 0.2}
    assert forecasts_of([SimpleNamespace(hotkey="a", outcome="pass", effect=None)]) == {}
