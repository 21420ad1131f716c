"""Steps that replace what points at a person, or opens a person's door."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from datatrove.pipeline.formatters import PIIFormatter

from athena.errors import Misconfigured
from athena.refine.recipe import Page
from athena.refine.text.accounts import card_numbers, ibans
from athena.refine.text.contacts import emails, ip_addresses, phone_numbers
from athena.refine.text.credentials import credentials

EMAIL_PLACEHOLDER = "email@example.com"
IP_PLACEHOLDER = "22.214.171.124"
# One word each, like what it stands for, and nobody's: a key and a card of their issuers' documents, the IBAN of
# ISO 13616's examples, a number that North America keeps for fiction.
_PLACEHOLDERS = {
    "key": "AKIAIOSFODNN7EXAMPLE",
    "email": EMAIL_PLACEHOLDER,
    "iban": "GB29NWBK60161331926819",
    "card": "4111111111111111",
    "ip": IP_PLACEHOLDER,
    "phone": "+1-202-555-0100",
}
ALL = tuple(_PLACEHOLDERS)
PLACEHOLDERS = tuple(_PLACEHOLDERS.values())

_LOCAL_BACKWARDS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")  # of datatrove's e-mail pattern, dots included
_EMAIL_AT = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]@(?=[A-Za-z0-9\[])")
_EMAIL_START = re.compile(r"\b[^.]")
_FOUR_NUMBERS = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")


@dataclass(frozen=True)
class Span:
    """A place in a text, in characters, and the kind of what stands there: one of ALL."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class ReplacePii:
    """E-mail addresses and public IP addresses, each kind by one placeholder (datatrove cycles through several).

    datatrove's patterns decide; its search for them, quadratic in the worst case, begins where an address can only be.
    """

    name: ClassVar[str] = "pii"
    email: str = EMAIL_PLACEHOLDER
    ip: str = IP_PLACEHOLDER

    def apply(self, page: Page) -> Page:
        text = self._without_emails(page.text) if "@" in page.text else page.text
        if _FOUR_NUMBERS.search(text):
            text = self._block.ip_replacer.replace(text)
        return page if text == page.text else dataclasses.replace(page, text=text)

    def _without_emails(self, text: str) -> str:
        pieces: list[str] = []
        end = 0
        for at in (mark.end() - 1 for mark in _EMAIL_AT.finditer(text)):
            start = _email_start(text, max(end, text.rfind("@", end, at) + 1), at)
            found = None if start is None else self._block.emails_replacer.regex.match(text, start)
            if found is not None:
                pieces += (text[end : found.start()], self.email)
                end = found.end()
        return "".join([*pieces, text[end:]])

    @cached_property
    def _block(self) -> Any:
        return PIIFormatter(email_replacement=self.email, ip_replacement=self.ip)


@dataclass(frozen=True)
class Anonymise:
    """E-mail and IP addresses, phone, IBAN and card numbers, API keys: each kind by one placeholder.

    Phone numbers without a country code are read as dialled in `regions`, ISO 3166 codes.
    """

    name: ClassVar[str] = "anonymise"
    kinds: tuple[str, ...] = ALL
    regions: tuple[str, ...] = ("US", "GB")

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(ALL):
            raise Misconfigured(f"no kinds {sorted(unknown)}", remedy=f"choose from {', '.join(ALL)}")

    def apply(self, page: Page) -> Page:
        pieces: list[str] = []
        end = 0
        for span in spans(page.text, self.kinds, self.regions):
            pieces += (page.text[end : span.start], _PLACEHOLDERS[span.kind])
            end = span.end
        return dataclasses.replace(page, text="".join([*pieces, page.text[end:]])) if pieces else page


def spans(text: str, kinds: Sequence[str], regions: Sequence[str]) -> list[Span]:
    """What `Anonymise` replaces, in order. Of places that overlap it is the one of the kind that comes first in ALL."""
    kept: list[Span] = []
    for span in sorted(_found(text, kinds, regions), key=lambda span: (span.start, ALL.index(span.kind))):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
        elif ALL.index(span.kind) < ALL.index(kept[-1].kind):
            kept[-1] = span
    return kept


def _found(text: str, kinds: Sequence[str], regions: Sequence[str]) -> Iterator[Span]:
    finders: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
        "key": credentials,
        "email": emails,
        "iban": ibans,
        "card": card_numbers,
        "ip": ip_addresses,
        "phone": lambda text: phone_numbers(text, regions),
    }
    for kind in kinds:
        for start, end in finders[kind](text):
            yield Span(start, end, kind)


def _email_start(text: str, floor: int, at: int) -> int | None:
    """The one place from `floor` on where datatrove's pattern can match an address with this @: the first word boundary
    of the run of local characters before it that has no two dots in a row. None where there is none."""
    run = _LOCAL_BACKWARDS.match(text[floor:at][::-1])
    if run is None:
        return None
    begin = at - run.end()
    dots = text.rfind("..", begin, at)
    start = _EMAIL_START.search(text, begin if dots < 0 else dots + 2, at)
    return None if start is None else start.start()
