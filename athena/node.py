"""How a loop becomes a process: settings, log, signals, exit codes, its place in the subnet, and patience."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, before_sleep_log, retry_if_exception, wait_random_exponential

from athena.chain.client import Chain
from athena.chain.wallets import Wallet, hotkey_of, open_wallet
from athena.client import LedgerClient
from athena.errors import AthenaError, Blocked, Misconfigured, RateLimited, Unavailable
from athena.events import EventLog
from athena.settings import NodeSettings, parse_settings

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Settings = TypeVar("Settings", bound=NodeSettings)
LONGEST_PAUSE_SECONDS = 300.0
_BACKOFF = wait_random_exponential(multiplier=0.5, max=60)
log = logging.getLogger("athena")


def run_node(program: str, kind: type[Settings], loop: Callable[[Settings, EventLog], None]) -> NoReturn:
    """Runs `loop` until it returns, fails, or is told to stop.

    SIGTERM unwinds the main thread wherever it is and exits with 0: state is durable at every moment, so there is
    nothing to finish first. A typed error ends the process with its message, remedy and exit code.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request drowns the rest
    try:
        settings = parse_settings(kind, program)
        events = EventLog(settings.events)
        events.emit("process.started", program=program)
        loop(settings, events)
    except AthenaError as error:
        log.error("%s: %s", error.code, error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


@dataclass(frozen=True)
class Member:
    """A registered hotkey, with its ways to the chain and the task server."""

    wallet: Wallet
    hotkey: str
    chain: Chain
    ledger: LedgerClient


def join_subnet(settings: NodeSettings) -> Member:
    """Opens what the settings name; with `pay_burn`, registers the hotkey where it is not registered yet.

    Raises Misconfigured for a wallet that cannot be used, and for a hotkey that is not registered.
    """
    wallet = open_wallet(settings.wallet, settings.hotkey, settings.wallets_folder)
    chain = Chain(settings.network, settings.netuid, wallet)
    member = Member(wallet, hotkey_of(wallet), chain, LedgerClient(settings.task_server, wallet))
    if settings.pay_burn:
        patiently(chain.register)
    require_registration(member.hotkey, {n.hotkey for n in patiently(chain.neurons)}, settings.netuid)
    return member


def patiently(step: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
    """`step(…)`, again and again with growing pauses while a service is unavailable.

    A pause is as long as the service asks for, but at most LONGEST_PAUSE_SECONDS.
    """
    retrying = Retrying(
        retry=retry_if_exception(_passes),
        wait=_pause,
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    return retrying(step, *arguments, **options)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, (RateLimited, Unavailable)) else 0.0
    return max(_BACKOFF(state), min(asked, LONGEST_PAUSE_SECONDS))


def _passes(error: BaseException) -> bool:
    """Whether a failure may be gone at the next attempt."""
    return isinstance(error, (Unavailable, RateLimited)) and not isinstance(error, Blocked)


def require_registration(hotkey: str, registered: set[str], netuid: int) -> None:
    """Raises Misconfigured with the command to run unless `hotkey` is registered."""
    if hotkey not in registered:
        raise Misconfigured(
            f"hotkey {hotkey} is not registered on subnet {netuid}",
            remedy=f"run `btcli subnets register --netuid {netuid}`, or start with --pay-burn to register now",
        )
