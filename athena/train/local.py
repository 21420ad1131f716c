"""Datasets in folders of this machine, as a hub has them: a mixture without a chain."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from athena.errors import BadInput, NotFound, TooLarge
from athena.protocol import DatasetRef, Manifest
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, Limits
from athena.train.mixture import AcceptedDataset, canonical_order

_ORGANISATION = "local"
_REFUSED = re.compile(r"[^A-Za-z0-9._-]|\.\.")


class LocalDatasets:
    """The datasets below some folders, each a folder with a manifest.json. All weigh the same.

    What the manifests say is verified when a mixture fetches them. Raises NotFound where there is none, BadInput for a
    manifest that is none.
    """

    scheme = "file"

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders: dict[str, Path] = {}
        accepted = []
        for folder in folders:
            found = [folder] if (folder / MANIFEST_FILE).is_file() else _below(folder)
            if not found:
                raise NotFound(f"no dataset in {folder}", remedy="give folders that `athena refine` wrote")
            accepted += [self._accept(dataset) for dataset in found]
        self.accepted = tuple(canonical_order(accepted))

    def fetch(self, name: str, revision: str, into: Path, *, max_bytes: int, suffixes: tuple[str, ...] = ()) -> Path:
        """Copies a dataset's two files, as a hub does. Raises NotFound, and TooLarge before anything is copied."""
        if name not in self._folders:
            raise NotFound(f"no dataset {name}@{revision}")
        paths = [self._folders[name] / file for file in (DATA_FILE, MANIFEST_FILE)]
        if not all(path.is_file() for path in paths):
            raise NotFound(f"{self._folders[name]} lacks {DATA_FILE} or {MANIFEST_FILE}")
        if sum(path.stat().st_size for path in paths) > max_bytes:
            raise TooLarge(f"{self._folders[name]} is over {max_bytes} bytes")
        into.mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copyfile(path, into / path.name)
        return into

    def _accept(self, folder: Path) -> AcceptedDataset:
        manifest = _manifest(folder / MANIFEST_FILE)
        name = f"{_REFUSED.sub('-', folder.resolve().name) or 'dataset'}-{manifest.root[:8]}"
        self._folders[f"{_ORGANISATION}/{name}"] = folder
        ref = DatasetRef(
            location=f"{self.scheme}:{_ORGANISATION}/{name}", revision=manifest.root[:40], root=manifest.root
        )
        return AcceptedDataset(hotkey=manifest.hotkey, task_id=manifest.task_id, dataset=ref, incentive=1.0)


def _below(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}"))


def _manifest(path: Path) -> Manifest:
    limit = Limits().max_manifest_bytes
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TooLarge(f"{path} is over {limit} bytes")
    try:
        return Manifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise BadInput(f"{path} is no dataset's manifest: {error.error_count()} faults") from error
