"""One task server as `bench_server.py` measures it: `bench_served.py DATABASE_URL WALLETS MEMBERS`.

Its members come from a file of hotkeys, one a line, each its own coldkey, and its chain stands still. Beside the API it
has a claim that leases nothing: authenticated, parsed and signed as a claim is, its nonce spent as durably. Prints its
port.
"""

# Annotations are evaluated, not postponed: the route's dependency on the gate is built at run time.
import asyncio
import sys
from pathlib import Path
from typing import Annotated

from bench_load import NOOP
from fastapi import APIRouter, Depends, FastAPI, Response

from athena.chain.auth import ReplySigner
from athena.chain.client import Head, Neuron
from athena.chain.wallets import open_wallet
from athena.errors import Forbidden
from athena.events import EventLog
from athena.wire import ClaimRequest, Leases
from task_server.app import create_app
from task_server.identity import Gate
from task_server.limiting import Limits
from task_server.serving import AnnouncingServer, listen
from task_server.settings import TaskServerSettings
from task_server.store import Store, open_store
from task_server.transaction import Reply, Write, spend

HEAD = Head(100, "0x" + "11" * 32)
UNLIMITED = 10**9  # requests per minute


class Members:
    """A Membership without a chain."""

    def __init__(self, file: Path) -> None:
        self._neurons = {
            hotkey: Neuron(uid, hotkey, hotkey, 0.0, False, 0.0, 1, 1)
            for uid, hotkey in enumerate(file.read_text().split())
        }

    def head(self) -> Head:
        return HEAD

    def member(self, hotkey: str) -> Neuron:
        if hotkey not in self._neurons:
            raise Forbidden(f"hotkey {hotkey} is not a member")
        return self._neurons[hotkey]

    def age_seconds(self) -> float:
        return 0.0


def add_noop(app: FastAPI, gate: Gate, store: Store) -> None:
    nothing = Reply(Leases, Leases(leases=()).model_dump_json())
    router = APIRouter()

    @router.post(NOOP)
    async def noop(write: Annotated[Write, Depends(gate)], body: ClaimRequest) -> Response:
        reply = await asyncio.wrap_future(store.submit(lambda tx: nothing, first=spend(write)))
        return Response(reply.json, media_type="application/json")

    app.include_router(router)
    app.router.routes.insert(0, app.router.routes.pop())  # found at once, as a claim's route is


def main(database_url: str, wallets: Path, members: Members) -> None:
    settings = TaskServerSettings(
        database=database_url, writes_per_minute=UNLIMITED, requests_per_minute=UNLIMITED, network="none"
    )
    signer = ReplySigner(open_wallet("server", path=wallets))
    store = open_store(settings.database_url)
    app = create_app(settings, store, members, signer)
    limits = Limits(settings.requests_per_minute, settings.writes_per_minute)
    add_noop(app, Gate(signer.hotkey, members, limits), store)
    listener = listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    try:
        AnnouncingServer(app, EventLog(None)).run(sockets=[listener])
    finally:
        store.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Members(Path(sys.argv[3])))
