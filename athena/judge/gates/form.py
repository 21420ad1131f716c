"""Gate 1: what was published is what was committed to. Sizes come before any download, a reader process after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from athena.errors import BadInput
from athena.hub import Hub
from athena.judge.evidence import Case, Rows
from athena.judge.gates.sandbox import read_dataset
from athena.judge.rules import GateRules
from athena.protocol import Commitment, Manifest
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE

GATE = "form"


def dataset_folder(workdir: Path, commitment: Commitment) -> Path:
    """Where the files of a commitment's dataset lie once they were fetched."""
    return workdir / "datasets" / f"{commitment.dataset.root}-{commitment.dataset.revision}"


@dataclass(frozen=True)
class Opened:
    """A dataset whose bytes, schema, checksums and Merkle root hold."""

    manifest: Manifest
    rows: Rows


def read_folder(folder: Path, rules: GateRules) -> Opened:
    """The fetched dataset in `folder`. Raises BadInput where its files are at fault, else Unavailable."""
    manifest, table = read_dataset(folder, folder.with_name(f"{folder.name}.arrow"), rules)
    return Opened(manifest, Rows(table))


def open_dataset(case: Case, hub: Hub, workdir: Path, rules: GateRules) -> Opened:
    """Fetches and reads what a case's commitment names. Only manifest and rows: no other file is ever touched.

    Raises BadInput (TooLarge before any download) and NotFound for the miner's faults, and Unavailable for those of
    the hub and of this machine.
    """
    ref = case.commitment.dataset
    if ref.scheme != hub.scheme:
        raise BadInput(f"the dataset lies on another kind of hub ({ref.scheme})")
    wanted = (DATA_FILE, MANIFEST_FILE)
    if absent := set(wanted) - hub.sizes(ref.repository, ref.revision).keys():
        raise BadInput(f"no {' and no '.join(sorted(absent))} in the repository")
    folder = dataset_folder(workdir, case.commitment)
    hub.fetch(ref.repository, ref.revision, folder, max_bytes=rules.max_dataset_bytes, suffixes=wanted)
    opened = read_folder(folder, rules)
    _check_promises(case, opened)
    return opened


def _check_promises(case: Case, opened: Opened) -> None:
    """Raises BadInput unless the dataset is this commitment's, for this task, by this hotkey."""
    promised = {
        "root": case.commitment.dataset.root,
        "task_id": case.task.id,
        "hotkey": case.commitment.hotkey,
        "rule_version": case.task.rule_version,
    }
    for field, value in promised.items():
        if getattr(opened.manifest, field) != value:
            raise BadInput(f"the manifest has another {field} than the commitment")
    paths = list(case.task.shard.warc_paths)
    in_file = pc.unique(opened.rows.table["warc_path"]).to_pylist()
    if set(in_file) - set(paths):
        raise BadInput("rows come from WARC files outside of the shard")
    if in_file != [path for path in paths if path in in_file]:
        raise BadInput("the WARC files are not in the shard's order")
