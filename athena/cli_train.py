"""The console commands that turn winning data into what a model trains on: `athena train mixture|tokenizer|tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athena.cli_records import LOCAL_SERVER, QUERY_SECONDS, Json, Server
from athena.errors import BadInput, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from athena.evalpack import EvalPack
    from athena.optout import LeftOut
    from athena.train.gather import MixtureInfo, Sources
    from athena.train.mixture import AcceptedDataset, MixtureRules

app = typer.Typer(
    name="train",
    help="Make a mixture of the data that consensus pays for, its tokens, and a model of them.",
    no_args_is_help=True,
)

MixtureFolder = Annotated[Path, typer.Argument(help="Folder of a mixture.", exists=True, file_okay=False)]
NewFolder = Annotated[Path, typer.Option(help="Folder to write to.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes, one core each; by default one per core.")]


MAX_TOKENS = 2**53 - 1  # what JSON holds: all there are


class Weights(StrEnum):
    INCENTIVE = "incentive"
    REGMIX = "regmix"


class By(StrEnum):
    HOTKEY = "hotkey"
    CRAWL = "crawl"


@app.command()
def mixture(
    out: NewFolder,
    eval_pack: Annotated[Path, typer.Option(help="Folder of the evaluation pack, whose texts are left out.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to take at most, as the datasets count them.")],
    dataset: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a dataset, or of several, on this machine, instead of the chain's; repeatable."),
    ] = None,
    max_miner_share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the tokens that one miner may supply.")
    ] = 0.5,
    without: Annotated[
        list[str] | None, typer.Option(help="Domain whose pages are left out, beside the opt-outs; repeatable.")
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of an earlier mixture, whose texts are not taken again; repeatable.", exists=True),
    ] = None,
    canaries: Annotated[
        int, typer.Option(min=0, max=256, help="Sentences to plant, to see later what a model remembers of its data.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Draws which documents fill a share.")] = 0,
    weights: Annotated[
        Weights,
        typer.Option(
            help="regmix: learn the proportions from small models, where there is more data than --max-tokens."
        ),
    ] = Weights.INCENTIVE,
    by: Annotated[By, typer.Option(help="The sources that regmix weighs.")] = By.HOTKEY,
    network: Annotated[str, typer.Option(help="Chain to read incentives from: finney, test or ws://….")] = "finney",
    netuid: Annotated[int, typer.Option(help="Subnet number on that chain.")] = 1,
    since_block: Annotated[
        int | None, typer.Option(min=0, help="Block of the last mixture: incentive is averaged since. Else one epoch.")
    ] = None,
    epoch_blocks: Annotated[int, typer.Option(min=1, help="The subnet's tempo.")] = 360,
    hub: Annotated[str, typer.Option(envvar="ATHENA_HUB", help="hf:// or file:///folder.")] = "hf://",
    server: Server = LOCAL_SERVER,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Choose what to train on: winning datasets, each text once, no test, no opted-out page, no miner over its share.

    Reads from the chain who earned since the last mixture, and from signed score sheets what validators with most of
    the stake passed; fetches those datasets and verifies their roots. With --dataset it takes folders of this machine
    and needs neither chain nor server. Goes on where it was interrupted; datasets are kept in OUT.datasets.

    Example: athena train mixture --out mix --eval-pack eval-pack --max-tokens 3000000000 --netuid 63
    Example: athena train mixture --out mix --eval-pack eval-pack --max-tokens 5000000 --dataset refined/
    """
    from athena.cli_output import json_line
    from athena.evalpack import load_pack
    from athena.evaluations.canaries import drawn_plan
    from athena.optout import LeftOut
    from athena.train.mixture import MixtureRules

    _must_be_new(out)
    rules = MixtureRules(
        seed=seed, max_tokens=max_tokens, max_miner_share=max_miner_share, weighed_by=by.value,
        canaries=drawn_plan(seed, canaries) if canaries else None,
    )  # fmt: skip
    found = _local(dataset) if dataset else _winners(network, netuid, since_block, epoch_blocks, hub, server)
    left_out = LeftOut(found.opted_out | {domain.lower().strip(".") for domain in without or ()})
    gathering = Gathering(
        found, load_pack(eval_pack), left_out, out.with_name(f"{out.name}.datasets"), tuple(earlier or ())
    )
    if weights is Weights.REGMIX:
        rules = gathering.weighed(rules, workers or _cores())
    info = gathering.into(out, rules)
    if as_json:
        typer.echo(json_line(info))
    else:
        _print(info, out)


