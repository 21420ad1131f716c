"""A release in the hands of other people's tools, each as a process of its own: `lm_eval` and `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from athena.evalpack import EvalDocument, write_pack
from athena.packs.lm_eval_tasks import write_tasks
from athena.release import cut_release

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def release(trained, signer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut") / "release"
    cut_release(trained, name="athena", version="0.1.0", signer=signer, into=folder)
    return folder


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    return {**os.environ, **offline, "OMP_NUM_THREADS": "1"}


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_lm_eval_command_measures_it(release, environment, tmp_path):
    texts = ("The barn lies by the river, 7 miles from here.", "The inn lies by the mill, 12 miles from there.")
    documents = [EvalDocument(id=str(i), domain="web", text=text) for i, text in enumerate(texts)]
    name = write_tasks(write_pack(tmp_path / "pack", "test", documents), tmp_path / "tasks")
    model = f"pretrained={release},dtype=float32"
    command = [BIN / "lm_eval", "--model", "hf", "--model_args", model, "--device", "cpu", "--tasks", f"{name}_text"]
    paths = ["--include_path", tmp_path / "tasks", "--output_path", tmp_path / "out"]
    subprocess.run([*command, *paths], check=True, env=environment, cwd=tmp_path, capture_output=True)
    [found] = (tmp_path / "out").rglob("results*.json")
    assert 0 < json.loads(found.read_text())["results"][f"{name}_text_web"]["bits_per_byte,none"] < 32


@pytest.mark.full
@pytest.mark.timeout(900)
def test_transformers_serves_it(release, environment, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BIN / "transformers", "serve", release, "--device", "cpu", "--port", str(port), "--host", "127.0.0.1"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            _await(f"http://127.0.0.1:{port}/health", server, tmp_path / "log")
            body = {"model": str(release), "prompt": "The mill", "max_tokens": 8, "temperature": 0}
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=300)
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["text"]
        finally:
            server.kill()


def _await(url, server, log):
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start: {log.read_text()}")
