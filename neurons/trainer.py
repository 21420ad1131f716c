"""The trainer: wait for consensus, train on the data that it pays for, release. Again, once there is more.

python -m neurons.trainer --network finney --netuid N --wallet carol --preset 125m --namespace my-hf-name
"""

from __future__ import annotations

import logging
import shutil

from athena.chain.client import Chain
from athena.chain.wallets import sign
from athena.client import LedgerClient
from athena.errors import NotFound
from athena.evalpack import load_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.node import join_subnet, patiently, run_node
from athena.optout import left_out
from athena.protocol import Release, SignedRelease
from athena.release import beats, cut_release, publish_release
from athena.settings import TrainerSettings
from athena.train.mixture import AcceptedDataset
from athena.train.runs import RunSettings, TrainerRun
from athena.train.selection import select

log = logging.getLogger("athena.trainer")


def train(settings: TrainerSettings, events: EventLog) -> None:
    datasets_hub, models_hub = open_hub(settings.hub), open_hub(settings.hub, kind="model")
    pack = load_pack(settings.eval_pack.expanduser())
    member = join_subnet(settings)
    ledger = member.ledger
    name = f"{settings.namespace}/{settings.model_name}"
    seen: set[str] = set()
    released = 0
    while not settings.releases or released < settings.releases:
        version = later(settings.version, released)
        folder = settings.state_folder / f"run-{version}"
        run = TrainerRun(RunSettings(preset=settings.preset, seed=settings.seed), folder, datasets_hub, pack, events)
        datasets = () if run.begun else await_consensus(settings, member.chain, ledger, events, seen)
        seen.update(d.dataset.root for d in datasets)
        try:
            excluded = left_out(patiently(ledger.opt_outs), patiently(member.chain.head).number)
            trained = patiently(run.run, datasets, excluded)
        except NotFound as nothing:
            log.warning("nothing to train on yet: %s", nothing)
            events.emit("trainer.nothing", reason=str(nothing))
            shutil.rmtree(folder)
            continue
        signed = cut_release(
            trained, name=settings.model_name, version=version, trainer=member.hotkey, into=folder / "release",
            sign=lambda message: sign(member.wallet, message),
        )  # fmt: skip
        if not beats(previous_release(patiently(ledger.releases), signed.release), signed.release):
            held = folder.rename(folder.with_name(f"held-{version}-{signed.release.digest()[:8]}"))
            log.warning("%s is no better than the release before it, and stays in %s", version, held)
            events.emit("trainer.held", version=version, folder=str(held))
            continue
        revision = patiently(publish_release, models_hub, folder / "release", name)
        patiently(ledger.post_release, signed)
        released += 1
        events.emit("trainer.released", version=version, name=name, revision=revision, folder=str(folder / "release"))
        log.info("released %s %s at %s", name, version, revision)


def previous_release(signed: list[SignedRelease], candidate: Release) -> Release | None:
    """The newest release of the same model by the same trainer before `candidate`."""
    older = [
        s.release
        for s in signed
        if (s.release.name, s.release.trainer) == (candidate.name, candidate.trainer)
        and version_of(s.release) < version_of(candidate)
    ]
    return max(older, key=version_of, default=None)


def version_of(release: Release) -> tuple[int, ...]:
    return tuple(map(int, release.version.split(".")))


def later(version: str, releases: int) -> str:
    """The version that many minor releases later."""
    major, minor, _ = map(int, version.split("."))
    return version if releases == 0 else f"{major}.{minor + releases}.0"


def await_consensus(
    settings: TrainerSettings, chain: Chain, ledger: LedgerClient, events: EventLog, seen: set[str]
) -> tuple[AcceptedDataset, ...]:
    """The datasets to train on, once enough new ones are paid and no verdict came in for `settle_blocks`."""
    judged, since = -1, 0
    for head in chain.heads():
        if head.number % settings.look_blocks:
            continue
        sheets = [signed.sheet for signed in patiently(ledger.sheets)]
        selection = select(patiently(chain.neurons), sheets)
        awaited = patiently(ledger.stats).submissions - selection.judged
        if selection.judged != judged or awaited > 0:
            judged, since = selection.judged, head.number
        new = sum(d.dataset.root not in seen for d in selection.accepted)
        events.emit("trainer.waiting", block=head.number, judged=judged, awaited=awaited, accepted=new)
        if new >= settings.min_datasets and head.number - since >= settings.settle_blocks:
            return selection.accepted
    raise AssertionError("the stream of heads never ends")


if __name__ == "__main__":
    run_node("neurons.trainer", TrainerSettings, train)
