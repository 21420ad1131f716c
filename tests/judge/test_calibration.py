"""A calibration finds the σ that its arms were made with, and goes on where it broke off."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from athena.cli import app
from athena.crawl import open_crawl
from athena.errors import BadInput
from athena.evalpack import EvalDocument, load_pack, write_pack
from athena.judge.calibration import Calibration, calibrate, pooled, rounded_up
from athena.judge.calibration_runs import CalibrationPlan
from athena.judge.proxy.measured import Measured
from athena.judge.rules import rules_of
from athena.judge.score import CANONICAL, MINER, NAMES, RAW, SHUFFLED
from athena.localnet.ground import build_crawl, build_pack
from athena.localnet.prose import installed_prose

RULES, DEMO = rules_of("1"), rules_of("demo-1")
PACK = "1" * 64
DOMAINS = 8
SIZES = [1000] * 4
LEVELS = {CANONICAL: 1.5, MINER: 1.49, RAW: 1.6, SHUFFLED: 1.9}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")


def synthetic(dice, *, seeds=6, of_arm=0.003, of_domain=0.008, of_task=0.004, of_document=0.02, levels=LEVELS):
    """One task's arms with noise of known deviations. Documents differ by the same in all arms of a text."""
    shift = {name: dice.normal(0, of_task) if name == MINER else 0.0 for name in NAMES}
    documents = {name: dice.normal(0, of_document, (DOMAINS, len(SIZES))) for name in (CANONICAL, MINER)}
    measured = []
    for number, name in enumerate(name for name in NAMES for _ in range(seeds)):
        level = levels[name] + shift[name] + dice.normal(0, of_arm) + dice.normal(0, of_domain, (DOMAINS, 1))
        apart = documents.get(name, np.zeros((DOMAINS, len(SIZES))))
        bits = (level + apart - apart.mean(axis=1, keepdims=True)) * SIZES
        by_domain = {f"d{index}": list(row) for index, row in enumerate(bits)}
        measured.append(Measured.of(name, f"{number:064x}", 1, by_domain, dict.fromkeys(by_domain, SIZES)))
    return measured


@pytest.fixture(scope="module")
def found():
    dice = np.random.default_rng(7)
    return calibrate([synthetic(dice) for _ in range(150)], RULES, PACK)


def test_the_noise_of_seeds_is_found(found):
    assert found.sigma_seed == pytest.approx((0.003**2 + 0.008**2 / DOMAINS) ** 0.5, rel=0.05)
    assert found.sigma_domain == pytest.approx((0.003**2 + 0.008**2) ** 0.5, rel=0.05)
    assert list(found.by_domain.values()) == pytest.approx([found.sigma_domain] * DOMAINS, rel=0.1)
    assert found.seed_freedom == 150 * 2 * 5


def test_the_noise_of_tasks_is_found_beside_that_of_seeds(found):
    assert found.sigma_task == pytest.approx(0.004, rel=0.15)
    assert (found.tasks, found.task_freedom) == (150, 149)


def test_the_noise_of_documents_is_found(found):
    """Of the mean of n values that differ by σ, in two texts; a bootstrap of n is short by √((n − 1)/n)."""
    n = len(SIZES)
    assert found.document_error == pytest.approx(0.02 * (2 / n) ** 0.5 * ((n - 1) / n) ** 0.5, rel=0.1)


def test_the_canaries_are_where_they_were_put(found):
    by_name = {contrast.name: contrast for contrast in found.contrasts}
    assert by_name.keys() == {MINER, RAW, SHUFFLED}
    for name, contrast in by_name.items():
        assert contrast.mean == pytest.approx(LEVELS[CANONICAL] - LEVELS[name], abs=0.001)
        assert len(contrast.effects) == 150
        assert contrast.sigma_seed == pytest.approx(found.sigma_seed, rel=0.15)
    assert found.abstained == 0


def test_canaries_out_of_order_are_counted():
    dice = np.random.default_rng(8)
    tasks = [synthetic(dice), synthetic(dice, levels={**LEVELS, RAW: 1.3}), synthetic(dice)]
    assert calibrate(tasks, RULES, PACK).abstained == 1


def test_estimates_are_unbiased_with_few_seeds_and_tasks():
    """Of variances: over many small calibrations their mean is the true one."""
    dice = np.random.default_rng(9)
    small = [calibrate([synthetic(dice, seeds=2) for _ in range(4)], RULES, PACK) for _ in range(30)]
    assert np.mean([c.sigma_seed**2 for c in small]) == pytest.approx(0.003**2 + 0.008**2 / DOMAINS, rel=0.15)


def test_tasks_that_do_not_differ_have_no_noise_of_their_own():
    dice = np.random.default_rng(10)
    assert calibrate([synthetic(dice, of_task=0.0) for _ in range(30)], RULES, PACK).sigma_task < 0.001
    alone = calibrate([synthetic(dice)], RULES, PACK)
    assert (alone.sigma_task, alone.task_freedom) == (0.0, 0)


def test_what_to_write_into_the_rules(found):
    assert found.constants.startswith(f"sigma_seed={rounded_up(found.sigma_seed):g}, sigma_domain=")
    assert [rounded_up(sigma) for sigma in (0.0, 0.005, 0.00501, 0.0123, 0.0999)] == pytest.approx(
        [0.0, 0.005, 0.0051, 0.013, 0.1]
    )
    assert Calibration.model_validate_json(found.canonical()) == found


