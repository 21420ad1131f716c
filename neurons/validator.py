"""The validator: read commitments, judge the data behind them, publish score sheets, set weights.

python -m neurons.validator --network finney --netuid N --wallet bob --eval-pack ./eval-pack
"""

from __future__ import annotations

import logging

from athena.chain.client import Chain
from athena.chain.wallets import sign
from athena.crawl import Manners, open_crawl
from athena.errors import AthenaError, Misconfigured, RateLimited, Unavailable
from athena.evalpack import EvalPack, PackShelf
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.assess import Bench
from athena.judge.known import open_known
from athena.judge.outbox import SheetRepository
from athena.judge.proxy.arms import ProxyWorkers, devices_here
from athena.judge.queue import QUEUE_FILE, CaseQueue
from athena.judge.rules import rules_of
from athena.judge.sealed import SealedHalves
from athena.judge.weighing import Weigher
from athena.judge.work import Judge, Reader
from athena.node import Member, join_subnet, patiently, run_node
from athena.settings import ValidatorSettings

log = logging.getLogger("athena.validator")


class ThreadStopped(AthenaError):
    """A thread of the validator ended with an error; a restart goes on from the queue."""


def validate(settings: ValidatorSettings, events: EventLog) -> None:
    member = join_subnet(settings)
    rule_version = patiently(member.ledger.server).rule_version
    queue_file = settings.state_folder / QUEUE_FILE
    weigher = Weigher(
        Chain(settings.network, settings.netuid, member.wallet), member.ledger, queue_file, hotkey=member.hotkey,
        rule_version=rule_version, every=settings.weight_blocks, events=events,
    )  # fmt: skip
    with CaseQueue(queue_file) as queue, _judge(settings, member, rule_version, events) as judge:
        weigher.start()
        log.info("validating as %s under rules %s", member.hotkey, rule_version)
        reader = Reader(member.chain, member.ledger, queue, settings.commit_read_blocks)
        for head in member.chain.heads():
            if failure := judge.failure or weigher.failure:
                raise ThreadStopped(f"the validator stopped: {failure}") from failure
            try:
                if reader.read_up_to(head.number):
                    events.emit("validator.read", block=head.number)
            except (Unavailable, RateLimited) as error:
                log.warning("trying again at the next block: %s", error)


def _judge(settings: ValidatorSettings, member: Member, rule_version: str, events: EventLog) -> Judge:
    """The judge, with its instruments, not yet started."""
    hub, state = open_hub(settings.hub), settings.state_folder
    packs = PackShelf(settings.eval_pack.expanduser())
    bench = Bench(
        hub=hub,
        crawl=open_crawl(settings.crawl_url, Manners(contact=settings.contact)),
        pack=packs.at(patiently(member.chain.head).number),
        packs=packs,
        rules=rules_of(rule_version),
        validator=member.hotkey,
        workdir=state / "work",
        events=events,
        workers=ProxyWorkers(settings.proxy_processes, devices_here()),
        opt_outs=member.ledger.opt_outs,
        known=tuple(open_known(path.expanduser()) for path in settings.known_releases),
        base=settings.proxy_base and settings.proxy_base.expanduser(),
    )
    name = settings.sheets_repository
    return Judge(
        state / QUEUE_FILE, bench, member.ledger, lambda message: sign(member.wallet, message),
        cases=settings.num_cases, sheets=SheetRepository(hub, name, state / "sheets") if name else None,
        max_bytes=int(settings.disk_gib * (1 << 30)), sealed=_sealed_halves(settings, bench.pack),
    )  # fmt: skip


def _sealed_halves(settings: ValidatorSettings, pack: EvalPack) -> SealedHalves | None:
    """Raises Misconfigured where the pack in use promises another half than is here."""
    if settings.sealed_pack is None:
        return None
    shelf = PackShelf(settings.sealed_pack.expanduser())
    if shelf.sealed_half_of(pack) is None:
        raise Misconfigured(
            f"{settings.sealed_pack} holds no sealed half of pack {pack.hash[:16]}…",
            remedy="name the folder that `athena evalpack build` made with that pack, or leave sealed_pack out",
        )
    return SealedHalves(shelf)


if __name__ == "__main__":
    run_node("neurons.validator", ValidatorSettings, validate)
