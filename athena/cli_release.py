"""The console commands `athena release …`: from a finished run to a model that people download, and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from athena.registry import Registry, SignedEntry, Standing
    from athena.releases import Places, Releases

HOME = Path("~/.athena/trainer/releases")
Name = Annotated[str, typer.Argument(help="Name of the model, such as athena.")]
Version = Annotated[str, typer.Argument(help="Version, such as 0.2.0.")]
Reason = Annotated[str, typer.Option(help="Why, in one line: it is signed and published.")]

app = typer.Typer(
    name="release",
    help="Cut, approve, publish, alias, roll back and yank releases of a model. Each step is signed by your hotkey and "
    "written to the model's journal, which the hub, the task server and the chain are told of. The options below stand "
    "before the command, or in the environment; they are named as a trainer's are.",
    no_args_is_help=True,
    add_completion=False,
)


@dataclass(frozen=True)
class _Desk:
    """Who acts, where the releases lie, and who is told."""

    folder: Path
    wallet: str
    hotkey: str
    wallet_path: Path
    hub: str
    namespace: str
    task_server: str
    network: str
    netuid: int

    def releases(self, name: str) -> Releases:
        from athena.chain.wallets import hotkey_of, open_wallet, sign, verify
        from athena.journal import Signer
        from athena.releases import Releases

        wallet = open_wallet(self.wallet, self.hotkey, self.wallet_path.expanduser())
        signer = Signer(hotkey_of(wallet), lambda message: sign(wallet, message))
        return Releases(self.folder.expanduser(), name, verify, signer)

    def places(self) -> Places:
        from athena.chain.client import Chain
        from athena.chain.wallets import open_wallet
        from athena.client import LedgerClient
        from athena.hub import open_hub
        from athena.releases import Places

        wallet = open_wallet(self.wallet, self.hotkey, self.wallet_path.expanduser())
        return Places(
            open_hub(self.hub, kind="model"),
            self.namespace,
            LedgerClient(self.task_server, wallet) if self.task_server else None,
            Chain(self.network, self.netuid, wallet) if self.network else None,
        )


@app.callback()
def desk(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Option(envvar="ATHENA_RELEASES", help="Folder of the releases and their journals.")
    ] = HOME,
    wallet: Annotated[str, typer.Option(envvar="ATHENA_WALLET", help="Wallet of the model's owner.")] = "athena",
    hotkey: Annotated[str, typer.Option(envvar="ATHENA_HOTKEY", help="Hotkey inside the wallet.")] = "default",
    wallet_path: Annotated[Path, typer.Option(envvar="ATHENA_WALLET_PATH", help="Folder of the wallets.")] = Path(
        "~/.bittensor/wallets"
    ),
    hub: Annotated[
        str, typer.Option(envvar="ATHENA_HUB", help="Where releases are published: hf:// or file:///folder.")
    ] = "hf://",
    namespace: Annotated[
        str, typer.Option(envvar="ATHENA_NAMESPACE", help="Hub user or organisation to publish under.")
    ] = "athena-network",
    task_server: Annotated[
        str, typer.Option(envvar="ATHENA_TASK_SERVER", help="Task server to tell; none by default.")
    ] = "",
    network: Annotated[
        str, typer.Option(envvar="ATHENA_NETWORK", help="Chain to commit the journal's head on; none by default.")
    ] = "",
    netuid: Annotated[int, typer.Option(envvar="ATHENA_NETUID", help="Subnet number on that chain.")] = 1,
) -> None:
    context.obj = _Desk(folder, wallet, hotkey, wallet_path, hub, namespace, task_server, network, netuid)


@app.command()
def cut(
    context: typer.Context,
    name: Name,
    version: Version,
    run: Annotated[Path, typer.Option(help="Folder of a finished run: the one that holds trained.json.", exists=True)],
) -> None:
    """Make a signed release of a run's model and hold it against the release before it. Nothing is published.

    One that is better only waits for `approve`; one that is not, takes a reason there.

    Example: athena release cut athena 0.2.0 --run ~/.athena/trainer/run-0.2.0
    """
    from athena.train.trained import read_trained

    at: _Desk = context.obj
    releases = at.releases(name)
    _, standing = releases.cut(read_trained(run), version, at.places())
    _say(name, standing)
    typer.echo(f"  {releases.folder_of(version)}")


@app.command()
def calibrate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", exists=True)],
    eval_pack: Annotated[Path, typer.Option(help="Folder of the evaluation pack.", exists=True)],
    mixture: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a mixture that the run read, by default its own; repeatable.", exists=True),
    ] = None,
    rules: Annotated[str, typer.Option(help="Rule version whose proxy is trained: 1, or demo-1.")] = "1",
    seeds: Annotated[int, typer.Option(min=2, help="Proxies of each mixture.")] = 3,
    processes: Annotated[int, typer.Option(min=1, help="Proxies trained at a time.")] = 1,
) -> None:
    """Leave each miner out of what a run read, and compare what that costs with the validators' forecasts.

    The trainer does so after each branch. What is found lies in the run's folder as calibration.json and is part of the
    release that is cut of it afterwards. Goes on where it was interrupted.

    Example: athena release calibrate ~/.athena/trainer/branches/athena-0000800 --eval-pack ~/.athena/eval-pack
    """
    from dataclasses import replace

    from athena.cli_output import progress
    from athena.durable import write_file
    from athena.evalpack import load_pack
    from athena.judge.proxy.arms import ProxyWorkers, devices_here
    from athena.judge.rules import rules_of
    from athena.train.calibrate import AblationPlan
    from athena.train.trained import CALIBRATION, read_trained, save_trained
    from athena.train.worker import mixtures_of

    trained = read_trained(run)
    mixtures = tuple(mixture or mixtures_of(run))
    plan = AblationPlan(mixtures, load_pack(eval_pack), rules_of(rules), run / "ablation", seeds)
    with ProxyWorkers(processes, devices_here()) as workers, progress("training arms", every=1) as step:
        found = plan.measure(workers, step)
    write_file(run / CALIBRATION, found.canonical())
    save_trained(replace(trained, calibration=run / CALIBRATION), run)
    for miner in found.miners:
        foreseen = "no forecast" if miner.forecast is None else f"forecast {miner.forecast:+.4f}"
        typer.echo(f"{miner.hotkey}: effect {miner.effect:+.4f} ± {miner.error:.4f}, {foreseen}")
    if found.accuracy is not None:
        typer.echo(f"{found.accuracy:.0%} of {found.pairs} pairs in the order of the forecasts")


@app.command()
def approve(context: typer.Context, name: Name, version: Version, reason: Reason = "") -> None:
    """Let a candidate be published. One that is not better than the release before it takes a --reason.

    Example: athena release approve athena 0.2.0 --reason "news lost 1.2 %, code gained 9 %"
    """
    at: _Desk = context.obj
    _say(name, at.releases(name).approve(version, reason))


@app.command()
def publish(context: typer.Context, name: Name, version: Version) -> None:
    """Publish an approved release, and tell everyone. The same command again goes on where it stopped.

    Example: athena release --network finney --netuid 63 publish athena 0.2.0
    """
    at: _Desk = context.obj
    _say(name, at.releases(name).publish(version, at.places()))


@app.command()
def alias(
    context: typer.Context,
    name: Name,
    version: Version,
    alias: Annotated[str, typer.Option("--as", help="stable, canary, or another name; latest follows by itself.")],
) -> None:
    """Make an alias name a released version.

    Example: athena release alias athena 0.2.0 --as canary
    """
    at: _Desk = context.obj
    _say(name, at.releases(name).point(alias, version, at.places()))


@app.command()
def rollback(
    context: typer.Context,
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias.")] = "stable",
    to: Annotated[str | None, typer.Option(help="Version; by default the one that the alias named before.")] = None,
    reason: Reason = "",
) -> None:
    """Make an alias name the version that it named before.

    Example: athena release rollback athena stable --reason "loops on code"
    """
    at: _Desk = context.obj
    _say(name, at.releases(name).roll_back(alias, at.places(), to=to, reason=reason))


@app.command()
def yank(context: typer.Context, name: Name, version: Version, reason: Reason) -> None:
    """Take a release back for good. Aliases fall back to what they named before, and downloads refuse it.

    Example: athena release yank athena 0.2.0 --reason "holds pages of a domain that opted out"
    """
    at: _Desk = context.obj
    _say(name, at.releases(name).yank(version, reason, at.places()))


class _Kind(StrEnum):
    GGUF = "gguf"
    INT8 = "int8"


@app.command()
def sibling(
    context: typer.Context,
    name: Name,
    version: Version,
    kind: Annotated[_Kind, typer.Option(help="gguf: files in float32 and Q8_0. int8: for transformers and vLLM.")],
    eval_pack: Annotated[
        Path, typer.Option(help="Folder of the evaluation pack that the release was measured with.", exists=True)
    ],
) -> None:
    """Make another form of a released model, measure what it lost, and publish it beside the release.

    Example: athena release sibling athena 0.2.0 --kind gguf --eval-pack ~/.athena/eval-pack
    """
    from athena.evalpack import load_pack

    at: _Desk = context.obj
    signed = at.releases(name).add_sibling(version, kind.value, load_pack(eval_pack), at.places())
    for variant, lost in signed.sibling.losses.items():
        typer.echo(f"{name} {version} {variant}: {lost:+.5f} bits per byte")


@app.command("list")
def list_releases(
    context: typer.Context,
    name: Name,
    published: Annotated[bool, typer.Option(help="Read the published journal: needs no wallet.")] = False,
    journal: Annotated[bool, typer.Option(help="Who did what and when, instead of where each version stands.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Show every version of a model with its state and aliases, or all that was done.

    Example: athena release list athena --published --journal
    """
    from athena.chain.wallets import verify
    from athena.hub import open_hub
    from athena.journal import Journal
    from athena.registry import replay
    from athena.release_hub import fetch_journal

    at: _Desk = context.obj
    if published:
        entries = fetch_journal(open_hub(at.hub, kind="model"), f"{at.namespace}/{name}")
    else:
        entries = Journal(at.folder.expanduser() / name, name, verify).entries()
    registry = replay(name, entries, verify)
    if journal:
        _show_entries(entries, as_json)
    else:
        _show_standings(registry, as_json)


