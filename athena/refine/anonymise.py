"""Steps that replace what points at a person."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from datatrove.pipeline.formatters import PIIFormatter

from athena.refine.recipe import Page

EMAIL_PLACEHOLDER = "email@example.com"
IP_PLACEHOLDER = "22.214.171.124"


@dataclass(frozen=True)
class ReplacePii:
    """E-mail addresses and public IP addresses, each kind by one placeholder (datatrove cycles through several)."""

    name: ClassVar[str] = "pii"
    email: str = EMAIL_PLACEHOLDER
    ip: str = IP_PLACEHOLDER

    def apply(self, page: Page) -> Page:
        return dataclasses.replace(page, text=self._block.format(page.text))

    @cached_property
    def _block(self) -> Any:
        return PIIFormatter(email_replacement=self.email, ip_replacement=self.ip)
