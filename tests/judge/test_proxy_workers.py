"""Workers under a stand-in for the training process: who gets which job, and what happens when one fails."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from athena.errors import Unavailable
from athena.judge.proxy.arms import CPU, Job, Measured, ProxyWorkers, devices_here
from athena.judge.rules import ProxyRules


@pytest.fixture
def orders(proxy_stand_in):
    """The orders that workers got so far: device, and name and seed of each job."""
    log = proxy_stand_in({})
    return lambda: [f"{device} {' '.join(map(label, jobs))}" for device, jobs in log()]


def label(job: dict) -> str:
    return f"{job['name']}{int(job['seed'], 16)}"


@pytest.fixture
def make_job(tmp_path):
    def make(name: str, seed: int = 0, *, evaluation: str = "eval", seconds: int = 30) -> Job:
        return Job(
            name=name, seed=f"{seed:064x}", budget_tokens=1, documents=tmp_path / name, evaluation=Path(evaluation),
            rules=ProxyRules(arm_seconds=seconds), model=tmp_path / f"{name}-{seed}.safetensors",
            result=tmp_path / f"{name}-{seed}-{evaluation}.arm.json",
        )  # fmt: skip

    return make


def names(found: list[Measured]) -> list[str]:
    return [label(m.arm.model_dump()) for m in found]


def test_results_come_in_the_order_of_the_jobs_and_stay_on_disk(make_job, orders):
    jobs = [make_job("a", 1), make_job("b"), make_job("a", 2), make_job("a", 1)]
    seen: list[str] = []
    with ProxyWorkers(2) as workers:
        found = workers.run(jobs, lambda arm: seen.append(arm.name))
        assert names(found) == ["a1", "b0", "a2", "a1"] and sorted(seen) == ["a", "a", "a", "b"]
        assert sorted(orders()) == ["cpu a1", "cpu a2", "cpu b0"]
    with ProxyWorkers(1) as workers:
        assert workers.run(jobs, lambda arm: None) == found
    assert len(orders()) == 3


def test_cases_at_the_same_time_share_arms_and_workers(make_job, orders):
    """Four cases with the same reference: each arm is trained once, and measured anew for another evaluation."""
    shared = [make_job("canonical", seed) for seed in range(3)]
    with ProxyWorkers(3) as workers, ThreadPoolExecutor(4) as cases:
        own = [[*shared, make_job(f"miner{number}")] for number in range(4)]
        own[3] = [make_job("canonical", seed, evaluation="other") for seed in range(3)]
        found = list(cases.map(lambda jobs: workers.run(jobs, lambda arm: None), own))
    assert found[0][:3] == found[1][:3] == found[2][:3]
    assert len(orders()) == 3 + 3 + 3


def test_other_devices_get_stacks_of_what_differs_by_seed_alone(make_job, orders):
    jobs = [make_job("a", 1), make_job("b", 1), make_job("a", 2), make_job("a", 3), make_job("b", 2)]
    with ProxyWorkers(4, devices=("cuda:0",)) as workers:
        assert names(workers.run(jobs, lambda arm: None)) == ["a1", "b1", "a2", "a3", "b2"]
    assert orders() == ["cuda:0 a1 a2 a3", "cuda:0 b1 b2"]


def test_every_device_has_its_own_worker(make_job, orders):
    jobs = [make_job(name) for name in "abcdef"]
    with ProxyWorkers(1, devices=("cuda:0", "cuda:1", CPU)) as workers:
        workers.run(jobs, lambda arm: None)
    assert {order.split()[0] for order in orders()} == {"cuda:0", "cuda:1", CPU}


def test_a_torn_result_is_trained_again(make_job, orders):
    job = make_job("a")
    job.result.write_text('{"arm": {"na')
    with ProxyWorkers() as workers:
        assert names(workers.run([job], lambda arm: None)) == ["a0"]


@pytest.mark.parametrize(("name", "says"), [("dies", "died"), ("hangs", "took over 1 s"), ("silent", "no result")])
def test_a_worker_that_fails_is_this_machines_fault_and_is_replaced(make_job, orders, name, says):
    with ProxyWorkers() as workers:
        with pytest.raises(Unavailable, match=says):
            workers.run([make_job(name, seconds=1)], lambda arm: None)
        assert names(workers.run([make_job("a")], lambda arm: None)) == ["a0"]


def test_one_cases_failure_leaves_the_others_alone(make_job, orders):
    jobs = [make_job("a", seed) for seed in range(8)]
    with ProxyWorkers(2) as workers, ThreadPoolExecutor(2) as cases:
        other = cases.submit(workers.run, jobs, lambda arm: None)
        with pytest.raises(Unavailable):
            workers.run([make_job("dies")], lambda arm: None)
        assert len(other.result()) == 8


def test_closing_ends_what_other_threads_wait_for(make_job, orders):
    workers, failed = ProxyWorkers(1), []

    def case() -> None:
        with pytest.raises(Unavailable) as error:
            workers.run([make_job("hangs"), make_job("a")], lambda arm: None)
        failed.append(error.value)

    thread = threading.Thread(target=case)
    thread.start()
    while not orders():
        time.sleep(0.01)
    workers.close()
    thread.join(10)
    assert len(failed) == 1 and not thread.is_alive()
    with pytest.raises(Unavailable, match="closed"):
        workers.run([make_job("b")], lambda arm: None)


def test_devices_are_those_that_torch_finds_or_the_cpu():
    found = devices_here()
    assert found == (CPU,) or all(device.startswith("cuda:") for device in found)