def _show_entries(entries: list[SignedEntry], as_json: bool) -> None:
    from athena.cli_output import show

    show(
        (signed.entry for signed in entries),
        {
            "number": lambda entry: entry.number,
            "at": lambda entry: entry.at,
            "by": lambda entry: entry.by,
            "action": lambda entry: entry.action,
            "version": lambda entry: entry.version,
            "what": lambda entry: entry.alias or entry.gate or entry.location,
            "reason": lambda entry: entry.reason or None,
        },
        as_json=as_json,
    )


def _show_standings(registry: Registry, as_json: bool) -> None:
    from athena.cli_output import show

    aliases = registry.aliases
    standings = sorted(registry.standings.values(), key=lambda standing: standing.key, reverse=True)
    show(
        standings,
        {
            "version": lambda standing: standing.version,
            "state": lambda standing: standing.state,
            "aliases": lambda standing: ", ".join(a for a, named in aliases.items() if named == standing.version),
            "gate": lambda standing: standing.gate,
            "changed": lambda standing: standing.changed_at,
            "where": lambda standing: standing.location,
            "release": lambda standing: standing.release[:16],
        },
        as_json=as_json,
    )


def _say(name: str, standing: Standing) -> None:
    gate = f", {standing.gate}" if standing.gate else ""
    typer.echo(f"{name} {standing.version}: {standing.state}{gate}, sha256 {standing.release[:16]}…")
