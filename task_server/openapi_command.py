"""`athena server openapi`: what the HTTP API looks like, told without a server, a database, a chain or a wallet."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from pathlib import Path

import typer

from athena.chain.auth import ReplySigner
from athena.chain.client import Chain
from athena.chain.wallets import open_wallet
from athena.settings import parse_settings
from task_server.app import create_app
from task_server.membership import ChainMembership
from task_server.settings import TaskServerSettings
from task_server.store import open_store


def openapi() -> None:
    """Print the OpenAPI document of the HTTP API, from which clients in any language are generated."""
    settings = parse_settings(TaskServerSettings, "athena server openapi", [])
    # A ledger and a key that are gone afterwards, and a chain that nobody asks: the document tells of none of them.
    with tempfile.TemporaryDirectory(prefix="athena-openapi-") as folder:
        signer = ReplySigner(open_wallet("openapi", path=Path(folder), create=True))
        store = open_store(f"sqlite:///{folder}/ledger.sqlite")
        with closing(store), closing(Chain(settings.network, settings.netuid)) as chain:
            app = create_app(settings, store, ChainMembership(chain, settings.membership_age_seconds), signer)
            typer.echo(json.dumps(app.openapi(), indent=2, ensure_ascii=False))
