"""The trainer: watch for data that consensus pays for, grow the trunk by it, anneal branches, release what is better.

python -m neurons.trainer --network finney --netuid N --wallet carol --preset 125m --namespace my-hf-name
"""

from __future__ import annotations

import logging
from functools import partial

from athena.chain.wallets import sign, verify
from athena.events import EventLog
from athena.hub import open_hub
from athena.journal import Signer
from athena.node import Member, join_subnet, patiently, run_node
from athena.optout import left_out
from athena.registry import Registry
from athena.releases import Places, Releases
from athena.settings import TrainerSettings
from athena.train.line import RELEASING, Line
from athena.train.mixture import AcceptedDataset
from athena.train.runs_record import Run
from athena.train.runs_table import RUNS_FILE, RunTable
from athena.train.scheduler import Scheduler, command_of, parse_devices
from athena.train.selection import averaged, epochs_since, genuine, select
from athena.train.trained import read_trained
from athena.train.trunk import RunSettings, TrunkInputs

log = logging.getLogger("athena.trainer")


def train(settings: TrainerSettings, events: EventLog) -> None:
    member = join_subnet(settings)
    state, devices = settings.state_folder, parse_devices(settings.devices)
    signer = Signer(member.hotkey, lambda message: sign(member.wallet, message))
    releases = Releases(state / "releases", settings.model_name, verify, signer)
    places = Places(open_hub(settings.hub, kind="model"), settings.namespace, member.ledger, member.chain)
    command = partial(command_of, events=settings.events)
    with RunTable(state / RUNS_FILE) as table, Scheduler(table, devices, events, command=command) as scheduler:
        line = Line(table, state, settings.model_name, _inputs(settings), _devices_of_a_run(devices))
        winners = Winners(settings, member, events)
        for head in member.chain.heads():
            scheduler.tick()
            for reason in line.nothing():
                log.warning("nothing to train on yet: %s", reason)
                events.emit("trainer.nothing", reason=reason)
            for branch in line.to_release():
                release(branch, line, releases, places, settings.version, events)
            if settings.releases and line.released() >= settings.releases:
                return
            if line.branch_is_due(head.number, settings.branch_blocks):
                events.emit("trainer.branched", run=line.branch(head.number).name, block=head.number)
            elif line.idle and head.number % settings.look_blocks == 0:
                accepted = winners.settled(head.number, line)
                if accepted:
                    line.extend(accepted, left_out(patiently(member.ledger.opt_outs), head.number), head.number)
                    events.emit("trainer.extended", datasets=len(accepted), block=head.number)


def release(branch: Run, line: Line, releases: Releases, places: Places, first: str, events: EventLog) -> None:
    """Makes a release of what a branch came to; one that the gate does not find better stays a candidate."""
    version = (branch.result or "").removeprefix(RELEASING) or next_version(releases.registry(), first)
    line.settle(branch, RELEASING + version)  # after a kill, the same version again
    patiently(releases.cut, read_trained(branch.folder), version, places)
    standing = patiently(releases.ship, version, places)
    folder = str(releases.folder_of(version))
    if standing.state == "released":
        line.settle(branch, f"released {version}")
        events.emit("trainer.released", version=version, name=f"{places.namespace}/{releases.model}",
                    revision=standing.revision, folder=folder, run=branch.name)  # fmt: skip
        log.info("released %s %s at %s", releases.model, version, standing.revision)
    else:
        line.settle(branch, f"held as {version}: {standing.gate} than the release before it")
        log.warning("%s is %s than the release before it: `athena release approve` lets it go", version, standing.gate)
        events.emit("trainer.held", version=version, folder=folder, run=branch.name)


def next_version(registry: Registry, first: str) -> str:
    """A minor version above all that ever left this machine, or `first`; what was only a candidate is cut anew."""
    taken = [s.key for s in registry.standings.values() if s.state not in ("draft", "candidate")]
    if not taken:
        return first
    major, minor, _ = max(taken)
    return f"{major}.{minor + 1}.0"


class Winners:
    """The datasets that consensus pays for, once it has settled."""

    def __init__(self, settings: TrainerSettings, member: Member, events: EventLog) -> None:
        self._settings, self._member, self._events = settings, member, events
        self._judged, self._since = -1, 0

    def settled(self, block: int, line: Line) -> list[AcceptedDataset]:
        """Those that `line` was not given yet, once enough are paid and no verdict came in for `settle_blocks`.

        Their miners' incentive is the mean over the epochs since the last stage.
        """
        settings, chain, ledger = self._settings, self._member.chain, self._member.ledger
        sheets = list(genuine(patiently(ledger.sheets)))
        now = select(patiently(chain.neurons), sheets)
        awaited = patiently(ledger.stats).submissions - now.judged
        if now.judged != self._judged or awaited > 0:
            self._judged, self._since = now.judged, block
        new = line.unseen(now.accepted)
        self._events.emit("trainer.waiting", block=block, judged=now.judged, awaited=awaited, accepted=len(new))
        if len(new) < settings.min_datasets or block - self._since < settings.settle_blocks:
            return []
        since = block - settings.epoch_blocks if line.last_block is None else line.last_block
        epochs = patiently(epochs_since, chain, since, settings.epoch_blocks)
        return line.unseen(select(averaged(epochs), sheets).accepted)


def _inputs(settings: TrainerSettings) -> TrunkInputs:
    model = RunSettings(preset=settings.preset, seed=settings.seed, decay_share=settings.decay_share)
    pack = settings.eval_pack.expanduser().absolute()
    return TrunkInputs(settings=model, hub=settings.hub, eval_pack=str(pack), tracker=settings.tracker)


def _devices_of_a_run(devices: tuple[str, ...]) -> int:
    """All GPUs, or one slot of the processor."""
    return len(devices) if devices[0].startswith("cuda") else 1


if __name__ == "__main__":
    run_node("neurons.trainer", TrainerSettings, train)
