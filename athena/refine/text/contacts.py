"""Where a text holds e-mail addresses, public IP addresses and phone numbers. Every search takes linear time."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

import phonenumbers

Place = tuple[int, int]  # start and end in characters

_MAX_LOCAL = 64  # characters before the @ (RFC 5321, 4.5.3.1.1)
# Patterns begin with a set of characters, and look behind after it: the search then skips all other characters fast.
_AT = re.compile(r"[@\[({](?:(?<=@)|\s?at\s?[\])}]\s?)", re.IGNORECASE)
_LOCAL_BACKWARDS = re.compile(r"\s?(?!\.)[\w.+%'-]{0,63}\w")
_DOT = r"(?:\.|\s?[\[({]\s?dot\s?[\])}]\s?)"
_NO_TLD = "(?!(?:png|jpe?g|gif|svg|webp|bmp|ico|js|mjs|css|json|html?|php)\\b)"  # icon@2x.png is a file
_DOMAIN = re.compile(
    rf"(?:[^\W_][\w-]{{0,62}}{_DOT}){{1,8}}{_NO_TLD}(?:xn--[a-z0-9-]{{2,59}}|[^\W\d_]{{2,24}})(?![\w-])", re.IGNORECASE
)

_IPV4 = re.compile(r"[0-9](?<![\w.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9]|-[A-Za-z])")
_MIN_OCTET = 20  # 3.2.1.4 is a section or a version; of public addresses one in 30,000 has only smaller numbers
# 2000::/3, all that is handed out as public; a::b and 12:30:45 would pass for addresses otherwise.
_IPV6 = re.compile(r"[23](?<![\w:.][23])[0-9a-fA-F]{3}:[0-9a-fA-F:]{2,34}(?<!:)(?![0-9a-zA-Z])")
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:v|ver|version|release|build|firmware|kernel|driver|update|rev|revision|section|chapter|clause|article|table"
    r"|figure)|§)[\s.:#\"'“]*$|(?<![./:])\b[a-z-]{3,}/$",
    re.IGNORECASE,
)

_GAP = r"[ \u00a0\u2009\u2010\u2011./()-]{0,3}"
_INTERNATIONAL = re.compile(
    rf"[+0](?<![\w+.][+0])(?:(?<=\+)|0(?=[1-9][0-9]{{0,2}}[ .-]))[ (]?[1-9](?:{_GAP}[0-9]){{6,15}}(?![0-9A-Za-z])"
)
_NATIONAL = re.compile(
    rf"[0-9](?<![\w+/,#$€£.-][0-9])(?<![0-9][ .,:/-][0-9])(?:{_GAP}[0-9]){{6,13}}(?![0-9A-Za-z%])(?![.,:/-][0-9])"
)
# Shapes that few other numbers have: (212) 555-0100 or 212.555.0100, 020 7946 0958, 01 23 45 67 89.
_SHAPES = (
    re.compile(r"(?:1[ .-]?)?(?:\([0-9]{3}\) ?[0-9]{3}[ .-][0-9]{4}|[0-9]{3}([.-])[0-9]{3}\1[0-9]{4})"),
    re.compile(r"\(?0[0-9]{2,5}\)?[ ./-]{1,3}[0-9]{2,8}(?:[ .-][0-9]{2,4}){0,3}"),
    re.compile(r"0[0-9](?:([ .-])[0-9]{2})(?:\1[0-9]{2}){3}"),
)
_PHONE_BEFORE = re.compile(
    r"(?:\b(?:tel|telephone|phone|ph|call|fax|mobile|mob|cell|whatsapp|sms|text|telefon|telefax|handy|téléphone|teléfono"
    r"|móvil|portable)|[☎📞📱])(?: (?:us|me|him|her|them|on|at|is|number|no\.?|nr\.?)){0,3}[\s.:#)(]*$",
    re.IGNORECASE,
)
_OTHER_NUMBER_BEFORE = re.compile(
    r"\b(?:order|ref|reference|invoice|isbn|issn|sku|ean|upc|part|serial|tracking|case|ticket|item|model|doi|id|account"
    r"|patent)\b(?: ?(?:no|nr|number|code)\b)?[\s.:#-]*(?:1[03][\s:]+)?$",
    re.IGNORECASE,
)
_CONTEXT_CHARS = 32
_MAX_LOOKED_UP = 1_000
_GROUP = re.compile(r"[0-9]+")


def emails(text: str) -> Iterator[Place]:
    """Addresses with a domain name, in any script, and `jane (at) example (dot) org`."""
    floor = 0
    for at in _AT.finditer(text):
        window = text[max(floor, at.start() - _MAX_LOCAL) : at.start()]
        local = _LOCAL_BACKWARDS.match(window[::-1])
        if local is None or (at.group() == "@" and local.group()[0].isspace()):
            continue
        domain = _DOMAIN.match(text, at.end())
        if domain is not None:
            floor = domain.end()
            yield at.start() - local.end(), floor


def ip_addresses(text: str) -> Iterator[Place]:
    """Public IPv4 and IPv6 addresses. Four numbers that a word before them calls a version or a section are none.

    From 1,000 candidates on a text is a list of addresses, which are then not looked at one by one.
    """
    for pattern in (_IPV4, _IPV6):
        for index, found in enumerate(pattern.finditer(text)):
            if _behind(_VERSION_BEFORE, text, found.start()):
                continue
            if index >= _MAX_LOOKED_UP or _is_public(found.group()):
                yield found.span()


def phone_numbers(text: str, regions: Sequence[str]) -> Iterator[Place]:
    """Numbers that the numbering plans of the world know (libphonenumber), with + or 00, or as dialled in `regions`.

    Without a country code a number must have the shape of a phone number or a word such as `tel` before it. A text
    with more than 1,000 candidates is a list of numbers: from there on they count without being looked up.
    """
    looked_up = 0
    for found in _INTERNATIONAL.finditer(text):
        looked_up += 1
        if looked_up > _MAX_LOOKED_UP:
            yield found.span()
        elif end := _end_of_valid(found.group(), [None]):
            yield found.start(), found.start() + end
    for found in _NATIONAL.finditer(text):
        start = found.start() - (
            text.startswith("(", max(0, found.start() - 1), found.start()) and ")" in found.group()
        )
        number = text[start : found.end()]
        announced = _behind(_PHONE_BEFORE, text, start)
        if not announced and (not _shaped(number) or _behind(_OTHER_NUMBER_BEFORE, text, start)):
            continue
        looked_up += 1
        if looked_up > _MAX_LOOKED_UP:
            yield start, found.end()
        elif end := _end_of_valid(number, regions):
            yield start, start + end


def _is_public(candidate: str) -> bool:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return False
    numbering = address.version == 4 and max(address.packed) < _MIN_OCTET
    return address.is_global and not address.is_multicast and not numbering


def _behind(words: re.Pattern[str], text: str, position: int) -> bool:
    return words.search(text[max(0, position - _CONTEXT_CHARS) : position]) is not None


def _shaped(number: str) -> bool:
    return any(shape.fullmatch(number) for shape in _SHAPES)


def _end_of_valid(candidate: str, regions: Sequence[str | None]) -> int:
    """Where the longest valid number at the start of the candidate ends, up to two groups short; 0 if there is none."""
    ends = [group.end() for group in _GROUP.finditer(candidate)]
    for end in ends[:-4:-1]:
        number = candidate[:end]
        if any(_is_valid("+" + number[2:] if number.startswith("00") else number, region) for region in regions):
            return end
    return 0


def _is_valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
