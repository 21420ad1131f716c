"""A task server process whose members come from a JSON file, coldkeys by hotkey: `served.py MEMBERS`.

Settings as usual, the wallet too: from the environment.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from athena.chain.auth import ReplySigner
from athena.chain.client import Head, Neuron
from athena.chain.wallets import open_wallet
from athena.errors import Forbidden
from athena.events import EventLog
from task_server.app import create_app
from task_server.serving import AnnouncingServer, listen
from task_server.settings import TaskServerSettings
from task_server.store import open_store


class Members:
    """A Membership that stands at block 100."""

    def __init__(self, path: Path) -> None:
        coldkeys = json.loads(path.read_text())
        self._neurons = {hotkey: Neuron(0, hotkey, cold, 0.0, False, 0.0, 1, 1) for hotkey, cold in coldkeys.items()}

    def head(self) -> Head:
        return Head(100, "0x" + "11" * 32)

    def member(self, hotkey: str) -> Neuron:
        if hotkey not in self._neurons:
            raise Forbidden("not registered")
        return self._neurons[hotkey]

    def age_seconds(self) -> float:
        return 0.0


settings = TaskServerSettings()
events = EventLog(settings.events)
signer = ReplySigner(open_wallet(settings.wallet, settings.hotkey, settings.wallet_path))
with closing(open_store(settings.database_url, events=events)) as store:
    app = create_app(settings, store, Members(Path(sys.argv[1])), signer)
    AnnouncingServer(app, events).run(sockets=[listen(settings.host, settings.port)])
