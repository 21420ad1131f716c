"""The console command that crawls one web site into a WARC file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def crawl_site(
    url: Annotated[str, typer.Argument(help="Page to start at. Only its host is crawled.")],
    out: Annotated[Path, typer.Option(help="WARC file to write, such as site.warc.gz.")],
    max_pages: Annotated[int, typer.Option(min=1, max=1_000_000, help="Stop after this many pages.")] = 1000,
    pause: Annotated[
        float, typer.Option(min=0.0, help="Seconds between two requests; robots.txt may ask for more.")
    ] = 1.0,
    contact: Annotated[
        str,
        typer.Option(envvar="ATHENA_CONTACT", help="Mail or web address that the site's operator finds in its log."),
    ] = "",
) -> None:
    """Crawl one web site politely into a WARC file: robots.txt obeyed, HTML only. Goes on where it was interrupted.

    Example: athena crawl-site https://www.example.org/ --out site.warc.gz --max-pages 500 --contact me@example.org
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from athena.refine.site.crawl import crawl_site

    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("pages", total=max_pages)
        report = crawl_site(
            url, out, max_pages=max_pages, pause_seconds=pause, contact=contact,
            progress=lambda pages: progress.update(bar, completed=pages),
        )  # fmt: skip
    for reason, count in sorted(report.refused.items(), key=lambda item: -item[1]):
        console.print(f"{count} left out: {reason}", highlight=False)
    console.print(f"{report.pages} pages in {out}", highlight=False)
