"""Where a text holds bank account numbers (IBAN) and payment card numbers, both by their checksums."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Characters of an IBAN by country: the SWIFT IBAN registry, release 99.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9][A-Z])[A-Z][0-9]{2}(?:[ \u00a0-]?[A-Z0-9]){11,30}")
_LETTER_OR_DIGIT = re.compile(r"[A-Z0-9]")

# Digits in one run, in fours, or as Amex (4-6-5) and Diners (4-6-4) print them.
_CARD = re.compile(
    r"[0-9](?<![\w.,+-][0-9])(?:[0-9]{13,18}|[0-9]{3}([ \u00a0-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?"
    r"|[0-9]{3}([ \u00a0-])[0-9]{6}\2[0-9]{4,5})(?![\w%]|[.,-][0-9])"
)
# Issuer ranges by first digits (ISO/IEC 7812), with the lengths in use. Visa's 13 digits are out of use and EAN's.
_ISSUERS = (
    (re.compile(r"4"), {16, 19}),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), {16}),
    (re.compile(r"3[47]"), {15}),
    (re.compile(r"3(?:0[0-5]|[68])"), {14}),
    (re.compile(r"6011|64[4-9]|65"), {16, 19}),
    (re.compile(r"35(?:2[89]|[3-8])"), {16}),
    (re.compile(r"62|81"), {16, 17, 18, 19}),
    (re.compile(r"5018|5020|5038|5893|6304|6759|676[1-3]"), {16, 18, 19}),
)


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """Account numbers of the length of their country whose remainder by 97 is 1 (ISO 13616), grouped or not."""
    for found in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(found.group()[:2])
        characters = list(_LETTER_OR_DIGIT.finditer(found.group()))
        if length is None or len(characters) < length:
            continue
        end = found.start() + characters[length - 1].end()
        if text[end : end + 1].isalnum():
            continue
        account = "".join(character.group() for character in characters[:length])
        if int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1:
            yield found.start(), end


def card_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Numbers of 14 to 19 digits of a known issuer, with a Luhn check digit (ISO/IEC 7812-1, annex B)."""
    for found in _CARD.finditer(text):
        digits = re.sub(r"[^0-9]", "", found.group())
        if any(len(digits) in lengths and issuer.match(digits) for issuer, lengths in _ISSUERS) and _luhn(digits):
            yield found.span()


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0
