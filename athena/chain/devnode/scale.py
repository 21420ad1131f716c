"""The little SCALE that has to be exact to the byte; everything else goes through bittensor_core's codec.

The codec turns byte strings into text where they happen to be UTF-8, so what must be stored or opened as it came
(commitments, ciphertexts) is cut out of the call's own bytes with `Reader`.
"""

from __future__ import annotations

from athena.errors import BadInput

MAX_BYTES = 1 << 20


def compact(value: int) -> bytes:
    """Compact encoding of an integer below 2**30."""
    if value < 1 << 6:
        return bytes([value << 2])
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    return (value << 2 | 2).to_bytes(4, "little")


def length_prefixed(data: bytes) -> bytes:
    """`Vec<u8>`: compact length, then the bytes."""
    return compact(len(data)) + data


class Reader:
    """Reads SCALE values off the front of `data`; raises BadInput where it ends too early or a length is absurd."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._offset:
            raise BadInput(f"{count} bytes expected at byte {self._offset} of {len(self._data)}")
        piece = self._data[self._offset : self._offset + count]
        self._offset += count
        return piece

    def number(self, num_bytes: int) -> int:
        return int.from_bytes(self.take(num_bytes), "little")

    def compact(self) -> int:
        mode = self.take(1)[0]
        self._offset -= 1
        if mode & 3 == 3:
            raise BadInput("compact integer over 2**30")
        return self.number(1 << (mode & 3)) >> 2

    def vector(self, *, max_bytes: int = MAX_BYTES) -> bytes:
        """`Vec<u8>` of at most `max_bytes`."""
        length = self.compact()
        if length > max_bytes:
            raise BadInput(f"{length} bytes, {max_bytes} at most")
        return self.take(length)

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._offset)

    @property
    def offset(self) -> int:
        return self._offset

    def end(self) -> None:
        """Raises BadInput if anything is left."""
        if self._offset != len(self._data):
            raise BadInput(f"{len(self._data) - self._offset} bytes too many")
