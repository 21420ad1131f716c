"""Checking what a validator published: `athena score verify`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from athena.chain.client import Chain
from athena.chain.wallets import verify
from athena.client import LedgerClient
from athena.crawl import Manners, open_crawl
from athena.errors import AthenaError, BadInput, NotFound, TooLarge, Unauthorized, Unavailable
from athena.evalpack import load_pack
from athena.events import EventLog
from athena.hub import Hub, open_hub
from athena.judge.assess import Bench, assess, dataset_folder
from athena.judge.evidence import Rival
from athena.judge.known import open_known
from athena.judge.proxy.arms import ProxyWorkers, devices_here
from athena.judge.rules import Rules, rules_of
from athena.judge.verification import Difference, basis_of, case_of, compared, recomputed
from athena.localnet.trial import NOBODY
from athena.protocol import ScoreSheet, SignedSheet
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE
from athena.wire import OptOut

MAX_SHEET_FILE_BYTES = 1 << 30
_QUERY_SECONDS = 15.0  # of retries: somebody waits for the answer


@dataclass(frozen=True)
class Data:
    """What a sheet's judgement is repeated on: the miner's hub, the crawl, and the evaluation pack that it names.

    `server` gives the domains that had to be left out; without one, nothing had to. `known_releases` are the filters
    of releases that its validator used.
    """

    hub: str
    crawl_url: str
    eval_pack: Path
    server: str = ""
    known_releases: tuple[Path, ...] = ()


def read_sheets(file: Path) -> Iterator[SignedSheet]:
    """The signed sheets in a file, one JSON object a line or one in all. Raises NotFound, TooLarge and BadInput."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error
    if size > MAX_SHEET_FILE_BYTES:
        raise TooLarge(f"{file} is over {MAX_SHEET_FILE_BYTES} bytes")
    content = file.read_bytes()
    try:
        yield SignedSheet.model_validate_json(content)
    except ValidationError:
        lines = [line for line in content.splitlines() if line.strip()]
        if len(lines) < 2:
            raise BadInput(f"{file} holds no signed score sheet") from None
        for number, line in enumerate(lines, 1):
            try:
                yield SignedSheet.model_validate_json(line)
            except ValidationError as error:
                raise BadInput(f"line {number} of {file} is no signed score sheet") from error


def differences(signed: SignedSheet) -> list[Difference]:
    """What is wrong with a sheet by itself: its signature, and what does not follow from the rest of it.

    Raises NotFound for a rule version that is not known here, and BadInput for a sheet that does not say what it rests
    on.
    """
    sheet = signed.sheet
    rules = rules_of(sheet.rule_version)
    try:
        verify(sheet.validator, sheet.canonical(), signed.signature)
    except Unauthorized as error:
        return [Difference("signature", f"by {sheet.validator}", error.message)]
    return recomputed(sheet, rules)


def unlike_chain(sheet: ScoreSheet, network: str) -> list[Difference]:
    """Whether the draws came from the block that the sheet names. Raises NotFound for one that is not final yet, and
    Unavailable and Misconfigured as the chain does."""
    with closing(Chain(network, netuid=0)) as chain:
        found = chain.head(sheet.seed_block).hash
    stated = basis_of(sheet).block_hash
    return [] if stated == found else [Difference(f"hash of block {sheet.seed_block}", stated, found)]


def judged_again(sheet: ScoreSheet, data: Data, console: Console) -> list[Difference]:
    """Judges the same commitment with the same draws, and says where the outcome differs.

    Arms are trained where the sheet has some. Raises BadInput for another pack than the sheet's, and Unavailable where
    this machine, the hub or the crawl could not tell.
    """
    pack = load_pack(data.eval_pack)
    if pack.hash != sheet.eval_pack:
        raise BadInput(f"the sheet was made with pack {sheet.eval_pack[:16]}…, not {pack.hash[:16]}…")
    rules = rules_of(sheet.rule_version)
    with tempfile.TemporaryDirectory(prefix="athena-verify-") as name:
        hub, workdir = open_hub(data.hub), Path(name)
        rivals = list(_rivals(sheet, hub, workdir, rules, console))
        with ProxyWorkers(devices=devices_here()) if sheet.arms else nullcontext() as workers:
            bench = Bench(
                hub=hub, crawl=open_crawl(data.crawl_url, Manners()), pack=pack, rules=rules, validator=NOBODY,
                workdir=workdir, events=EventLog(None), workers=workers,
                opt_outs=partial(_opt_outs, data.server), known=tuple(map(open_known, data.known_releases)),
            )  # fmt: skip
            with console.status("judging again"):
                found = assess(case_of(sheet, rivals), bench)
    last = found.gates[-1]
    if found.outcome == "none" and sheet.outcome != "none":
        raise Unavailable(f"could not be judged here: {last.gate}: {last.reason}", remedy="try again")
    return compared(sheet, found)


def _opt_outs(server: str) -> tuple[OptOut, ...]:
    if not server:
        return ()
    with LedgerClient(server, None, retry_seconds=_QUERY_SECONDS) as client:
        return client.opt_outs()


def _rivals(sheet: ScoreSheet, hub: Hub, workdir: Path, rules: Rules, console: Console) -> Iterator[Rival]:
    """The earlier datasets that the sheet names, fetched; those that are gone are said."""
    basis = basis_of(sheet)
    if basis.num_rivals > len(basis.rivals):
        console.print(
            f"held against {len(basis.rivals)} of {basis.num_rivals} earlier datasets: the sheet names no more"
        )
    for ref in basis.rivals:
        commitment = ref.commitment
        folder = dataset_folder(workdir, commitment)
        try:
            hub.fetch(
                commitment.dataset.repository, commitment.dataset.revision, folder,
                max_bytes=rules.gates.max_dataset_bytes, suffixes=(DATA_FILE, MANIFEST_FILE),
            )  # fmt: skip
        except AthenaError as error:
            console.print(f"not held against {commitment.dataset}: {error.message}", markup=False)
            continue
        yield Rival(folder, commitment.hotkey, ref.commit_block, commitment.task_id, commitment)
