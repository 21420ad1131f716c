"""The packaged metadata is what scripts/extract_metadata.py makes, and the codec reads it."""

from __future__ import annotations

import hashlib
import importlib.util
import lzma
from pathlib import Path

import pytest

from athena.chain.devnode.metadata import SPEC_VERSION, load_metadata

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "athena/chain/devnode"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("extract_metadata", ROOT / "scripts/extract_metadata.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packaged() -> bytes:
    return lzma.decompress((PACKAGE / "metadata.scale.xz").read_bytes())


def test_the_note_beside_it_names_its_hashes(script, packaged):
    note = (PACKAGE / "metadata.md").read_text()
    assert hashlib.sha256(packaged).hexdigest() in note
    assert script.SDIST_SHA256 in note


def test_a_second_pass_changes_nothing(script, packaged):
    assert script.rewrite(packaged) == packaged


def test_damaged_metadata_is_refused(script, packaged):
    for damaged in (packaged[:-1], packaged + b"\0", b"meta\x0e" + packaged[5:], b""):
        with pytest.raises((ValueError, IndexError)):
            script.rewrite(damaged)


def test_another_distribution_is_refused(script, tmp_path):
    (tmp_path / "sdist.tar.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="sha256"):
        script.golden_metadata(tmp_path / "sdist.tar.gz")


def test_no_documentation_is_left_and_the_item_is_there(packaged):
    metadata = load_metadata(0.25)
    assert metadata.raw == packaged
    pallets = metadata.codec.metadata_ir()["pallets"]
    assert not any(error["docs"] for pallet in pallets for error in pallet["errors"])
    assert metadata.decode_storage("SubtensorModule", "SubnetEpochConsensus", None) == 0
    assert metadata.codec.constant("System", "Version")["spec_version"] == SPEC_VERSION


@pytest.mark.parametrize("seconds", [0.05, 0.25, 12])
def test_block_time_is_a_constant_of_the_runtime(seconds):
    assert load_metadata(seconds).codec.constant("Aura", "SlotDuration") == seconds * 1000


def test_every_zero_value_encodes():
    metadata = load_metadata(0.25)
    output = metadata.runtime_apis["SubnetInfoRuntimeApi_get_metagraph"]["output"]
    zero = metadata.zero(metadata.optional_type(output))
    assert metadata.codec.decode(output, bytes(metadata.codec.encode(output, zero)), True)["num_uids"] == 0
