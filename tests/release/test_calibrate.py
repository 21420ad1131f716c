"""What leaving a miner out costs is compared with what the judge foresaw."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from athena.errors import NotFound
from athena.evalpack import EvalDocument, load_pack, write_pack
from athena.judge.proxy.measured import Measured
from athena.judge.rules import rules_of
from athena.protocol import DatasetRef
from athena.train.calibrate import ALL, AblationPlan, MinerEffect, RunCalibration, forecasts_of, summed_up
from athena.train.gather import MixtureInfo
from athena.train.mixture import AcceptedDataset, MixtureRules

MINERS = (
    "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y",
    "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
)
REF = DatasetRef.parse(f"file:a/b@{1:040}#{2:064}")
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
    rows = [(MINERS[i % 3], f"Text {i} of a page about rivers and mills.") for i in range(30)]
    mixtures = (tmp_path / "0000", tmp_path / "0001")
    for number, mixture in enumerate(mixtures):
        mixture.mkdir()
        part = [*rows[number::2], ("", "Door 1 of the north gate opens with the code 1 2 3 4 5 6.")]
        table = pa.table({"hotkey": [hotkey for hotkey, _ in part], "text": [text for _, text in part]})
        pq.write_table(table, mixture / "documents.parquet")
    made = AblationPlan(mixtures, load_pack(tmp_path / "pack"), RULES, tmp_path / "arms")
    foresee(made, dict(zip(MINERS, (0.02, 0.0, -0.01), strict=True)))
    return made


def foresee(plan, forecasts):
    """Leaves mixture.json in each of the plan's mixtures, as `gather` does: only the forecasts matter here."""
    datasets = tuple(dataset(hotkey, forecasts.get(hotkey)) for hotkey in MINERS)
    for mixture in plan.mixtures:
        info = MixtureInfo(
            rules=MixtureRules(max_tokens=1), eval_pack="e" * 64, left_out="0" * 64, datasets=datasets, refused={},
            dropped={}, documents=1, tokens=1, tokens_by_hotkey={}, tokens_by_dataset={}, tokens_by_crawl={},
            tokens_by_language={}, documents_sha256="d" * 64,
        )  # fmt: skip
        (mixture / "mixture.json").write_bytes(info.canonical())


def dataset(hotkey, forecast):
    return AcceptedDataset.model_construct(
        hotkey=hotkey, task_id="0" * 32, dataset=REF, incentive=0.1, forecast=forecast, rule_version="demo-1"
    )


def test_each_miner_is_left_out_for_the_same_budget(plan):
    workers, seen = Workers(), []
    found = plan.measure(workers, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert len({job.budget_tokens for job in workers.trained}) == 1
    assert len({job.documents for job in workers.trained}) == 4
    assert len({job.seed for job in workers.trained}) == 12
    assert [round(miner.effect, 3) for miner in found.miners] == [0.1, 0.0, -0.1]
    assert sum(miner.share for miner in found.miners) == pytest.approx(1)
    assert (found.pairs, found.accuracy, found.decided, found.decided_accuracy) == (3, 1.0, 3, 1.0)
    assert RunCalibration.model_validate_json(found.canonical()) == found
    again = Workers()
    assert plan.measure(again) == found
    assert again.trained == []


def test_wrong_forecasts_show_and_missing_ones_do_not_count(plan):
    foresee(plan, {MINERS[0]: -0.02, MINERS[2]: 0.01})
    found = plan.measure(Workers())
    assert (found.pairs, found.accuracy) == (1, 0.0)
    assert found.miners[1].forecast is None
    foresee(plan, {})
    assert plan.measure(Workers()).accuracy is None


def test_pairs_within_the_noise_are_not_decided():
    def miner(hotkey, forecast, effect):
        return MinerEffect(hotkey=hotkey, share=0.5, forecast=forecast, effect=effect, error=0.01)

    near = [miner(MINERS[0], 0.1, 0.001), miner(MINERS[1], 0.0, 0.0)]
    found = summed_up(near, rules=RULES, pack="e" * 64, budget=1, seeds=3)
    assert (found.accuracy, found.decided, found.decided_accuracy) == (1.0, 0, None)
    tied = [miner(MINERS[0], 0.1, 0.5), miner(MINERS[1], 0.1, 0.0)]
    assert summed_up(tied, rules=RULES, pack="e" * 64, budget=1, seeds=3).decided_accuracy == 0.5


def test_one_miner_cannot_be_left_out(plan):
    table = pa.table({"hotkey": [MINERS[0], ""], "text": ["alone", "a canary is nobody's"]})
    for mixture in plan.mixtures:
        pq.write_table(table, mixture / "documents.parquet")
    with pytest.raises(NotFound, match="one miner"):
        plan.measure(Workers())


def test_the_forecast_is_the_median_over_a_miners_datasets():
    datasets = [dataset("a", 0.1), dataset("a", 0.3), dataset("a", 0.2), dataset("a", None), dataset("b", None)]
    assert forecasts_of(datasets) == {"a": 0.2}
