"""The console commands that ask a task server what its ledger holds. Anyone may: no wallet is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from athena.errors import BadInput

if TYPE_CHECKING:
    from athena.cli_output import Columns
    from athena.client import LedgerClient
    from athena.protocol import Effect, Lease, Noun, SignedSheet
    from athena.wire import MinerView, TaskView

QUERY_SECONDS = 15.0  # of retries: somebody waits for the answer

Server = Annotated[str, typer.Option(envvar="ATHENA_TASK_SERVER", help="Address of the task server.")]
Limit = Annotated[int, typer.Option(min=1, help="Show at most this many.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]
OfHotkey = Annotated[str | None, typer.Option(help="Only of this hotkey.")]
OfTask = Annotated[str | None, typer.Option(help="Only of the task with this id.")]
LOCAL_SERVER = "http://127.0.0.1:8808"
DEFAULT_LIMIT = 100


def tasks(
    crawl: Annotated[str | None, typer.Option(help="Only of this crawl, such as CC-MAIN-2026-43.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only tasks that may still be leased.")] = False,
    task: Annotated[str | None, typer.Option(help="The task with this id.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """List tasks by their place in the draw.

    Example: athena tasks --crawl CC-MAIN-2026-43 --open --limit 5
    """
    _exclude("--task", task, crawl, only_open)
    with _open(server) as client:

        def found() -> Iterable[TaskView]:
            if task is not None:
                return [client.task_view(task)]
            return client.tasks(crawl=crawl, only_open=only_open)

        columns: Columns = {
            "position": lambda view: view.position,
            "task": lambda view: view.id,
            "crawl": lambda view: view.task.shard.crawl,
            "WARCs": lambda view: len(view.task.shard.warc_paths),
            "block": lambda view: view.task.opened_block,
            "copies": lambda view: view.copies,
            "open": lambda view: view.open_slots,
            "audited": lambda view: view.audited,
            "closed": lambda view: view.closed,
        }
        _show(found, columns, limit, as_json, "tasks")


def leases(
    hotkey: OfHotkey = None,
    task: OfTask = None,
    state: Annotated[
        Literal["active", "submitted", "expired", "released"] | None, typer.Option(help="Only in this state.")
    ] = None,
    lease: Annotated[str | None, typer.Option(help="The lease with this id.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """List leases in the order in which they were issued.

    Example: athena leases --hotkey 5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX --state active
    """
    _exclude("--lease", lease, hotkey, task, state)
    with _open(server) as client:

        def found() -> Iterable[Lease]:
            if lease is not None:
                return [client.lease(lease)]
            return client.leases(hotkey=hotkey, task_id=task, state=state, limit=limit + 1)

        columns: Columns = {
            "fencing": lambda lease: lease.fencing,
            "lease": lambda lease: lease.id,
            "task": lambda lease: lease.task.id,
            "hotkey": lambda lease: lease.hotkey,
            "state": lambda lease: lease.state,
            "audit": lambda lease: lease.audit,
            "block": lambda lease: lease.issued_block,
            "draw": lambda lease: lease.draw_index,
            "expires": lambda lease: lease.expires_at,
        }
        _show(found, columns, limit, as_json, "leases")


def scores(
    hotkey: OfHotkey = None,
    task: OfTask = None,
    validator: Annotated[str | None, typer.Option(help="Only by the validator with this hotkey.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """List the validators' signed score sheets in the order of their arrival.

    The effect is the difference to the canonical refinement in bits per byte, positive is better, with its 95 %
    interval.

    Example: athena scores --task 0f3c7a52d9b14e6685f2c3aa90d1be47 --json
    """
    with _open(server) as client:

        def found() -> Iterable[SignedSheet]:
            return client.sheets(hotkey=hotkey, task_id=task, validator=validator, limit=limit + 1)

        columns: Columns = {
            "task": lambda signed: signed.sheet.task_id,
            "hotkey": lambda signed: signed.sheet.hotkey,
            "validator": lambda signed: signed.sheet.validator,
            "outcome": lambda signed: signed.sheet.outcome,
            "units": lambda signed: signed.sheet.units,
            "effect": lambda signed: shown_effect(signed.sheet.effect),
            "yield": lambda signed: signed.sheet.yield_ratio,
            "time": lambda signed: signed.sheet.time_factor,
            "block": lambda signed: signed.sheet.seed_block,
        }
        _show(found, columns, limit, as_json, "score sheets")


def miners(
    hotkey: Annotated[str | None, typer.Option(help="The miner with this hotkey.")] = None,
    top: Annotated[bool, typer.Option("--top", help="The leaderboard: by pay units, the best first.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """List miners with their records, or the leaderboard.

    Example: athena miners --top --limit 10
    """
    _exclude("--hotkey", hotkey, top)
    with _open(server) as client:

        def found() -> Iterable[MinerView]:
            return [client.miner(hotkey)] if hotkey is not None else client.miners()

        if top:
            _show(client.leaderboard, STANDINGS, limit, as_json, "miners")
        else:
            _show(found, MINERS, limit, as_json, "miners")


def datasets(
    hotkey: OfHotkey = None,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """List accepted datasets that are public by now, and what the validators say of them.

    Example: athena datasets --json --limit 1000 > datasets.jsonl
    """
    with _open(server) as client:
        columns: Columns = {
            "dataset": lambda view: view.dataset.location,
            "revision": lambda view: view.dataset.revision,
            "task": lambda view: view.task_id,
            "hotkey": lambda view: view.hotkey,
            "submitted": lambda view: view.submitted_at,
            "verdict": lambda view: view.verdict,
            "rows": lambda view: view.rows,
            "tokens": lambda view: view.tokens,
        }
        _show(lambda: client.datasets(hotkey=hotkey), columns, limit, as_json, "datasets")


MINERS: Columns = {
    "hotkey": lambda view: view.hotkey,
    "active": lambda view: view.leases.get("active", 0),
    "submitted": lambda view: view.leases.get("submitted", 0),
    "expired": lambda view: view.leases.get("expired", 0),
    "passed": lambda view: view.passed,
    "failed": lambda view: view.failed,
    "tokens": lambda view: view.tokens,
    "quota": lambda view: view.quota,
    "streak": lambda view: view.streak,
    "barred": lambda view: view.ban,
}
STANDINGS: Columns = {
    "rank": lambda standing: standing.rank,
    "hotkey": lambda standing: standing.hotkey,
    "units": lambda standing: standing.units,
    "effect": lambda standing: standing.effect,
    "submissions": lambda standing: standing.submissions,
    "tokens": lambda standing: standing.tokens,
}
COMMANDS = (tasks, leases, scores, miners, datasets)


def _open(server: str) -> LedgerClient:
    from athena.client import LedgerClient

    return LedgerClient(server, None, retry_seconds=QUERY_SECONDS)


def _show(read: Callable[[], Iterable[Noun]], columns: Columns, limit: int, as_json: bool, what: str) -> None:
    from athena.cli_output import counted, note, show

    def watched() -> list[Noun]:
        return list(counted(lambda: islice(read(), limit + 1), f"reading {what}"))

    rest = iter(read() if as_json else watched())  # lines of JSON show by themselves how far it is
    shown = show(islice(rest, limit), columns, as_json=as_json)
    if shown == 0:
        note(f"no {what}")
    elif shown == limit and next(rest, None) is not None:
        note(f"the first {limit} {what}; --limit shows more")


def _exclude(option: str, value: str | None, *filters: object) -> None:
    if value is not None and any(filters):
        raise BadInput(f"{option} names one: it excludes every filter", remedy=f"leave out {option} or the rest")


def shown_effect(effect: Effect | None) -> str | None:
    return None if effect is None else f"{effect.mean:+.4f} [{effect.low:+.4f}, {effect.high:+.4f}]"
