"""The validator: read commitments, judge the data behind them, publish score sheets, set weights.

python -m neurons.validator --network finney --netuid N --wallet bob --eval-pack ./eval-pack
"""

from __future__ import annotations

import logging

from athena.chain.client import ChainRefused
from athena.chain.wallets import sign
from athena.crawl import Manners, open_crawl
from athena.errors import AthenaError, RateLimited, Unavailable
from athena.evalpack import load_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.assess import Bench
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.queue import CaseQueue
from athena.judge.rules import rules_of
from athena.judge.work import Judge, Reader, weights_now
from athena.node import join_subnet, patiently, run_node
from athena.settings import ValidatorSettings

log = logging.getLogger("athena.validator")


class JudgeStopped(AthenaError):
    """The judging thread ended with an error; a restart goes on from the queue."""


def validate(settings: ValidatorSettings, events: EventLog) -> None:
    member = join_subnet(settings)
    chain, ledger = member.chain, member.ledger
    rule_version = patiently(ledger.server).rule_version
    bench = Bench(
        hub=open_hub(settings.hub),
        crawl=open_crawl(settings.crawl_url, Manners(contact=settings.contact)),
        pack=load_pack(settings.eval_pack.expanduser()),
        rules=rules_of(rule_version),
        validator=member.hotkey,
        workdir=settings.state_folder / "work",
        events=events,
        workers=ProxyWorkers(settings.proxy_processes),
        opt_outs=ledger.opt_outs,
    )
    queue_file = settings.state_folder / "queue.sqlite"
    queue = CaseQueue(queue_file)
    reader = Reader(chain, ledger, queue, settings.commit_read_blocks)
    judge = Judge(queue_file, bench, ledger, lambda message: sign(member.wallet, message))
    judge.start()
    log.info("validating as %s under rules %s", member.hotkey, rule_version)
    weighed_epoch = -1
    for head in chain.heads():
        if judge.failure is not None:
            raise JudgeStopped(f"judging stopped: {judge.failure}") from judge.failure
        try:
            if reader.read_up_to(head.number):
                events.emit("validator.read", block=head.number)
            if head.number // settings.weight_blocks > weighed_epoch:
                weights = weights_now(queue, ledger, chain.neurons(), rule_version, head.number)
                if weights is not None:
                    chain.set_weights(weights)
                    events.emit("validator.weights", block=head.number, weights=dict(weights))
                weighed_epoch = head.number // settings.weight_blocks
        except (Unavailable, RateLimited) as error:
            log.warning("trying again at the next block: %s", error)
        except ChainRefused as error:
            log.error("weights were refused: %s", error)
            weighed_epoch = head.number // settings.weight_blocks


if __name__ == "__main__":
    run_node("neurons.validator", ValidatorSettings, validate)
