"""What this machine lacks for each kind of node, and how to mend it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from athena.errors import AthenaError
from athena.settings import PUBLIC_NETWORKS

MIN_DISK_GIB = 6
MIN_MEMORY_GIB = 8
ROLES = {
    "miner": ("datatrove", "fastwarc", "resiliparse", "trafilatura", "spacy", "pyarrow", "tokenizers"),
    "server": ("fastapi", "sqlmodel", "uvicorn", "warcio"),
    "validator": ("datatrove", "fastwarc", "torch", "pyarrow"),
    "trainer": ("torch", "transformers", "safetensors", "accelerate", "lm_eval"),
}
HOSTS = {"hub": "https://huggingface.co", "crawl": "https://data.commoncrawl.org"}


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    remedy: str = ""


def examine(network: str, wallet: str | None) -> list[Finding]:
    """Everything a node needs, in the order a newcomer meets it."""
    return [*_machine(), *_packages(), *_wallet(wallet), *_network(network)]


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(f"Python {version}", sys.version_info >= (3, 11), "install Python 3.11 or newer")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding(f"{free:.0f} GiB of disk free", free >= MIN_DISK_GIB, f"free at least {MIN_DISK_GIB} GiB")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(f"{memory:.0f} GiB of memory", memory >= MIN_MEMORY_GIB, f"the demo needs {MIN_MEMORY_GIB} GiB")
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Finding(
        f"OMP_NUM_THREADS={threads or 'unset'}",
        threads == "1",
        "export OMP_NUM_THREADS=1: proxies run one thread per process, and shared cores stall several",
    )


def _packages() -> Iterator[Finding]:
    for role, modules in ROLES.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        yield Finding(
            f"packages for the {role}" + (f": {', '.join(absent)} absent" if absent else ""),
            not absent,
            f"pip install '.[{role}]' in the checkout",
        )


def _wallet(name: str | None) -> Iterator[Finding]:
    if name is None:
        return
    from athena.chain.wallets import hotkey_of, open_wallet

    try:
        yield Finding(f"wallet {name}, hotkey {hotkey_of(open_wallet(name))}", True)
    except AthenaError as error:
        yield Finding(f"wallet {name}: {error.message}", False, error.remedy or "")


def _network(network: str) -> Iterator[Finding]:
    if network in PUBLIC_NETWORKS:
        for name, address in HOSTS.items():
            yield _reachable(name, address)
        return
    yield _reachable("chain", network)


def _reachable(name: str, address: str) -> Finding:
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or {"https": 443, "wss": 443}.get(parts.scheme, 80)
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return Finding(f"{name} at {host}:{port}: {error}", False, "check the network, a proxy or a firewall")
    return Finding(f"{name} at {host}:{port}", True)
