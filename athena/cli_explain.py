"""The console command `athena explain`: why a hotkey earns what it earns, by the validators' published sheets."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from athena.cli_records import LOCAL_SERVER, QUERY_SECONDS, Json, Server, shown_effect
from athena.errors import NotFound

if TYPE_CHECKING:
    from athena.judge.explain import Explanation
    from athena.judge.rules import Rules

MAX_SHEETS = 5000


def explain(
    hotkey: Annotated[str, typer.Argument(help="The miner's hotkey.")],
    validator: Annotated[str | None, typer.Option(help="Only by the validator with this hotkey.")] = None,
    rules: Annotated[str, typer.Option(help="Rule version of the tasks.")] = "1",
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many tasks for each validator.")] = 10,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """Tell a miner, gate by gate, why it earns what it earns, and what to change.

    Reads the validators' signed score sheets from a task server and puts their numbers into the pay formula, as each
    validator does. Leases that were given up have no sheet, and count against a miner beside what is shown here.

    Example: athena explain 5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX
    """
    from athena.client import LedgerClient
    from athena.judge.explain import explain as explanation_of
    from athena.judge.rules import rules_of
    from athena.protocol import ScoreSheet

    version = rules_of(rules)
    by_validator: dict[str, list[ScoreSheet]] = defaultdict(list)
    with LedgerClient(server, None, retry_seconds=QUERY_SECONDS) as client:
        for signed in client.sheets(hotkey=hotkey, validator=validator, limit=MAX_SHEETS):
            if signed.sheet.rule_version == version.version:
                by_validator[signed.sheet.validator].append(signed.sheet)
    if not by_validator:
        raise NotFound(
            f"no validator has judged {hotkey} under rule version {version.version}",
            remedy="see `athena leases --hotkey`: sheets come after the reveal of a commitment",
        )
    now = max(sheet.seed_block for sheets in by_validator.values() for sheet in sheets)
    for _, sheets in sorted(by_validator.items()):
        explanation = explanation_of(sheets, version, now_block=now)
        if as_json:
            _print_json(explanation, limit)
        else:
            _print(explanation, version, limit, now)


def _print_json(explanation: Explanation, limit: int) -> None:
    from athena.cli_output import json_line

    tasks = [
        {
            "task": story.sheet.task_id,
            "outcome": story.sheet.outcome,
            "units": story.sheet.units,
            "effect": story.sheet.effect and story.sheet.effect.mean,
            "gates": {verdict.gate: verdict.outcome for verdict in story.sheet.gates},
            "stopped_by": story.stopped_by and story.stopped_by.gate,
            "reason": story.stopped_by and story.stopped_by.reason,
            "advice": list(story.advice),
        }
        for story in explanation.tasks[:limit]
    ]
    paid = asdict(explanation.account) | {"weight": explanation.account.weight}
    told: dict[str, Any] = {"validator": explanation.validator, "pay": paid, "tasks": tasks}
    typer.echo(json_line(told | {"advice": list(explanation.advice)}))


def _print(explanation: Explanation, rules: Rules, limit: int, now_block: int) -> None:
    from athena.cli_output import cell, print_table, table_of
    from athena.judge.explain import formula

    typer.echo(f"validator {explanation.validator}, at block {now_block}")
    table = table_of("task", "verdict", "units", "effect", "why, and what to change")
    for story in explanation.tasks[:limit]:
        sheet, stop = story.sheet, story.stopped_by
        told = [f"{stop.gate}: {stop.reason}."] if stop is not None else []
        why = " ".join([*told, *story.advice])
        table.add_row(*map(cell, (sheet.task_id, sheet.outcome, sheet.units, shown_effect(sheet.effect), why)))
    print_table(table)
    typer.echo(formula(explanation.account, rules.pay))
    for line in explanation.advice:
        typer.echo(f"- {line}")
