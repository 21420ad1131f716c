"""A small world to cheat in: a crawl of made-up pages, a hub, an evaluation pack, and miners that publish datasets."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bittensor.sp_core import Keypair

from athena.crawl import open_crawl
from athena.durable import write_file
from athena.evalpack import EvalDocument, write_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.assess import Bench, Case, Rival, assess, dataset_folder
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.rules import GateRules, PayRules, ProxyRules, Rules
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import Commitment, DatasetRef, RecipeRef, ScoreSheet, Shard, Task
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task
from scripts.attacks.datasets import OTHER_RECIPE, write_dataset
from scripts.attacks.pages import article, junk, page, warc

HOTKEYS = {
    "alice": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    "bob": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "carol": "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y",
    **{f"miner-{n}": str(Keypair.create_from_uri(f"//miner-{n}").ss58_address) for n in range(10)},
}
COUNTER = itertools.count()
BLOCK_HASH = "0x" + "ab" * 32

TINY = Rules(
    "demo-1",
    gates=GateRules(
        max_dataset_bytes=4 << 20, max_table_bytes=8 << 20, max_rows=10_000, reader_seconds=60,
        reader_memory_bytes=4 << 30,
    ),
    proxy=ProxyRules(
        vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, length=64, max_tokens=12_000, min_tokens=1000,
        batch_windows=4, learning_rate=1e-2, weight_decay=0.0, documents_per_domain=8, windows_per_document=1,
        miner_seeds=1, canonical_seeds=1, canary_seeds=1, arm_seconds=120,
    ),
    pay=PayRules(sigma_seed=0.05, sigma_domain=0.1, sigma_task=0.02, prior=0.2, clip=1.0, scale=0.2),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class World:
    """Everything a miner and a validator need; `rows` are alice's honest canonical rows of the task."""

    root: Path
    bench: Bench
    task: Task
    paths: tuple[str, ...]
    rows: tuple[dict, ...]
    events: Path

    def refine(
        self, recipe: str, hotkey: str = "alice", task: Task | None = None, left_out: LeftOut = NOTHING_LEFT_OUT
    ) -> list[dict]:
        task = task or self.task
        out = self.root / "refined" / f"{recipe}-{hotkey}-{task.id}-{left_out.digest[:8]}"
        manifest = refine_task(
            task, HOTKEYS[hotkey], load_recipe(recipe), self.bench.crawl, out, events=EventLog(None), left_out=left_out
        )
        assert manifest.rows
        return pq.read_table(out / "data.parquet").to_pylist()

    def publish(
        self,
        rows: list[dict],
        *,
        hotkey: str = "alice",
        task: Task | None = None,
        recipe: RecipeRef = OTHER_RECIPE,
        tamper: Callable[[Path], None] = lambda folder: None,
        **changed: object,
    ) -> Case:
        """A dataset with the right form for any rows, published and committed to. `tamper` edits the folder before."""
        task = task or self.task
        folder = self.root / "made" / str(next(COUNTER))
        manifest = write_dataset(folder, rows, task, HOTKEYS[hotkey], recipe, **changed)
        tamper(folder)
        name = f"{hotkey}/set-{folder.name}"
        revision = self.bench.hub.publish(folder, name, message="data")
        ref = DatasetRef(location=f"file:{name}", revision=revision, root=manifest.root)
        commitment = Commitment(dataset=ref, task_id=task.id, hotkey=HOTKEYS[hotkey])
        return Case(
            task=task, commitment=commitment, issued_block=100, deadline_block=300, commit_block=200, seed_block=210,
            block_hash=BLOCK_HASH, reference_hash=BLOCK_HASH,
        )  # fmt: skip

    def judge(self, case: Case, **changes: object) -> ScoreSheet:
        return assess(case, dataclasses.replace(self.bench, **changes))

    def altered(self, change: Callable[[int, dict], dict]) -> list[dict]:
        return [change(i, dict(row)) for i, row in enumerate(self.rows)]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("world")
    crawl_id = "LOCAL-attacks"
    paths = tuple(f"crawl-data/{crawl_id}/{number}.warc.gz" for number in range(2))
    for number, path in enumerate(paths):
        pages = {f"https://site{n}.example/{number}": page(f"Story {n}", article(f"{number}/{n}")) for n in range(12)}
        pages |= {f"https://shop{n}.example/{number}": junk(f"{number}/{n}") for n in range(8)}
        write_file(root / "crawl" / path, warc(pages))
    documents = [
        EvalDocument(id=f"{domain}-{n}", domain=domain, text=article(f"eval {domain} {n}", 3))
        for domain in ("letters", "stories")
        for n in range(10)
    ]
    with ProxyWorkers() as workers:
        bench = Bench(
            hub=open_hub(f"file://{root}/hub"),
            crawl=open_crawl(f"file://{root}/crawl"),
            pack=write_pack(root / "pack", "attacks", documents),
            rules=TINY,
            validator=HOTKEYS["carol"],
            workdir=root / "work",
            events=EventLog(root / "events.jsonl"),
            workers=workers,
        )
        task = Task(shard=Shard(crawl=crawl_id, warc_paths=paths), rule_version="demo-1", opened_block=1)
        world = World(root, bench, task, paths, (), root / "events.jsonl")
        yield dataclasses.replace(world, rows=tuple(world.refine("fineweb-1")))


@pytest.fixture
def canonical() -> RecipeRef:
    return load_recipe("fineweb-1").ref


@pytest.fixture
def rival_of(world: World) -> Callable[[Case, int], Rival]:
    """The rival entry of a case that was judged before."""

    def make(case: Case, commit_block: int) -> Rival:
        folder = dataset_folder(world.bench.workdir, case.commitment)
        return Rival(folder, case.hotkey, commit_block, case.task.id)

    return make
