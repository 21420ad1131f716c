"""A small world to cheat in: a crawl of made-up pages, a hub, an evaluation pack, and miners that publish datasets."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from athena.crawl import open_crawl
from athena.durable import write_file
from athena.evalpack import EvalDocument, write_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.assess import Bench, Case, Rival, assess, dataset_folder
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.rules import GateRules, PayRules, ProxyRules, Rules
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import Commitment, DatasetRef, FileEntry, Manifest, RecipeRef, ScoreSheet, Shard, Task, merkle_root
from athena.refine.manifest import ROW_SCHEMA, leaves, parquet_writer
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task

HOTKEYS = {
    "alice": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    "bob": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "carol": "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y",
}
COUNTER = itertools.count()
BLOCK_HASH = "0x" + "ab" * 32
OTHER_RECIPE = RecipeRef(name="my-recipe", version="1", hash="77" * 32)

KINDS, PEOPLE, THINGS, DEEDS, WAYS, MENU, ADVERTS = (
    line.split()
    for line in (
        "old young quiet famous honest distant careful broken silver wooden narrow bitter gentle early heavy",
        "baker doctor sailor teacher engineer painter clerk farmer watchman traveller historian widow judge",
        "bridge boat train house valley clock market engine garden letter harbour field tower chest ferry lamp",
        "reached described remembered painted repaired measured sold borrowed followed studied lost found drew",
        "slowly gladly again twice alone yesterday with patience in silence before noon after the war for us",
        "Home Products Login Cart Blog Jobs Press Help",
        "kaufen billig rabatt gutschein casino bonus xxl jetzt 777 win viagra ofertas descuento gratis",
    )
)
WHEN = ("that spring", "long ago", "by night", "in autumn", "last year", "at dawn", "once more", "as agreed")


def sentence(dice: random.Random) -> str:
    def thing() -> str:
        return f"{dice.choice(('the', 'a', 'my', 'our'))} {dice.choice(KINDS)} {dice.choice(THINGS)}"

    words = f"the {dice.choice(KINDS)} {dice.choice(PEOPLE)} {dice.choice(WAYS)} {dice.choice(DEEDS)} {thing()}"
    words += dice.choice((f" of {thing()}", f" with {thing()}", f", and that was {thing()}", ""))
    return f"{words[0].upper()}{words[1:]} {dice.choice(WHEN)}."


def article(seed: str, paragraphs: int = 6) -> str:
    dice = random.Random(seed)
    return "\n".join(" ".join(sentence(dice) for _ in range(5)) for _ in range(paragraphs))


def page(title: str, body: str) -> bytes:
    menu = "".join(f"<li><a href='/{w}'>{w}</a></li>" for w in MENU)
    blocks = "".join(f"<p>{line}</p>" for line in body.split("\n"))
    return (
        f"<html lang=en><head><title>{title}</title></head><body><nav><ul>{menu}</ul></nav>"
        f"<article><h1>{title}</h1>{blocks}</article><footer>Copyright, all rights reserved, buy now, subscribe"
        f"</footer></body></html>"
    ).encode()


def junk(seed: str) -> bytes:
    dice = random.Random(seed)
    lines = "\n".join(" ".join(dice.choice(ADVERTS) for _ in range(40)) for _ in range(8))
    return page("SALE " + seed, lines)


def warc(pages: dict[str, bytes]) -> bytes:
    out = b""
    for url, body in pages.items():
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
        uuid = hashlib.md5(url.encode()).hexdigest()
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-10-01T00:00:00Z\r\n"
            f"WARC-Record-ID: <urn:uuid:{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}>\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
        ).encode()
        out += gzip.compress(head + http + b"\r\n\r\n", mtime=0)
    return out


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
        return pa.parquet.read_table(out / "data.parquet").to_pylist()

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


def write_dataset(
    folder: Path, rows: list[dict], task: Task, hotkey: str, recipe: RecipeRef, **changed: object
) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
    with parquet_writer(folder / "data.parquet") as writer:
        for path in dict.fromkeys(row["warc_path"] for row in rows):
            group = table.filter(pa.compute.equal(table["warc_path"], path))
            writer.write_table(group, row_group_size=max(1, group.num_rows))
    data = (folder / "data.parquet").read_bytes()
    entry = FileEntry(path="data.parquet", bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=len(rows))
    manifest = Manifest(
        task_id=task.id, hotkey=hotkey, rule_version=task.rule_version, recipe=recipe, files=(entry,),
        records=len(rows), rows=len(rows), rejected={}, tokens=sum(row["token_count"] for row in rows),
        root=merkle_root(leaves(table, hotkey)),
    ).model_copy(update=changed)  # fmt: skip
    write_file(folder / "manifest.json", manifest.canonical())
    return manifest


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
