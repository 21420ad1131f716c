"""One HTML file that holds all it shows, loads nothing and runs nothing: what every report for people is.

Texts in it may come from strangers: they are escaped, cut and freed of control characters, nothing of them becomes a
link, and a Content-Security-Policy forbids the page to load or to run anything.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

_FRAME = Path(__file__).with_name("page.html.j2")
_MAX_SHOWN_CHARS = 600
# Control characters but tab and line feed, marks that turn the direction of what stands around them, lone surrogates.
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def render(template: Path, **values: Any) -> bytes:
    """A page as UTF-8: `template` fills the blocks of page.html.j2. The same values give the same bytes."""
    return _environment(template.parent).get_template(template.name).render(**values).encode("utf-8")


def shown(text: str) -> str:
    """A stranger's text as it may stand on a page."""
    cut = text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 1] + "…"
    return _UNSHOWABLE.sub("\ufffd", cut)


@cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FRAME.parent]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shown"] = shown
    return environment
