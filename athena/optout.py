"""Domains that asked to be left out, and which pages that covers: one rule for miners, validators and trainers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from athena.wire import OptOut


@dataclass(frozen=True)
class LeftOut:
    """Domains whose pages, those of their sub-domains included, are left out."""

    domains: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """sha256 over the domains: names what was made under this list."""
        return hashlib.sha256("\n".join(sorted(self.domains)).encode()).hexdigest()

    def covers(self, url: str) -> bool:
        """Whether the page at `url` is left out. An address without a host is of no domain."""
        if not self.domains:
            return False
        labels = host_of(url).split(".")
        return any(".".join(labels[start:]) in self.domains for start in range(len(labels)))


NOTHING_LEFT_OUT = LeftOut()


def left_out(entries: Iterable[OptOut], block: int) -> LeftOut:
    """What binds work that was leased at `block`."""
    return LeftOut(
        frozenset(
            entry.domain
            for entry in entries
            if entry.since_block <= block and (entry.until_block is None or block < entry.until_block)
        )
    )


def host_of(url: str) -> str:
    """The host that an address names, in lower case; empty where it names none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # brackets that hold no IPv6 address
        return ""