def test_pooling_ignores_where_groups_lie():
    assert pooled([[0.0, 2.0], [10.0, 12.0], [5.0]]) == pytest.approx(2**0.5)


class FakeWorkers:
    """Does what ProxyWorkers promise, with made-up results in place of training."""

    def __init__(self, parallel=1):
        self.trained = []

    def __enter__(self):
        return self

    def __exit__(self, *error): ...

    def run(self, jobs, finished):
        found = []
        for job in jobs:
            if not job.result.exists():
                self.trained.append(job)
                bits = LEVELS[job.name] + int(job.seed[:4], 16) / 2**16 * 0.001
                job.model.write_bytes(b"model")
                job.result.write_bytes(
                    Measured.of(job.name, job.seed, 1, {"web": [bits * 1000]}, {"web": [1000]}).canonical()
                )
            found.append(Measured.model_validate_json(job.result.read_bytes()))
            finished(found[-1].arm)
        return found


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    prose = installed_prose(("nltk", "mpmath", "joblib"))
    return build_crawl(tmp_path_factory.mktemp("crawl"), seed=2, pages=40, warcs=2, prose=prose)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    documents = [EvalDocument(id=str(i), domain=f"d{i % 2}", text=f"A text number {i} held out.") for i in range(8)]
    folder = tmp_path_factory.mktemp("pack")
    write_pack(folder, "test", documents)
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """One for the module, so that files are refined once."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def make_plan(crawl, pack, workdir):
    def make(seeds=2, rules=DEMO, url=None):
        return CalibrationPlan(
            crawl.warc_paths, open_crawl(url or crawl.root.as_uri()), load_pack(pack), rules, seeds, workdir
        )

    return make


def test_each_file_is_a_task_with_arms_of_each_text(make_plan):
    plan, workers, refined, trained = make_plan(), FakeWorkers(), [], []
    tasks = plan.tasks(refined.append)
    assert refined == [1, 2]
    found = plan.measure(tasks, workers, lambda done, total: trained.append((done, total)))
    assert trained == [(number, 16) for number in range(1, 17)]
    jobs = workers.trained
    assert [job.name for job in jobs[:8]] == [name for name in NAMES for _ in range(2)]
    assert len({job.seed for job in jobs}) == len({job.result for job in jobs}) == 16
    assert len({(job.evaluation, job.name, job.documents) for job in jobs}) == 8  # a text's arms share its tokens
    assert len({job.evaluation for job in jobs}) == 2  # each task draws its own documents
    assert all(0 < job.budget_tokens <= DEMO.proxy.max_tokens for job in jobs)
    assert not any(job.model.exists() for job in jobs)
    assert (found.rule_version, found.eval_pack, found.tasks) == ("demo-1", plan.pack.hash, 2)
    assert found.sigma_seed < 0.001 and found.abstained == 0


def test_a_calibration_goes_on_where_it_broke_off(make_plan, tmp_path):
    first = make_plan()
    found = first.measure(first.tasks(lambda _: None), FakeWorkers(), lambda *_: None)
    again, workers = make_plan(url=(tmp_path / "gone").as_uri()), FakeWorkers()
    assert again.measure(again.tasks(lambda _: None), workers, lambda *_: None) == found
    assert workers.trained == []
    longer = make_plan(seeds=3)
    longer.measure(longer.tasks(lambda _: None), workers, lambda *_: None)
    assert len(workers.trained) == 8


def test_a_file_with_too_little_text_is_refused(make_plan):
    rules = replace(DEMO, proxy=replace(DEMO.proxy, min_tokens=10**6))
    with pytest.raises(BadInput, match="too few to compare"):
        make_plan(rules=rules).tasks(lambda _: None)


@pytest.fixture
def calibrated(crawl, pack):
    def run(folder, *options, pack=pack):
        command = ["judge", "calibrate", *crawl.warc_paths, "--crawl-url", crawl.root.as_uri(), "--eval-pack", pack]
        command += ["--rules", "demo-1", "--seeds", 2, "--workdir", folder, *options]
        result = CliRunner().invoke(app, [str(part) for part in command], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert result.exit_code == 0, result.output
        return result.stdout, Calibration.model_validate_json((folder / "calibration.json").read_bytes())

    return run


def test_the_command_says_what_the_rules_are_to_hold(calibrated, workdir, monkeypatch):
    monkeypatch.setattr("athena.judge.proxy.arms.ProxyWorkers", FakeWorkers)
    text, kept = calibrated(workdir)
    assert kept.constants in text and "canaries out of order in 0 of 2 tasks" in text
    line, again = calibrated(workdir, "--json")
    assert Calibration.model_validate_json(line) == kept == again


@pytest.mark.full
@pytest.mark.timeout(900)
def test_real_arms_are_calibrated(calibrated, tmp_path):
    build_pack(tmp_path / "pack")
    _, found = calibrated(tmp_path / "work", pack=tmp_path / "pack")
    by_name = {contrast.name: contrast.mean for contrast in found.contrasts}
    assert 0 < found.sigma_seed < found.sigma_domain
    assert by_name[SHUFFLED] < 0
