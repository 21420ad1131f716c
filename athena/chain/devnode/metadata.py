"""The runtime metadata this node serves, and the codec built from it: storage keys, values, events, errors, types."""

from __future__ import annotations

import json
import lzma
import re
from functools import cached_property
from importlib.resources import files
from typing import Any

import bittensor_core

from athena.errors import Misconfigured

SPEC_VERSION = 461
TRANSACTION_VERSION = 1
SS58_FORMAT = 42

_SLOT_DURATION = re.compile(rb"\x30SlotDuration.{1,4}?\x20(.{8})", re.DOTALL)


def load_metadata(block_seconds: float) -> Metadata:
    """The packaged metadata with its constant Aura.SlotDuration set: clients take the block time from there.

    Raises Misconfigured when the packaged file is missing or not the expected one.
    """
    try:
        raw = lzma.decompress(files("athena.chain.devnode").joinpath("metadata.scale.xz").read_bytes())
    except (FileNotFoundError, lzma.LZMAError) as error:
        raise Misconfigured(
            "the dev chain's runtime metadata is missing or damaged", remedy="run scripts/extract_metadata.py"
        ) from error
    found = [m for m in _SLOT_DURATION.finditer(raw) if int.from_bytes(m.group(1), "little") == 250]
    if len(found) != 1:
        raise Misconfigured(
            "the dev chain's runtime metadata has no single Aura.SlotDuration", remedy="run scripts/extract_metadata.py"
        )
    start, end = found[0].span(1)
    return Metadata(raw[:start] + round(block_seconds * 1000).to_bytes(8, "little") + raw[end:])


class Metadata:
    """One runtime's codec by names. Accounts are ss58 strings, hashes and byte arrays 0x-hex or bytes."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.codec = bittensor_core.Runtime(raw, SPEC_VERSION, TRANSACTION_VERSION, SS58_FORMAT)
        self._entries: dict[tuple[str, str], Any] = {}

    def _entry(self, pallet: str, item: str) -> Any:
        entry = self._entries.get((pallet, item))
        if entry is None:
            entry = self._entries[pallet, item] = self.codec.storage_entry(pallet, item)
        return entry

    def storage_key(self, pallet: str, item: str, *keys: Any) -> bytes:
        """Full key of a storage item, or the prefix that the first `keys` fix."""
        return bytes(self.codec.storage_key(pallet, item, list(keys)))

    def encode_storage(self, pallet: str, item: str, value: Any) -> bytes:
        return bytes(self.codec.encode(self._entry(pallet, item).value_type, value))

    def decode_storage(self, pallet: str, item: str, raw: bytes | None) -> Any:
        """The item's value; where nothing is stored its default, None for an optional item."""
        entry = self._entry(pallet, item)
        if raw is None:
            if entry.modifier == "Optional":
                return None
            raw = bytes(entry.default_bytes)
        return self.codec.decode(entry.value_type, raw, True)

    def storage_suffix(self, pallet: str, item: str, key: bytes, num_fixed: int) -> list[Any]:
        """The key components after the first `num_fixed` ones of a full storage key."""
        return list(self.codec.decode_storage_key_params(pallet, item, key, num_fixed))

    def encode_events(self, records: list[dict[str, Any]]) -> bytes:
        return self.encode_storage("System", "Events", records)

    @cached_property
    def _errors(self) -> dict[tuple[str, str], tuple[int, int]]:
        pallets = self.codec.metadata_ir()["pallets"]
        return {(p["name"], e["name"]): (p["index"], e["index"]) for p in pallets for e in p["errors"]}

    def error(self, pallet: str, name: str) -> dict[str, Any]:
        """`DispatchError::Module` for a pallet's named error; KeyError if this runtime has no such error."""
        pallet_index, error_index = self._errors[pallet, name]
        return {"Module": {"index": pallet_index, "error": bytes([error_index, 0, 0, 0])}}

    @cached_property
    def runtime_apis(self) -> dict[str, dict[str, Any]]:
        """`Api_method` to its inputs [(name, type)] and output type."""
        apis = self.codec.runtime_api_map()
        return {f"{api}_{name}": method for api, methods in apis.items() for name, method in methods.items()}

    @cached_property
    def _types(self) -> dict[int, dict[str, Any]]:
        types = json.loads(self.codec.registry_json())["types"]
        return {entry["id"]: entry["type"]["def"] for entry in types}

    def optional_type(self, type_string: str) -> int:
        """Id of the type T of an `Option<T>`, given as `scale_info::N`."""
        _, some = self._types[int(type_string.removeprefix("scale_info::"))]["variant"]["variants"]
        return int(some["fields"][0]["type"])

    def zero(self, type_id: int) -> Any:
        """The zero value of a type: 0, False, empty, None, all the way down; accounts are 32 zero bytes."""
        kind, body = next(iter(self._types[type_id].items()))
        if kind == "composite":
            members = body.get("fields", [])
            if members and members[0].get("name"):
                return {m["name"]: self.zero(m["type"]) for m in members}
            return self.zero(members[0]["type"]) if len(members) == 1 else tuple(self.zero(m["type"]) for m in members)
        if kind == "variant":
            first = min(body["variants"], key=lambda v: v["index"])
            if first["name"] == "None":
                return None
            values = [self.zero(m["type"]) for m in first.get("fields", [])]
            return {first["name"]: values[0] if len(values) == 1 else tuple(values)} if values else first["name"]
        if kind == "array":
            return bytes(body["len"]) if self._is_byte(body["type"]) else [self.zero(body["type"])] * body["len"]
        if kind == "sequence":
            return []
        if kind == "tuple":
            return tuple(self.zero(member) for member in body)
        if kind == "compact":
            return self.zero(body["type"])
        return {"bool": False, "str": "", "char": ""}.get(body, 0)

    def _is_byte(self, type_id: int) -> bool:
        return self._types[type_id].get("primitive") == "u8"
