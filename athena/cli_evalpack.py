"""The console commands for the ruler's texts: `athena evalpack build`, `show`, `verify`, `tasks` and `alarm`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athena.errors import BadInput, Conflict

if TYPE_CHECKING:
    from athena.evalpack import EvalPack, PackInfo
    from athena.protocol import ScoreSheet

app = typer.Typer(
    name="evalpack",
    help="Make, look at and check evaluation packs: the texts that data and models are measured on.",
    no_args_is_help=True,
)
Pack = Annotated[Path, typer.Argument(help="Folder of the pack.", exists=True, file_okay=False)]


@app.command()
def build(
    texts: Annotated[
        list[Path], typer.Argument(help="Files, and folders of files: .txt, .md, .jsonl, .jsonl.gz.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the public half.")],
    sealed: Annotated[Path | None, typer.Option(help="Folder of the sealed half; <out>-sealed by default.")] = None,
    after: Annotated[
        list[Path] | None,
        typer.Option(help="A pack that this one follows, of which it takes no text; its other half may be given too."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the pack; by default of the folder.")] = None,
    active: Annotated[int | None, typer.Option(min=0, help="First block that the pack is used at.")] = None,
    expires: Annotated[int | None, typer.Option(min=1, help="First block that it is not used at any more.")] = None,
    seed: Annotated[str | None, typer.Option(help="Seed of all draws; by default a secret one.")] = None,
    min_domains: Annotated[int, typer.Option(min=1, help="Domains that the pack is to have at least.")] = 8,
    documents: Annotated[int, typer.Option(min=16, help="Documents of a domain in each half at most.")] = 512,
) -> None:
    """Make an evaluation pack of texts: a half to publish, and a half to keep sealed until the pack expires.

    Texts are cut to passages; a text's passages go to one half, and no two share 13 words in a row. A text's domain is
    the folder that it lies in, or the field `domain` of its line. Cloze items are made of the passages.

    Example: athena evalpack build texts --out web-1 --expires 5400000
    """
    import hashlib
    import secrets

    from athena.cli_output import counted, note, progress
    from athena.evalpack import INFO_FILE, load_pack
    from athena.packs.build import Plan, build_packs
    from athena.packs.sources import read_texts

    hidden = sealed or out.with_name(f"{out.name}-sealed")
    for folder in (out, hidden):
        if (folder / INFO_FILE).exists():
            raise Conflict(f"{folder} holds a pack", remedy="give another folder: packs in use never change")
    earlier = [load_pack(folder) for folder in after or []]
    secret = seed if seed is not None else secrets.token_hex(32)
    last_name, version, start = _follow(earlier, active)
    plan = Plan(
        name=name or last_name or out.resolve().name,
        seed=hashlib.sha256(secret.encode()).digest(),
        version=version,
        activation_block=start,
        expiry_block=expires,
        min_domains=min_domains,
        max_documents=documents,
    )
    read = list(counted(lambda: read_texts(texts), "reading texts"))
    with progress("cutting passages"):
        built = build_packs(read, out, hidden, plan, earlier)
    _show_domains(built.public, built.sealed)
    for reason, count in sorted(built.refused.items()):
        note(f"{count:,} passages refused: {reason}")
    for domain, count in built.left_out.items():
        note(f"domain {domain} left out: {count:,} documents are too few")
    if seed is None:
        note(f"seed {secret}: with the texts it gives the sealed half, so keep it as secret")
    typer.echo(f"{out}  {built.public.hash}")
    typer.echo(f"{hidden}  {built.sealed.hash}  keep it to yourself until the pack expires")


def _follow(earlier: Sequence[EvalPack], active: int | None) -> tuple[str | None, int, int]:
    """Name, version and first block of the pack that follows the latest of these; of a first pack without any."""
    if not earlier:
        return None, 1, active or 0
    last = max((pack.info for pack in earlier), key=lambda info: info.version)
    start = active if active is not None else last.expiry_block
    if start is None:
        raise BadInput("the earlier pack does not say when it expires", remedy="give --active")
    return last.name, last.version + 1, start


@app.command()
def show(
    folder: Pack,
    block: Annotated[int | None, typer.Option(min=0, help="Tell which pack is in use at this block.")] = None,
) -> None:
    """Show the domains of a pack, or the packs of a folder in the order in which they come into use.

    Example: athena evalpack show web-1
    """
    from athena.cli_output import cell, print_table, table_of
    from athena.evalpack import PackShelf, current, load_pack

    infos = PackShelf(folder).infos()
    chosen = current(infos.values(), block) if block is not None else None
    if list(infos) == [folder]:
        _show_domains(load_pack(folder))
        typer.echo(_line(infos[folder]))
        return
    table = table_of("folder", "name", "version", "half", "from", "until", "documents", "cloze", "hash", "in use")
    for path, info in sorted(infos.items(), key=lambda entry: (entry[1].activation_block, entry[1].version)):
        row = (
            path.name, info.name, info.version, info.half, info.activation_block, info.expiry_block, info.documents,
            info.cloze, info.digest(), info == chosen if chosen is not None else None,
        )  # fmt: skip
        table.add_row(*map(cell, row))
    print_table(table)


@app.command()
def verify(
    folder: Pack,
    sealed: Annotated[
        Path | None, typer.Option(help="The half that was sealed, now revealed.", exists=True, file_okay=False)
    ] = None,
) -> None:
    """Check every byte of a pack, and that its sealed half is the one that was promised and quotes none of it.

    Example: athena evalpack verify web-1 --sealed web-1-sealed
    """
    from athena.evalpack import check_revealed, load_pack
    from athena.packs.passages import shared_runs

    pack = load_pack(folder)
    typer.echo(_line(pack.info))
    if sealed is None:
        return
    hidden = load_pack(sealed)
    check_revealed(pack, hidden)
    quoted = shared_runs((d.text for d in pack.documents), (d.text for d in hidden.documents))
    if quoted:
        raise BadInput(f"the halves share {quoted} runs of 13 words", remedy="do not trust the sealed half")
    typer.echo(f"the sealed half is the promised one: {hidden.info.documents:,} documents that quote no public one")


@app.command()
def tasks(
    folder: Pack,
    out: Annotated[Path, typer.Option(help="Folder of the tasks; moved, it is to be made anew.")],
    per_domain: Annotated[
        int | None, typer.Option(min=1, help="Only the documents that releases are measured on, so many a domain.")
    ] = None,
) -> None:
    """Write a pack as local tasks of lm-eval, and say how to run them.

    Example: athena evalpack tasks web-1 --out lm-eval-tasks
    """
    from athena.evalpack import load_pack
    from athena.packs.lm_eval_tasks import write_tasks

    group = write_tasks(load_pack(folder), out, per_domain)
    typer.echo(f"lm_eval --model hf --model_args pretrained=MODEL --include_path {out} --tasks {group}")


@app.command()
def alarm(
    public: Annotated[
        Path, typer.Argument(help="Score sheets on the public half, one a line.", exists=True, dir_okay=False)
    ],
    sealed: Annotated[
        Path, typer.Argument(help="Of the same datasets on the sealed half.", exists=True, dir_okay=False)
    ],
) -> None:
    """Say who gains on the public half of a pack more than on its sealed half; exit code 1 if somebody does.

    Then the pack is to be retired. Give all sheets, not only those of whom you suspect.

    Example: athena evalpack alarm public-sheets.jsonl sealed-sheets.jsonl
    """
    from athena.cli_output import cell, print_table, table_of
    from athena.judge.overfitting import MIN_PAIRS, excesses, paired
    from athena.judge.rules import rules_of

    sheets = [*_sheets(public)], [*_sheets(sealed)]
    versions = {sheet.rule_version for half in sheets for sheet in half}
    found = excesses(paired(*sheets))
    if len(versions) != 1 or not found:
        raise BadInput(
            f"{len(versions)} rule versions, {len(found)} hotkeys that can be told of",
            remedy=f"give sheets of one rule version, of {MIN_PAIRS} datasets of a hotkey on both halves",
        )
    rules = rules_of(versions.pop()).pay
    table = table_of("hotkey", "datasets", "more on the public half", "at least", "overfits")
    for excess in found:
        row = (excess.hotkey, excess.pairs, f"{excess.mean:+.4f}", f"{excess.low:+.4f}", excess.overfits(rules))
        table.add_row(*map(cell, row))
    print_table(table)
    if any(excess.overfits(rules) for excess in found):
        typer.echo("the pack is to be retired: gains on its public half are not gains on texts that nobody could see")
        raise typer.Exit(1)


def _sheets(path: Path) -> Iterator[ScoreSheet]:
    """Score sheets, with or without their signatures, which `athena score verify` checks."""
    from pydantic import TypeAdapter, ValidationError

    from athena.protocol import ScoreSheet, SignedSheet

    either: TypeAdapter[ScoreSheet | SignedSheet] = TypeAdapter(ScoreSheet | SignedSheet)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                found = either.validate_json(line)
            except ValidationError as error:
                raise BadInput(f"{path}, line {number} is not a score sheet: {error}") from error
            yield found.sheet if isinstance(found, SignedSheet) else found


def _line(info: PackInfo) -> str:
    from athena.client_http import printable

    until = f"before block {info.expiry_block:,}" if info.expiry_block is not None else "until further notice"
    promised = f", sealed half {info.sealed}" if info.sealed is not None else ""
    return (
        f"{printable(info.name)} {info.version}, {info.half}, from block {info.activation_block:,} on {until}: "
        f"{info.digest()}{promised}"
    )


def _show_domains(*packs: EvalPack) -> None:
    from athena.cli_output import cell, print_table, table_of

    table = table_of(
        "domain", *(f"{p.info.half} {column}" for p in packs for column in ("documents", "bytes", "cloze"))
    )
    for domain in packs[0].by_domain:
        row: list[object] = [domain]
        for pack in packs:
            documents = pack.by_domain[domain]
            size = sum(len(document.text.encode()) for document in documents)
            row += [f"{len(documents):,}", f"{size:,}", f"{len(pack.cloze_by_domain.get(domain, ())):,}"]
        table.add_row(*map(cell, row))
    print_table(table)
