"""One base error. Every failure that a person or a peer may meet says what happened and how to mend it."""

from __future__ import annotations

from typing import ClassVar


class AthenaError(Exception):
    """Base of all errors that Athena raises on purpose.

    `status` is the HTTP status that the task server answers with, `code` a stable machine-readable name, and
    `exit_code` what a console command ends with. `remedy` is one imperative sentence for the person who reads it.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class BadInput(AthenaError):
    """What another party sent, or a person typed, does not have the promised form. Never retried."""

    status = 422
    code = "bad-input"
    exit_code = 2


class TooLarge(BadInput):
    """Input over a size cap; refused before it is read."""

    status = 413
    code = "too-large"


class NotFound(AthenaError):
    status = 404
    code = "not-found"


class Conflict(AthenaError):
    """The state moved on: an expired lease, a stale fencing token, a second submission."""

    status = 409
    code = "conflict"


class Unauthorized(AthenaError):
    """The request is not proven to come from whom it says."""

    status = 401
    code = "unauthorized"


class Forbidden(AthenaError):
    """Proven identity, but no right to do this."""

    status = 403
    code = "forbidden"


class RateLimited(AthenaError):
    """Ask again after `retry_after_seconds`."""

    status = 429
    code = "rate-limited"

    def __init__(self, message: str, *, retry_after_seconds: float, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(AthenaError):
    """A fault of a service, the network or this machine: says nothing of the peer. The same call may succeed later.

    No sooner than after `retry_after_seconds`, where the service said so.
    """

    status = 503
    code = "unavailable"
    exit_code = 75  # EX_TEMPFAIL

    def __init__(self, message: str, *, remedy: str | None = None, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class Blocked(Unavailable):
    """A service that wants to be left alone. Asking again, from this or another process, makes it worse."""

    code = "blocked"
    exit_code = 69  # EX_UNAVAILABLE


class Misconfigured(AthenaError):
    """This node's own settings or installation are wrong; `remedy` says what to change."""

    code = "misconfigured"
    exit_code = 78  # EX_CONFIG
