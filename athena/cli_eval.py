"""The console command `athena eval`: everything that is measured of a model, and whether it is worse than another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from athena.errors import BadInput

if TYPE_CHECKING:
    from athena.evalpack import EvalPack
    from athena.evaluation import Evaluation
    from athena.evaluations.canaries import CanaryPlan
    from athena.evaluations.subject import ModelFiles, Subject, TrainingTexts
    from athena.regression import Regression


def eval(
    model: Annotated[
        Path,
        typer.Argument(help="Folder of a release or a checkpoint; athena download fetches one.", file_okay=False),
    ],
    pack: Annotated[Path, typer.Option(help="Folder of the evaluation pack.")] = Path("~/.athena/eval-pack"),
    suite: Annotated[
        list[str] | None, typer.Option(help="A suite beside bits per byte; may be given again. By default all.")
    ] = None,
    only_ruler: Annotated[bool, typer.Option("--only-ruler", help="Bits per byte and no suite.")] = False,
    per_domain: Annotated[int, typer.Option(min=1, max=4096, help="Documents of each domain.")] = 64,
    window: Annotated[int | None, typer.Option(min=2, help="Tokens at a time; by default the model's context.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the tokenizer, where it is not the model's.", file_okay=False)
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Release, folder or file with the evaluation of the model before it.")
    ] = None,
    mixture: Annotated[
        Path | None, typer.Option(help="Folder of the training texts, to look for what the model remembers of them.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Items of each of lm-eval's own tasks.")] = 200,
    out: Annotated[Path, typer.Option(help="Folder of evaluation.json and report.html.")] = Path("evaluation"),
    json: Annotated[bool, typer.Option("--json", help="Print the evaluation as JSON.")] = False,
) -> None:
    """Measure a model: bits per byte by domain, cloze, bias, generation, toxicity, memorisation, speed, lm-eval.

    Writes evaluation.json and report.html; the same command goes on where it was interrupted. With --against it says
    whether the model is worse than another on the same documents, and exits with 1 unless it is better.

    Example: athena eval demo-out/release --pack demo-out/run/eval-pack --against releases/0.1.0
    """
    from athena.cli_output import json_line, note, progress
    from athena.evalpack import load_pack
    from athena.evaluation import SUITES, known_suites, read_evaluation
    from athena.evaluations.report import write_report
    from athena.evaluations.subject import ModelFiles
    from athena.regression import compare

    if only_ruler and suite:
        raise BadInput("--only-ruler and --suite exclude each other", remedy="give one of them")
    names = () if only_ruler else known_suites(suite or SUITES)
    before = read_evaluation(against) if against is not None else None
    training, canaries = (None, None) if mixture is None else _trained_on(mixture)
    subject = _subject(
        ModelFiles(_checked_folder(model), tokenizer or model),
        load_pack(pack.expanduser()),
        per_domain=per_domain,
        window=window,
        training=training,
        canaries=canaries,
        limit=limit,
    )
    with progress("measuring", every=1) as step:
        found = _measured(subject, names, out, lambda done: step(done, len(names) + 1))
    regression = compare(before, found) if before is not None else None
    write_report(out / "report.html", str(model), found, regression)
    if json:
        typer.echo(json_line(found))
    else:
        _show(found, regression)
    note(f"{out / 'evaluation.json'}, {out / 'report.html'}")
    if regression is not None and regression.needs_approval:
        raise typer.Exit(1)


def _checked_folder(folder: Path) -> Path:
    """The folder, verified where it is a release."""
    from athena.release import MANIFEST, verify_release

    if (folder / MANIFEST).exists():
        from athena.chain.wallets import verify  # seconds of import

        verify_release(folder, verify)
    return folder


def _subject(files: ModelFiles, pack: EvalPack, *, window: int | None, **asked: Any) -> Subject:
    """The model, loaded onto the accelerator where there is one."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from athena.evaluate import load_folder
    from athena.evaluations.subject import Subject

    disable_progress_bar()
    model, tokenizer = load_folder(files.folder, files.tokenizer)
    window = window or model.config.max_position_embeddings
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Subject(model, tokenizer, pack, window=window, files=files, **asked)


def _trained_on(mixture: Path) -> tuple[TrainingTexts, CanaryPlan | None]:
    """A mixture's texts, and which canaries are among them."""
    from athena.evaluations.subject import TrainingTexts
    from athena.train.gather import load_mixture, read_documents

    info = load_mixture(mixture)
    texts = TrainingTexts(info.digest(), lambda: (document["text"] for document in read_documents(mixture)))
    return texts, info.rules.canaries


def _measured(subject: Subject, names: tuple[str, ...], out: Path, done: Callable[[int], None]) -> Evaluation:
    """Measures what is not in `out` yet; evaluation.json there grows with every suite."""
    from athena.durable import write_file
    from athena.evaluations.suites import measuring

    begun = _begun(subject, out)
    evaluation = begun
    for number, evaluation in enumerate(measuring(subject, names, begun), 1):
        write_file(out / "evaluation.json", evaluation.canonical())
        done(number)
    if evaluation is None:
        raise AssertionError("the ruler always reads first")
    return evaluation


def _begun(subject: Subject, out: Path) -> Evaluation | None:
    """What an earlier call left in `out` of the very same measurement; of another one nothing stays there."""
    from athena.durable import write_file
    from athena.evaluation import read_evaluation

    asked, result = out / "asked.sha256", out / "evaluation.json"
    identity = subject.identity.encode()
    if asked.is_file() and asked.read_bytes() == identity:
        return read_evaluation(result) if result.exists() else None
    result.unlink(missing_ok=True)
    write_file(asked, identity)
    return None


def _show(evaluation: Evaluation, regression: Regression | None) -> None:
    from athena.cli_output import cell, note, print_table, table_of
    from athena.client_http import printable
    from athena.evaluation import RULER, domain_metric
    from athena.evaluations.table import better, interval_of, shown

    table = table_of("measure", "value", "95 % interval", "better")
    ruler = {f"{RULER}/{domain}": domain_metric(score) for domain, score in evaluation.domains.items()}
    for name, metric in (evaluation.metrics | ruler).items():
        table.add_row(*map(cell, (name, shown(metric), interval_of(metric), better(metric))))
    print_table(table)
    for suite, result in evaluation.suites.items():
        if result.not_run is not None:
            note(f"{suite} did not run: {result.not_run}")
    if regression is not None:
        typer.echo(f"against the model before it: {regression.verdict}")
        for reason in regression.reasons:
            typer.echo(f"  {printable(reason)}")
