"""Where a text holds API keys, tokens and private keys, by the formats that their issuers publish."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class _Format:
    """A credential's form. `marks` are strings of which every match holds one: their absence saves the search.

    A pattern begins at a word boundary that no match can hold, or with a bounded run, so that time stays linear.
    Where a pattern has a group, the group is the credential.
    """

    marks: tuple[str, ...]
    pattern: re.Pattern[str]


def _token(mark: str, body: str) -> _Format:
    return _Format((mark,), re.compile(rf"(?<![\w-]){re.escape(mark)}{body}(?![\w-])"))


_SECRET_NAMED = r"(?i:secret|access|auth|api)[\w .-]{0,24}(?i:key|token)"  # aws_secret_access_key, api key
_FORMATS = (
    _Format(("AKIA", "ASIA", "ABIA", "ACCA"), re.compile(r"(?<![\w-])A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}(?![\w-])")),
    _Format(
        ("ecret", "ECRET"), re.compile(rf"(?<!\w)(?:aws_?)?{_SECRET_NAMED}\W{{1,4}}([A-Za-z0-9/+]{{40}})(?![\w/+=])")
    ),
    _Format(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), re.compile(r"(?<![\w-])gh[pousr]_[A-Za-z0-9]{36,255}(?![\w-])")),
    _token("github_pat_", r"[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _token("glpat-", r"[\w-]{20,300}"),
    _Format(("xox", "xapp-"), re.compile(r"(?<![\w-])(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{20,250}(?![\w-])")),
    _Format(
        ("hooks.slack.com",), re.compile(r"hooks\.slack\.com/services/(T\w{8,12}/B\w{8,12}/[A-Za-z0-9]{24})(?!\w)")
    ),
    _token("AIza", r"[\w-]{35}"),
    _token("GOCSPX-", r"[\w-]{28}"),
    _token("ya29.", r"[\w-]{30,300}"),
    _Format(("_live_", "_test_"), re.compile(r"(?<![\w-])[sr]k_(?:live|test)_[A-Za-z0-9]{16,247}(?![\w-])")),
    _token("whsec_", r"[A-Za-z0-9+/]{32,64}"),
    # A digit and a capital are asked for: `sk-loading-indicator-of-a-page` is a style sheet's.
    _Format(
        ("sk-",),
        re.compile(
            r"(?<![\w-])sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{3,8}-)?"
            r"(?=[\w-]{0,40}[0-9])(?=[\w-]{0,40}[A-Z])[\w-]{32,250}(?![\w-])"
        ),
    ),
    _token("hf_", r"[A-Za-z0-9]{34}"),
    _token("npm_", r"[A-Za-z0-9]{36}"),
    _token("pypi-AgE", r"[\w-]{50,500}"),
    _token("SG.", r"[\w-]{22}\.[\w-]{43}"),
    _token("dop_v1_", r"[0-9a-f]{64}"),
    _Format(("shp",), re.compile(r"(?<![\w-])shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}(?![\w-])")),
    _Format((":AA",), re.compile(r"(?<![\w-])[0-9]{8,10}:AA[\w-]{33}(?![\w-])")),  # Telegram
    _Format(("AccountKey=",), re.compile(r"AccountKey=([A-Za-z0-9+/]{86}==)")),
    _token("eyJ", r"[\w-]{8,1000}\.eyJ[\w-]{8,4000}\.[\w-]{16,1000}"),  # JSON Web Token, RFC 7519
    _Format(("://",), re.compile(r"://([^\s/:@\"'<>]{1,64}:[^\s/@\"'<>]{3,128})@(?=[\w\[])")),
)
_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(
    r"[^-]{0,16000}+(?:-[^-]{1,4000}+){0,40}+-----END (?:[A-Z]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
)


def credentials(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each credential, of whole private key blocks, and of user:password in URLs."""
    for form in _FORMATS:
        if any(mark in text for mark in form.marks):
            for found in form.pattern.finditer(text):
                yield found.span(form.pattern.groups)
    if "PRIVATE KEY" in text:
        for begin in _KEY_BEGIN.finditer(text):
            body = _KEY_BODY.match(text, begin.end())
            if body is not None:
                yield begin.start(), body.end()
