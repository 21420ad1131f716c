"""A task server process whose members come from a JSON file: `served.py RECEIVER MEMBERS`. Settings as usual."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from athena.chain.client import Head, Neuron
from athena.errors import Forbidden
from athena.events import EventLog
from task_server.__main__ import AnnouncingServer, listen
from task_server.app import create_app
from task_server.database import Database
from task_server.identity import Gate, MemberNonces
from task_server.ledger import Ledger
from task_server.settings import TaskServerSettings
from task_server.stats import Records


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


receiver, members = sys.argv[1], Members(Path(sys.argv[2]))
settings = TaskServerSettings()
database = Database(settings.database_url)
events = EventLog(settings.events)
ledger = Ledger(database, settings, events=events)
gate = Gate(receiver, members, MemberNonces(database, members))
app = create_app(settings, ledger, Records(database), members, gate, receiver)
AnnouncingServer(app, events).run(sockets=[listen(settings.host, settings.port)])