@app.command()
def tokenizer(
    mixture: MixtureFolder,
    out: NewFolder,
    vocab_size: Annotated[int, typer.Option(min=257, help="Tokens, one for each byte among them.")] = 32_768,
    context_length: Annotated[int, typer.Option(min=1, help="Tokens of the model's context.")] = 2_048,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder of a Hugging Face tokenizer to take, instead of training one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the part of a large mixture that it is trained on.")] = 0,
) -> None:
    """Train a byte-level BPE on a mixture, or take another tokenizer.

    Digits are split in groups of at most two. The same mixture and seed give the same bytes. A taken tokenizer needs a
    tokenizer.json and an end-of-text token, which then opens every document; no code of it is run.

    Example: athena train tokenizer mix --out tokenizer --vocab-size 49152
    """
    from athena.cli_output import progress
    from athena.train.gather import load_mixture, read_documents
    from athena.train.tokenizer import adopt_tokenizer, load_tokenizer, train_tokenizer

    _must_be_new(out)
    info = load_mixture(mixture)
    if source is not None:
        adopt_tokenizer(source, context_length, out)
    else:
        with progress("reading documents") as step:

            def texts() -> Iterator[str]:
                for number, document in enumerate(read_documents(mixture, seed=seed), 1):
                    step(number, info.documents)
                    yield document["text"]

            train_tokenizer(texts(), vocab_size, context_length, out)
    typer.echo(f"{out}  {len(load_tokenizer(out)):,} tokens")


@app.command()
def tokens(
    mixture: MixtureFolder,
    tokenizer: Annotated[Path, typer.Option(help="Folder of the tokenizer.", exists=True, file_okay=False)],
    out: NewFolder,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a window: the model's context.")] = 2_048,
    workers: Workers = None,
) -> None:
    """Turn a mixture into shards of token ids and pack them into windows; the same bytes for any number of processes.

    Documents are packed by best fit, and no token attends across two. Nothing is dropped: a document longer than a
    window is cut. Goes on where it was interrupted.

    Example: athena train tokens mix --tokenizer tokenizer --out tokens --length 2048
    """
    from athena.cli_output import progress
    from athena.train.gather import DOCUMENTS, load_mixture
    from athena.train.tokens import TokenStream, write_tokens

    _must_be_new(out)
    load_mixture(mixture)
    with progress("encoding documents", every=1) as step:
        written = write_tokens(mixture / DOCUMENTS, tokenizer, out, workers=workers or _cores(), progress=step)
    packing = TokenStream(out, length).packing
    info = written.info
    typer.echo(f"{out}  {info.tokens:,} tokens of {info.documents:,} documents in {len(info.shards)} shards")
    typer.echo(f"  {written.tokens_per_core_second:,.0f} tokens a second on each core")
    typer.echo(
        f"  {packing.windows:,} windows of {length}: {packing.waste:.3%} padding, "
        f"{packing.documents_cut:,} documents cut"
    )


