"""Strangers' files are read in a process of their own, with limits on memory, time and written bytes.

`python -m athena.judge.gates.sandbox FOLDER OUT` checks the dataset in FOLDER and leaves its rows in OUT, an Arrow file
that carries the manifest. It reads its limits as JSON from standard input and answers with one JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

import athena
from athena.durable import finish
from athena.errors import AthenaError, BadInput, Unavailable
from athena.judge.rules import GateRules
from athena.protocol import Manifest
from athena.refine.manifest import Limits, load_dataset

_MANIFEST_KEY = b"athena.manifest"
_FAULTS_OF_THE_FILES = ("bad-input", "too-large", "not-found")
_MAX_ANSWER_BYTES = 1 << 16
_GRACE_SECONDS = 5


def read_dataset(folder: Path, verified: Path, rules: GateRules) -> tuple[Manifest, pa.Table]:
    """Manifest and rows (ROW_SCHEMA, memory-mapped) of the dataset in `folder`, once all its promises hold.

    `verified` keeps the result: the next call reads it. Raises BadInput where the files are at fault, and Unavailable
    where the reader ran out of memory or time or could not start.
    """
    if not verified.exists():
        verified.parent.mkdir(parents=True, exist_ok=True)
        temporary = verified.with_name(f".{verified.name}.part")
        _read_apart(folder, temporary, rules)
        finish(temporary, verified)
    with pa.memory_map(str(verified)) as source:
        table = pa.ipc.open_file(source).read_all()
    manifest = Manifest.model_validate_json(table.schema.metadata[_MANIFEST_KEY])
    return manifest, table.replace_schema_metadata(None)


def _read_apart(folder: Path, out: Path, rules: GateRules) -> None:
    environment = {  # nothing of this process's own: no keys, no tokens
        "PYTHONPATH": str(Path(athena.__file__).parent.parent),
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve more address space than they use
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "athena.judge.gates.sandbox", str(folder.resolve()), str(out.resolve())]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(dataclasses.asdict(rules)).encode(),
            capture_output=True,
            env=environment,
            timeout=rules.reader_seconds + _GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"the reader took over {rules.reader_seconds} s") from error
    except OSError as error:
        raise Unavailable(f"the reader could not start: {error}") from error
    try:
        answer = json.loads(done.stdout[:_MAX_ANSWER_BYTES])
        code, message = answer["code"], str(answer["message"])
    except (ValueError, TypeError, KeyError) as error:
        last_words = done.stderr[-200:].decode("utf-8", "replace").strip()
        raise Unavailable(f"the reader ended with status {done.returncode}: {last_words}") from error
    if code in _FAULTS_OF_THE_FILES:
        raise BadInput(message)
    if code != "ok":
        raise Unavailable(f"the reader failed: {message}")


def _read_here(folder: Path, out: Path, rules: GateRules) -> dict[str, str]:
    """What the child does. The hash in the file's name was checked by the hub; nothing else about it is known."""
    _limit(resource.RLIMIT_AS, rules.reader_memory_bytes)
    _limit(resource.RLIMIT_CPU, rules.reader_seconds)
    _limit(resource.RLIMIT_FSIZE, 2 * rules.max_table_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    limits = Limits(
        max_data_bytes=rules.max_dataset_bytes,
        max_unpacked_bytes=rules.max_table_bytes,
        max_rows=rules.max_rows,
        max_text_bytes=rules.max_text_bytes,
    )
    try:
        dataset = load_dataset(folder, limits=limits)
        schema = dataset.table.schema.with_metadata({_MANIFEST_KEY: dataset.manifest.canonical()})
        with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(dataset.table.cast(schema), max_chunksize=1024)
    except AthenaError as error:
        return {"code": error.code, "message": error.message}
    except (MemoryError, OSError) as error:
        return {"code": "unavailable", "message": f"{type(error).__name__}: {error}"}
    return {"code": "ok", "message": ""}


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def main() -> None:
    folder, out = map(Path, sys.argv[1:])
    rules = GateRules(**json.loads(sys.stdin.buffer.read()))
    sys.stdout.write(json.dumps(_read_here(folder, out, rules)))


if __name__ == "__main__":
    main()
