"""How many leases a coldkey may take: its record decides, as in BOINC (sched/sched_result.cpp).

A quota of n leases a day is an allowance that refills evenly: there is no midnight to wait for, and none to game. All
hotkeys of one coldkey share it, so more keys give no more work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from athena.errors import RateLimited

DAY_MICROS = 86_400 * 1_000_000


class QuotaSpent(RateLimited):
    """The coldkey has taken all the leases that its record allows for now."""

    code = "quota-spent"


@dataclass(frozen=True)
class Account:
    """`quota` in leases per day, `allowance` in leases that may be taken at `refilled_at` (UTC microseconds)."""

    coldkey: str
    quota: int
    allowance: float
    refilled_at: int
    streak: int = 0
    ban: str | None = None

    @classmethod
    def opened(cls, coldkey: str, quota: int, now: int) -> Self:
        return cls(coldkey, quota, float(quota), now)

    def refilled(self, now: int) -> Self:
        """With what the time since the last refill brought; never more than one day's quota."""
        gained = self.quota * max(0, now - self.refilled_at) / DAY_MICROS
        return replace(
            self, allowance=min(float(self.quota), self.allowance + gained), refilled_at=max(now, self.refilled_at)
        )

    def charged(self) -> Self:
        """One lease taken. Raises QuotaSpent, with the time until the next one, if none is left."""
        if self.allowance < 1:
            wait = (1 - self.allowance) * DAY_MICROS / self.quota / 1e6
            raise QuotaSpent(
                f"the quota of {self.quota} leases a day is spent",
                retry_after_seconds=wait,
                remedy="wait; datasets that pass the validators raise the quota",
            )
        return replace(self, allowance=self.allowance - 1)

    def rewarded(self, max_quota: int) -> Self:
        """A dataset passed: twice the quota, and the difference at once."""
        quota = max(self.quota, min(2 * self.quota, max_quota))
        return replace(self, quota=quota, allowance=self.allowance + quota - self.quota, streak=self.streak + 1)

    def punished(self) -> Self:
        """A lease ran out, or a dataset failed: one lease a day less, down to one, and the streak is over."""
        quota = max(1, self.quota - 1)
        return replace(self, quota=quota, allowance=min(self.allowance, float(quota)), streak=0)

    def barred(self, reason: str | None) -> Self:
        """Barred from every write, or no longer (null)."""
        return replace(self, ban=reason)