def _must_be_new(out: Path) -> None:
    if out.exists():
        raise Conflict(f"{out} is there already", remedy="name another folder, or remove it")


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def plan(
    preset: Annotated[str, typer.Option(help="Model size: tiny, 30m, 125m, 350m, 1b, 7b or 27b.")],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the model.")] = 1,
    micro_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens at a time on each GPU; by default one window or 4,096.")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option(help="Keep only what goes from layer to layer, and compute the rest again.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Print a model's size, its FLOPs and the memory that training it takes on each GPU. Starts nothing."""
    from athena.cli_output import cell, json_line, print_table, table_of
    from athena.train.planning import plan_memory
    from athena.train.presets import preset_of

    shape = preset_of(preset)
    tokens = micro_tokens or shape.micro_windows * shape.context_length
    memory = plan_memory(shape, gpus=gpus, micro_tokens=tokens, checkpointing=checkpointing)
    model = {
        "parameters": shape.parameters(),
        "flops_per_token": shape.flops_per_token(),
        "training_tokens": shape.training_tokens,
        "batch_tokens": shape.batch_tokens,
    }
    if as_json:
        typer.echo(json_line({**model, "bytes_per_gpu": {**vars(memory), "total": memory.total}}))
        return
    table = table_of("model", preset)
    for name, count in model.items():
        table.add_row(cell(name.replace("_", " ")), cell(f"{count:,}"))
    print_table(table)
    table = table_of("memory on each GPU", "GiB")
    for name, size in {**vars(memory), "total": memory.total}.items():
        table.add_row(cell(name), cell(f"{size / 2**30:.1f}"))
    print_table(table)


@app.command()
def run(
    folder: Annotated[
        Path, typer.Argument(help="The run's folder: job.json, plan.json.", exists=True, file_okay=False)
    ],
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine: one for each GPU.")] = 1,
) -> None:
    """Train the run in FOLDER until it is done; start it again from its last good checkpoint when it dies.

    A run that diverged is not started again: checkpoints/diverged.json says what led to it. On many machines start
    `python -m athena.train.worker --run FOLDER` by torchrun or `accelerate launch` instead.
    """
    from athena.events import EventLog
    from athena.train.supervise import supervise, worker_command

    events = folder / "events.jsonl"
    supervise(worker_command(folder, processes, events), folder, EventLog(events))


@dataclass(frozen=True)
class Found:
    """Datasets, where they lie, and the domains that opted out by now."""

    accepted: tuple[AcceptedDataset, ...]
    source: Sources
    opted_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Gathering:
    """What a mixture is made of; `shelf` keeps the datasets and what was learnt of them."""

    found: Found
    pack: EvalPack
    left_out: LeftOut
    shelf: Path
    earlier: tuple[Path, ...]

    def into(self, folder: Path, rules: MixtureRules) -> MixtureInfo:
        from athena.cli_output import progress
        from athena.events import EventLog
        from athena.train.gather import gather

        with progress("reading datasets", every=1) as step:
            return gather(
                self.found.accepted, rules, self.pack, self.found.source, self.shelf, folder, EventLog(None),
                self.left_out, self.earlier, step,
            )  # fmt: skip

    def weighed(self, rules: MixtureRules, processes: int) -> MixtureRules:
        """The rules with learnt weights of the sources, from small models on mixtures of all that there is."""
        import hashlib

        from athena.cli_output import note, progress
        from athena.protocol import canonical_json
        from athena.train.regmix import RegmixPlan, learn_weights

        everything = rules.model_copy(update={"max_tokens": MAX_TOKENS, "canaries": None})
        accepted = [dataset.model_dump(mode="json") for dataset in self.found.accepted]
        told = canonical_json([everything.model_dump(mode="json"), accepted, self.pack.hash, self.left_out.digest])
        pool = self.shelf / f"pool-{hashlib.sha256(told).hexdigest()[:16]}"
        if not pool.exists():
            self.into(pool, everything)
        with progress("training small models", every=1) as step:
            learnt = learn_weights(pool, rules, self.pack, RegmixPlan(seed=rules.seed), processes, step)
        note(f"the learnt weights promise {learnt.gain:+.4f} bits per byte, give or take {learnt.error:.4f}")
        return rules.model_copy(update={"weights": learnt.weights})


def _local(folders: list[Path]) -> Found:
    from athena.train.local import LocalDatasets

    datasets = LocalDatasets(folders)
    return Found(datasets.accepted, datasets)


def _winners(network: str, netuid: int, since_block: int | None, epoch_blocks: int, hub: str, server: str) -> Found:
    """Whom the chain paid, of what the validators' sheets passed, where it lies, and who opted out."""
    from contextlib import closing

    from athena.chain.client import Chain
    from athena.cli_output import note
    from athena.client import LedgerClient
    from athena.hub import open_hub
    from athena.optout import left_out
    from athena.train.mixture import canonical_order
    from athena.train.selection import averaged, epochs_since, genuine, select

    with closing(Chain(network, netuid)) as chain, LedgerClient(server, None, retry_seconds=QUERY_SECONDS) as ledger:
        head = chain.head().number
        epochs = epochs_since(chain, head - epoch_blocks if since_block is None else since_block, epoch_blocks)
        selection = select(averaged(epochs), genuine(ledger.sheets()))
        opted_out = left_out(ledger.opt_outs(), head)
    note(
        f"block {head}: {len(selection.accepted)} of {selection.judged} judged datasets are paid, "
        f"by incentive over {len(epochs)} epochs"
    )
    if not selection.accepted:
        raise BadInput("no dataset is accepted and paid", remedy="wait until validators have set weights for a miner")
    return Found(tuple(canonical_order(selection.accepted)), open_hub(hub), opted_out.domains)


def _print(info: MixtureInfo, out: Path) -> None:
    from athena.cli_output import cell, print_table, table_of

    for what, counts in (
        ("miner", info.tokens_by_hotkey),
        ("dataset", info.tokens_by_dataset),
        ("crawl", info.tokens_by_crawl),
        ("language", info.tokens_by_language),
    ):
        table = table_of(what, "tokens", "share")
        for name, tokens in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            table.add_row(cell(name), cell(f"{tokens:,}"), cell(f"{tokens / info.tokens:.1%}"))
        print_table(table)
    table = table_of("dropped because", "documents")
    for reason, count in info.dropped.items():
        table.add_row(cell(reason), cell(f"{count:,}"))
    print_table(table)
    for reference, reason in info.refused.items():
        typer.echo(f"refused {reference}: {reason}")
    typer.echo(f"{out}  {info.documents:,} documents, {info.tokens:,} tokens")
