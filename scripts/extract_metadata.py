"""Makes athena/chain/devnode/metadata.scale.xz: the runtime metadata that the dev chain serves.

The source distribution of the bittensor SDK carries, as a test fixture, the V15 metadata of a real subtensor runtime
(spec 461). This script fetches that distribution from PyPI (or takes it from `--sdist`), checks its sha256, drops the
documentation strings, adds the one storage item that the SDK reads and spec 461 lacks, and compresses the result.
Running it again gives the same bytes.

    python scripts/extract_metadata.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

SDIST = "bittensor-11.3.0.tar.gz"
SDIST_SHA256 = "8ce05029a712866048c6cf3e3d5df1592ac896175f5b4227f63044b7e7b7edb3"
FIXTURE = "bittensor-11.3.0/tests/fixtures/golden.json"
TARGET = Path(__file__).resolve().parents[1] / "athena/chain/devnode/metadata.scale.xz"

# SetWeights of SDK 11.3 reads SubtensorModule.SubnetEpochConsensus (0 = Yuma), which came after spec 461. Tempo has
# the same shape (Identity-hashed map from NetUid to u16), so its entry is copied under the new name, default 0.
ADDED_PALLET, ADDED_ITEM, TEMPLATE_ITEM, ADDED_DEFAULT = "SubtensorModule", "SubnetEpochConsensus", "Tempo", b"\0\0"


def compact(value: int) -> bytes:
    """SCALE compact encoding of an integer below 2**30."""
    if value < 1 << 6:
        return bytes([value << 2])
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    return (value << 2 | 2).to_bytes(4, "little")


class Rewriter:
    """Copies SCALE data from `source` to `out`, field by field, leaving out what `drop` reads."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.offset = 0
        self.out = bytearray()

    def take(self, count: int) -> bytes:
        piece = self.source[self.offset : self.offset + count]
        if len(piece) != count:
            raise ValueError(f"metadata ends at byte {len(self.source)}, {count} more expected at {self.offset}")
        self.offset += count
        return piece

    def read_compact(self) -> int:
        mode = self.source[self.offset] & 3
        if mode == 3:
            raise ValueError(f"compact integer over 2**30 at byte {self.offset}")
        return int.from_bytes(self.take(1 << mode), "little") >> 2

    def raw(self, count: int) -> bytes:
        piece = self.take(count)
        self.out += piece
        return piece

    def number(self) -> int:
        value = self.read_compact()
        self.out += compact(value)
        return value

    def text(self) -> bytes:
        return self.raw(self.number())

    def option(self, item: Callable[[], object]) -> None:
        if self.raw(1) == b"\1":
            item()

    def sequence(self, item: Callable[[], object]) -> None:
        for _ in range(self.number()):
            item()

    def docs(self) -> None:
        for _ in range(self.read_compact()):
            self.take(self.read_compact())
        self.out += compact(0)


