"""The miner: lease shards, refine them, publish the datasets, commit to them on chain, submit. Again.

python -m neurons.miner --network finney --netuid N --wallet alice --namespace my-hf-name
"""

from __future__ import annotations

import logging

from athena.crawl import Manners, open_crawl
from athena.errors import AthenaError
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.inspection import inspect_own
from athena.node import Member, join_subnet, patiently, run_node
from athena.refine.recipe import load_recipe
from athena.refine.work.commits import CommitQueue
from athena.refine.work.crew import Crew
from athena.refine.work.disk import GIB, DiskBudget
from athena.refine.work.status import sole_node
from athena.refine.work.status_board import StatusBoard
from athena.refine.work.workshop import Workshop
from athena.settings import MinerSettings

log = logging.getLogger("athena.miner")


def mine(settings: MinerSettings, events: EventLog) -> None:
    if settings.dry_run:
        from athena.localnet.dry_run import dry_run  # a validator's gates: a miner at work need not load them

        return dry_run(settings)
    with sole_node(settings.state_folder):
        member = join_subnet(settings)
        board = StatusBoard(settings.state_folder, hotkey=member.hotkey, recipe=settings.recipe)
        try:
            work(settings, events, member, board)
        except AthenaError as error:
            board.failed(error.code, str(error))
            raise


def work(settings: MinerSettings, events: EventLog, member: Member, board: StatusBoard) -> None:
    """Keeps as many leases in work as the settings and the disk allow, without end."""
    sealed = settings.commit == "sealed"
    with CommitQueue(member.chain, member.hotkey, sealed=sealed, read_blocks=settings.commit_read_blocks) as commits:
        workshop = Workshop(
            ledger=member.ledger,
            commits=commits,
            hub=open_hub(settings.hub),
            crawl=open_crawl(settings.crawl_url, Manners(contact=settings.contact)),
            recipe=load_recipe(settings.recipe),
            hotkey=member.hotkey,
            namespace=settings.namespace,
            folder=settings.state_folder / "tasks",
            events=events,
            board=board,
            inspect=inspect_own,
            workers=settings.workers_per_lease,
        )
        budget = DiskBudget(settings.state_folder, workshop.folder, int(settings.disk_gib * GIB))
        log.info("mining as %s with recipe %s, %d at a time", member.hotkey, workshop.recipe.name, settings.num_leases)
        with Crew(workshop) as crew:
            resumed = patiently(member.ledger.leases, hotkey=member.hotkey, state="active")
            workshop.sweep({lease.task.id for lease in resumed})
            crew.take_on(resumed)
            while True:
                room = budget.room(crew.held)
                board.disk(budget.used_bytes(), budget.max_bytes)
                if not room:
                    log.warning("no new task is leased: the disk budget is used up, see --disk-gib")
                wanted = min(settings.num_leases, len(crew.held) + room)
                if wanted > len(crew.held):
                    crew.take_on(patiently(member.ledger.claim, wanted))
                crew.wait(settings.idle_seconds)


if __name__ == "__main__":
    run_node("neurons.miner", MinerSettings, mine)
