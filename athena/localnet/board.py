"""The live picture of a local network, gathered from the rooms' event logs. It shows; it decides nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from athena.events import Event, Tail


@dataclass
class MinerView:
    leased: int = 0
    submitted: int = 0
    seen: int = 0
    kept: int = 0
    tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    now: str = "starting"


@dataclass
class ValidatorView:
    outcomes: dict[tuple[str, str], str] = field(default_factory=dict)  # (task, hotkey) -> last outcome
    proxies_done: int = 0
    weights: dict[str, float] = field(default_factory=dict)
    now: str = "starting"


class Board:
    """`update()` reads what is new, `render()` draws it. `names` maps hotkeys to the miners' names."""

    def __init__(self, event_files: dict[str, Path], names: dict[str, str], shards: int) -> None:
        self._tails = {room: Tail(path) for room, path in event_files.items()}
        self._names = names
        self.shards = shards
        self.miners: dict[str, MinerView] = {name: MinerView() for name in names.values()}
        self.validators: dict[str, ValidatorView] = defaultdict(ValidatorView)
        self.block = 0
        self.loss: float | None = None
        self.step = (0, 0)
        self.release: str | None = None
        self.nothing = False
        self.trainer = "waiting for consensus"
        self.span: dict[str, tuple[float, float]] = {}

    def update(self) -> None:
        for room, tail in self._tails.items():
            for event in tail:
                self._take(room, event)

    def _mark(self, stage: str, at: float) -> None:
        first, last = self.span.get(stage, (at, at))
        self.span[stage] = (min(first, at), max(last, at))

    def _take(self, room: str, event: Event) -> None:
        kind, at = event.get("event", ""), float(event.get("at", 0))
        if kind.startswith("devchain."):
            self.block = max(self.block, int(event.get("block", 0)))
        elif kind.startswith("server."):
            self._take_server(kind, event)
        elif kind.startswith(("miner.", "refine.")):
            self._mark("refine", at)
            self._take_miner(self.miners.get(room), kind, event)
        elif kind.startswith(("judge.", "validator.")):
            if kind in ("judge.start", "judge.done"):
                self._mark("judge", at)
            self._take_validator(self.validators[room], kind, event)
        elif kind.startswith(("train.", "trainer.")):
            if kind != "trainer.waiting":
                self._mark("train", at)
            self._take_trainer(kind, event)

    def _take_server(self, kind: str, event: Event) -> None:
        miner = self.miners.get(self._names.get(str(event.get("hotkey")), ""))
        if miner is None:
            return
        miner.leased += kind == "server.leased"
        miner.submitted += kind == "server.submitted"

    def _take_miner(self, miner: MinerView | None, kind: str, event: Event) -> None:
        if miner is None:
            return
        miner.now = kind.split(".", 1)[1].replace(".", " ")
        if kind == "miner.submitted":
            miner.seen += int(event["records"])
            miner.kept += int(event["rows"])
            miner.tokens += int(event["tokens"])
            miner.rejected.update(event["rejected"])

    def _take_validator(self, validator: ValidatorView, kind: str, event: Event) -> None:
        if kind == "judge.done":
            validator.outcomes[(event["task"], event["hotkey"])] = event["outcome"]
        elif kind == "judge.proxy":
            validator.proxies_done += 1
        elif kind == "validator.weights":
            validator.weights = {str(k): float(v) for k, v in event["weights"].items()}
        if kind == "judge.gate":
            validator.now = f"{event['gate']}: {event['outcome']}"
        elif kind not in ("validator.read", "validator.state"):
            validator.now = kind.split(".", 1)[1]

    def _take_trainer(self, kind: str, event: Event) -> None:
        self.trainer = kind.split(".", 1)[1]
        if kind == "train.step":
            self.step = (int(event["step"]), int(event["total"]))
            self.loss = float(event["loss"])
        elif kind == "trainer.nothing":
            self.nothing = True
        elif kind == "trainer.released":
            self.release = str(event.get("version"))

    def render(self) -> RenderableType:
        return Panel(
            Group(self._miner_table(), self._validator_table(), self._trainer_line()),
            title=f"Athena on one machine · block {self.block}",
        )

    def _miner_table(self) -> Table:
        table = Table(box=None, expand=True)
        for column in ("miner", "leased", "submitted", "documents kept", "tokens", "dropped most by", "now"):
            table.add_column(column)
        for name, miner in self.miners.items():
            reasons = ", ".join(f"{reason} {n}" for reason, n in miner.rejected.most_common(3))
            table.add_row(
                name, f"{miner.leased}/{self.shards}", str(miner.submitted), f"{miner.kept} of {miner.seen}",
                f"{miner.tokens:,}", reasons, miner.now,
            )  # fmt: skip
        return table

    def _validator_table(self) -> Table:
        table = Table(box=None, expand=True)
        for column in ("validator", "judged", "proxy runs", "weights", "now"):
            table.add_column(column)
        for name, validator in sorted(self.validators.items()):
            weights = ", ".join(f"{self._names.get(k, k[:6])} {v:.2f}" for k, v in sorted(validator.weights.items()))
            judged = ", ".join(f"{n} {outcome}" for outcome, n in Counter(validator.outcomes.values()).items())
            table.add_row(name, judged, str(validator.proxies_done), weights, validator.now)
        return table

    def _trainer_line(self) -> RenderableType:
        step, total = self.step
        line = Table.grid(padding=(0, 2))
        loss = "" if self.loss is None else f"loss {self.loss:.3f}"
        line.add_row(
            Text("trainer"), Text(self.trainer), ProgressBar(total=max(1, total), completed=step, width=40), loss
        )
        return line
