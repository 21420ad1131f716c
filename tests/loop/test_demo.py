"""The demo as a process: how it stops, refuses, and starts again."""

import random
import signal
import time

import pytest

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("event", ["devchain.ready", "miner.refining"])
def test_ctrl_c_leaves_no_process_behind(demo, processes_below, event):
    run = demo("--pages", "60")
    room = "chain" if event.startswith("devchain") else "miner-canon"
    run.wait_until(lambda: run.events(room, event), event)
    time.sleep(random.Random(event).uniform(0, 0.5))
    run.process.send_signal(signal.SIGINT)
    assert run.finish(40) == 130
    assert processes_below(run.out) == []


def test_running_again_works_and_foreign_folders_are_left_alone(demo, tmp_path):
    foreign = tmp_path / "demo-0"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    run = demo("--pages", "60")
    assert run.finish(30) == 2
    assert (foreign / "thesis.txt").read_text() == "precious"
    assert "--out" in run.output()


def test_files_without_html_end_with_a_clear_message(demo, tmp_path):
    nothing = tmp_path / "not-a.warc.gz"
    nothing.write_bytes(b"\x1f\x8bnonsense")
    run = demo("--warc", str(nothing))
    assert run.finish(60) == 2
    assert "WARC" in run.output()
