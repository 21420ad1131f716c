"""datatrove's block lists of 4.6 million domains and URLs, as 37 MB of sorted hashes that all processes share.

As Python sets they take 744 MB and 5 s in every process. Here they are hashed once per machine into a file, which is
memory-mapped afterwards. Two addresses share a 64-bit hash with a chance of one in 4·10¹² per look-up.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs
import xxhash
from filelock import FileLock

from athena.durable import sha256_of, write_file
from athena.errors import Misconfigured

NOT_ALPHANUMERIC = re.compile(r"[^a-zA-Z0-9]+")
_ARCHIVE = "url_filterblacklistsv0_3_0.tar.gz"
Hashes = npt.NDArray[np.uint64]


def assets() -> Path:
    """The folder of datatrove's lists."""
    return Path(str(resources.files("datatrove"))) / "assets"


@lru_cache(maxsize=1)
def archive_sha256() -> str:
    return sha256_of(assets() / _ARCHIVE)


@lru_cache(maxsize=3)
def words(name: str) -> frozenset[str]:
    """The list `banned_words`, `soft_banned_words` or `banned_subwords`, lower-case letters and digits only."""
    lines = (assets() / f"{name}.txt").read_text("utf-8").splitlines()
    return frozenset(NOT_ALPHANUMERIC.sub("", line).lower() for line in lines if line and not line.startswith("#"))


def contains(hashes: Hashes, address: str) -> bool:
    """Whether the address, spelled exactly so, is on the list."""
    wanted = np.uint64(xxhash.xxh64_intdigest(address.encode("utf-8", "replace")))
    place = int(np.searchsorted(hashes, wanted))
    return place < len(hashes) and bool(hashes[place] == wanted)


@lru_cache(maxsize=2)
def load(name: str) -> Hashes:
    """The list `domains` or `urls`, memory-mapped; built in the user's cache folder when it is not there yet."""
    folder = platformdirs.user_cache_path("athena")
    path = folder / f"{name}-{archive_sha256()[:16]}.npy"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "url-lists.lock"):  # several nodes of one machine start at once
                if not path.exists():
                    _build(name, path)
        except OSError as error:
            raise Misconfigured(
                f"{folder} cannot be written: {error}", remedy="point XDG_CACHE_HOME elsewhere"
            ) from error
    hashes: Hashes = np.load(path, mmap_mode="r", allow_pickle=False)
    return hashes


def _build(name: str, path: Path) -> None:
    hashes = np.unique(np.fromiter(map(xxhash.xxh64_intdigest, _lines(name)), dtype=np.uint64))
    file = io.BytesIO()
    np.save(file, hashes)
    write_file(path, file.getvalue())


def _lines(name: str) -> Iterator[bytes]:
    with tarfile.open(assets() / _ARCHIVE) as archive:
        member = archive.extractfile(name)
        assert member is not None  # the archive is pinned with datatrove's version
        for line in member:
            if not line.startswith(b"#"):
                yield line.strip()
