"""The miner: lease a shard, refine it, publish the dataset, commit to it on chain, submit. Again.

python -m neurons.miner --network finney --netuid N --wallet alice --namespace my-hf-name
"""

from __future__ import annotations

import logging
import time

from athena.crawl import Manners, open_crawl
from athena.errors import BadInput, Conflict, NotFound
from athena.events import EventLog
from athena.hub import open_hub
from athena.node import join_subnet, patiently, run_node
from athena.refine.recipe import load_recipe
from athena.refine.work import Workshop
from athena.settings import MinerSettings

log = logging.getLogger("athena.miner")


def mine(settings: MinerSettings, events: EventLog) -> None:
    member = join_subnet(settings)
    workshop = Workshop(
        ledger=member.ledger,
        chain=member.chain,
        hub=open_hub(settings.hub),
        crawl=open_crawl(settings.crawl_url, Manners(contact=settings.contact)),
        recipe=load_recipe(settings.recipe),
        hotkey=member.hotkey,
        namespace=settings.namespace,
        sealed=settings.commit == "sealed",
        commit_read_blocks=settings.commit_read_blocks,
        folder=settings.state_folder / "tasks",
        events=events,
    )
    log.info("mining as %s with recipe %s", member.hotkey, workshop.recipe.name)
    while True:
        leases = patiently(member.ledger.claim)
        workshop.sweep(leases)
        for lease in leases:
            try:
                patiently(workshop.carry_out, lease)
            except Conflict as lost:
                log.warning("task %s: %s", lease.task.id, lost)
                events.emit("miner.lost", task=lease.task.id, reason=str(lost))
            except (BadInput, NotFound) as unusable:  # of the crawl: another task may be sound
                log.error("task %s is given back: %s", lease.task.id, unusable)
                patiently(member.ledger.release, lease)
                events.emit("miner.lost", task=lease.task.id, reason=str(unusable))
        if not leases:
            time.sleep(settings.idle_seconds)


if __name__ == "__main__":
    run_node("neurons.miner", MinerSettings, mine)
