"""How a hub is named, and what naming one costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from athena.errors import Misconfigured, NotFound
from athena.hub import open_hub


@pytest.mark.parametrize(
    "url", ["", "hub", "file://", "file://relative", "s3://bucket", "hf://http://mirror.example", "hf://mirror.example"]
)
def test_an_address_that_is_no_hub_is_refused(url):
    with pytest.raises(Misconfigured):
        open_hub(url)


def test_datasets_and_models_of_one_name_are_apart(server, folder, tmp_path):
    for url in (f"file://{tmp_path}/ro%20ot", f"hf://{server.url}"):
        datasets, models = open_hub(url), open_hub(url, kind="model")
        assert datasets.scheme == models.scheme == url.partition(":")[0]
        revision = models.publish(folder({"config.json": b"{}"}), "alice/x", message="m")
        assert models.resolve("alice/x", "main") == revision
        with pytest.raises(NotFound):
            datasets.resolve("alice/x", "main")
    assert (tmp_path / "ro ot").is_dir()


def test_a_folder_hub_needs_no_client_of_another_hub(tmp_path):
    program = f"""
import sys
from athena.hub import open_hub
open_hub("file://{tmp_path}")
assert not {{"huggingface_hub", "torch", "bittensor", "datatrove"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