class MetadataRewriter(Rewriter):
    """Walks `RuntimeMetadataV15` (frame-metadata 16) in the order of its fields."""

    def run(self) -> bytes:
        if self.raw(5) != b"meta\x0f":
            raise ValueError("not V15 runtime metadata")
        self.sequence(self.portable_type)
        self.sequence(self.pallet)
        self.extrinsic()
        self.number()  # type of the runtime
        self.sequence(self.runtime_api)
        for _ in range(3):  # outer enums: call, event, error
            self.number()
        self.sequence(self.custom_value)
        if self.offset != len(self.source):
            raise ValueError(f"{len(self.source) - self.offset} bytes after the end of the metadata")
        return bytes(self.out)

    def portable_type(self) -> None:
        self.number()
        self.sequence(self.text)  # path
        self.sequence(self.type_parameter)
        self.definition(self.raw(1)[0])
        self.docs()

    def definition(self, kind: int) -> None:
        if kind == 0:  # composite
            self.sequence(self.field)
        elif kind == 1:  # variant
            self.sequence(self.variant)
        elif kind in (2, 6):  # sequence, compact
            self.number()
        elif kind == 3:  # array
            self.raw(4)
            self.number()
        elif kind == 4:  # tuple
            self.sequence(self.number)
        elif kind == 5:  # primitive
            self.raw(1)
        elif kind == 7:  # bit sequence
            self.number()
            self.number()
        else:
            raise ValueError(f"unknown type definition {kind}")

    def type_parameter(self) -> None:
        self.text()
        self.option(self.number)

    def variant(self) -> None:
        self.text()
        self.sequence(self.field)
        self.raw(1)  # index
        self.docs()

    def field(self) -> None:
        self.option(self.text)
        self.number()
        self.option(self.text)  # name of the type
        self.docs()

    def pallet(self) -> None:
        name = self.text().decode()
        self.option(lambda: self.storage(name))
        self.option(self.number)  # calls
        self.option(self.number)  # event
        self.sequence(self.constant)
        self.option(self.number)  # error
        self.raw(1)  # index
        self.docs()

    def constant(self) -> None:
        self.text()
        self.number()
        self.text()
        self.docs()

    def storage(self, pallet: str) -> None:
        self.text()  # prefix
        count = self.read_compact()
        adds = pallet == ADDED_PALLET and ADDED_ITEM.encode() not in self.source
        self.out += compact(count + adds)
        for _ in range(count):
            start = len(self.out)
            name = self.text().decode()
            self.raw(1)  # modifier
            self.storage_type()
            default_start = len(self.out)
            self.text()
            self.docs()
            if adds and name == TEMPLATE_ITEM:
                shape = self.out[start + len(compact(len(name))) + len(name) : default_start]
                default = compact(len(ADDED_DEFAULT)) + ADDED_DEFAULT
                self.out += compact(len(ADDED_ITEM)) + ADDED_ITEM.encode() + shape + default + compact(0)

    def storage_type(self) -> None:
        if self.raw(1) == b"\1":  # map: hashers, key, value
            self.sequence(lambda: self.raw(1))
            self.number()
        self.number()

    def extrinsic(self) -> None:
        self.raw(1)  # version
        for _ in range(4):  # address, call, signature, extra
            self.number()
        self.sequence(self.signed_extension)

    def signed_extension(self) -> None:
        self.text()
        self.number()
        self.number()

    def runtime_api(self) -> None:
        self.text()
        self.sequence(self.method)
        self.docs()

    def method(self) -> None:
        self.text()
        self.sequence(self.parameter)
        self.number()
        self.docs()

    def parameter(self) -> None:
        self.text()
        self.number()

    def custom_value(self) -> None:
        self.text()
        self.number()
        self.text()


def rewrite(metadata: bytes) -> bytes:
    """The metadata without documentation strings and with the added storage item; a second pass changes nothing."""
    return MetadataRewriter(metadata).run()


def golden_metadata(sdist: Path) -> bytes:
    """Raw metadata out of the source distribution; raises ValueError when the file is not the pinned one."""
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != SDIST_SHA256:
        raise ValueError(f"{sdist} has sha256 {found}, {SDIST_SHA256} expected")
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(FIXTURE)
        if member is None:
            raise ValueError(f"{FIXTURE} is not a file of {sdist}")
        opaque = bytes.fromhex(json.load(member)["metadata"]["v15_hex"].removeprefix("0x"))
    reader = Rewriter(opaque)  # Option<OpaqueMetadata>: 01, then the length-prefixed blob
    if reader.take(1) != b"\1":
        raise ValueError("the fixture holds no metadata")
    return reader.take(reader.read_compact())


def download(folder: Path) -> Path:
    """The pinned source distribution from the package index, fetched with pip into `folder`."""
    requirement = ["--no-deps", "--no-binary", "bittensor", "bittensor==11.3.0"]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", str(folder), *requirement], check=True)
    return folder / SDIST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sdist", type=Path, help="the source distribution, if it is already on this machine")
    parser.add_argument("--out", type=Path, default=TARGET, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        metadata = rewrite(golden_metadata(arguments.sdist or download(Path(folder))))
    packed = lzma.compress(metadata, format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, preset=9 | lzma.PRESET_EXTREME)
    arguments.out.write_bytes(packed)
    print(f"{arguments.out}: {len(packed):,} bytes, metadata sha256 {hashlib.sha256(metadata).hexdigest()}")


if __name__ == "__main__":
    main()
