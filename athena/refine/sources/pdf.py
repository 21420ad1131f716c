"""The text of a PDF through pypdf, bounded by its own limits and by counts, so that it is the same on any machine.

A clock is the fail-safe behind them: a PDF made to burn time in ways that are not counted is refused as `timeout`.
"""

from __future__ import annotations

import io
import logging
import time
from typing import Any

import pypdf
from pypdf.errors import FileNotDecryptedError, LimitReachedError, PyPdfError

from athena.refine.records import MAX_RECORD_BYTES

_MAX_PAGES = 2000
_MAX_OPERATORS = 2_000_000  # of drawing, over all pages: about ten seconds
_MAX_CPU_SECONDS = 120.0
# What pypdf lets through of a file that breaks its promises. Memory running out is this machine's fault.
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells on stderr what is counted here


class PdfRefused(Exception):
    """A PDF that yields no text, with the reason under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def pdf_text(content: bytes) -> str:
    """The text layer, pages parted by blank lines; empty for a PDF of images.

    Raises PdfRefused: `encrypted`, `too-large` (over a cap on pages, operators or text), `malformed`, or `timeout`.
    """
    budget = _Budget()
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted:
            raise PdfRefused("encrypted")
        pages: list[str] = []
        size = 0
        for number, page in enumerate(reader.pages):
            text = page.extract_text(visitor_operand_before=budget.spend)
            budget.check()  # pypdf passes over what is raised inside a form
            size += len(text.encode("utf-8", "replace")) + 2
            if number >= _MAX_PAGES or size > MAX_RECORD_BYTES:
                raise PdfRefused("too-large")
            pages.append(text.strip())
    except LimitReachedError:
        raise PdfRefused("too-large") from None
    except FileNotDecryptedError:
        raise PdfRefused("encrypted") from None
    except (PyPdfError, *_FAULTS):
        raise PdfRefused("malformed") from None
    return "\n\n".join(filter(None, pages))


class _Budget:
    """What one PDF may cost."""

    def __init__(self) -> None:
        self._operators = 0
        self._deadline = time.process_time() + _MAX_CPU_SECONDS

    def spend(self, *_: Any) -> None:
        """pypdf calls this before each drawing operator, forms included."""
        self._operators += 1
        self.check()

    def check(self) -> None:
        if self._operators > _MAX_OPERATORS:
            raise PdfRefused("too-large")
        if time.process_time() > self._deadline:
            raise PdfRefused("timeout")
