"""What hostile parties try, and the exact status and code that each gets. Nothing of it changes the ledger."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import rfc8785
from bittensor import http_auth
from bittensor.sp_core import CRYPTO_ED25519, Keypair
from sqlalchemy import select
from sqlmodel import SQLModel

from athena.chain.auth import HEADER_REPLY_SIGNATURE, HEADER_REQUEST_SIGNATURE, verify_reply
from athena.chain.wallets import Wallet, hotkey_of, sign
from athena.errors import Unauthorized
from athena.protocol import Lease, Release, SignedRelease, SignedSheet
from athena.wire import IDEMPOTENCY_KEY, Ban
from task_server.paging import PageRequest, Walk
from task_server.transaction import Asked

JSON = "application/json"
CLAIM = {"count": 1}
BAD = (422, "bad-input")
UNAUTHORIZED = (401, "unauthorized")
FORBIDDEN = (403, "forbidden")
NOT_FOUND = (404, "not-found")
CONFLICT = (409, "conflict")
SPENT = (429, "quota-spent")
SQL = "'; DROP TABLE lease; --"
# Rows that even a refused request may leave, and what time itself changes.
VOLATILE = {"nonce", "idempotency"}
_numbers = itertools.count(1)


@dataclass
class Scene:
    """A server in the midst of its work, and everybody that the attacks are about."""

    service: Any
    sheet_by: Callable[..., SignedSheet]
    submission_for: Callable[..., Any]
    lease: Lease
    """The miner's."""
    keys: dict[str, str]
    """Operators' API keys, by what they are good for."""

    def wallet(self, name: str) -> Wallet:
        return self.service.wallets(name)

    def post(self, wallet: Wallet | str, path: str, body: Any, **sent: Any) -> httpx.Response:
        """A signed POST. `sent` overrides what is signed (method, path, body, receiver_ss58, nonce_ns), or what then
        goes over the wire (to, content, headers, key)."""
        wallet = self.wallet(wallet) if isinstance(wallet, str) else wallet
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        signing = {"method": "POST", "path": path, "body": content, "receiver_ss58": self.service.receiver}
        signing |= {name: sent.pop(name) for name in list(sent) if name in (*signing, "nonce_ns")}
        headers = http_auth.sign(wallet, **signing) | {
            IDEMPOTENCY_KEY: sent.pop("key", new_key()),
            "content-type": JSON,
        }
        headers |= sent.pop("headers", {})
        return self.service.http.post(sent.pop("to", path), content=sent.pop("content", content), headers=headers)

    def operate(self, path: str, body: Any, authorization: str | None, **headers: str) -> httpx.Response:
        headers = {IDEMPOTENCY_KEY: new_key(), "content-type": JSON, **headers}
        if authorization is not None:
            headers["authorization"] = authorization
        return self.service.http.post(f"/v1/operator/{path}", content=json.dumps(body), headers=headers)

    def raw(self, *parts: bytes, pause: float = 0.0) -> httpx.Response:
        """What comes back for these bytes, sent until the server answers."""
        address = httpx.URL(self.service.url)
        received = b""
        with socket.create_connection((address.host, address.port), timeout=10) as connection:
            try:
                for part in itertools.chain(parts[:-1], itertools.repeat(parts[-1], 10_000)):
                    connection.sendall(part)
                    time.sleep(pause)
                    connection.settimeout(0.001)
                    try:
                        received = connection.recv(65_536)
                    except TimeoutError:
                        connection.settimeout(10)
                    else:
                        break
            except OSError:  # it hangs up while the client still writes
                connection.settimeout(10)
                received = connection.recv(65_536)
        head, _, content = received.partition(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        return httpx.Response(
            int(status.split()[1]), headers=[tuple(line.split(b": ", 1)) for line in headers], content=content
        )

    def ledger(self) -> dict[str, list[Any]]:
        """Everything that it holds, but what an answered request may leave behind."""
        with self.service.store.read() as session:
            return {
                table.name: [tuple(row) for row in session.connection().execute(select(table))]
                for table in SQLModel.metadata.sorted_tables
                if table.name not in VOLATILE
            }


def new_key() -> str:
    return f"key-{next(_numbers):08d}"


def release_by(wallet: Wallet, **fields: Any) -> SignedRelease:
    release = Release(
        name="athena", version="0.1.0", files=(), parameters=1, training_tokens=1, eval_pack="e" * 64,
        bits_per_byte_before={}, bits_per_byte_after={"web": 1.25}, lineage=(), trainer=hotkey_of(wallet),
    ).model_copy(update=fields)  # fmt: skip
    return SignedRelease(release=release, signature=sign(wallet, release.canonical()))


def body_of(noun: Any) -> dict[str, Any]:
    return noun.model_dump(mode="json")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def scene(request, new_ledger, new_clock, serving, sheet_by, submission_for) -> Iterator[Scene]:
    terms = {"initial_quota": 3, "min_validator_stake": 10.0, "max_body_bytes": 16_384, "body_seconds": 0.5}
    unlimited = {"writes_per_minute": 100_000, "requests_per_minute": 100_000}
    with (
        new_ledger(request.param) as url,
        serving(url, new_clock(), num_tasks=20, **terms, **unlimited) as service,
    ):
        operators = service.operators
        keys = {"tasks": operators.create_key(("tasks",), ""), "all": operators.create_key(("tasks", "bans"), "")}
        keys["revoked"] = operators.create_key(("tasks",), "")
        operators.revoke_key(keys["revoked"].split("_")[1])
        for name in ("miner", "rival", "trainer", "greedy"):
            service.wallet(name)
        service.wallet("greedy-too", coldkey="greedy")
        service.wallet("validator", permit=True, stake=1000.0)
        service.wallet("poor-validator", permit=True, stake=9.0)
        service.wallet("no-validator", stake=1000.0)
        service.wallet("miners-validator", permit=True, stake=1000.0, coldkey="miner")
        service.wallet("banned", permit=True, stake=1000.0)
        service.wallet("banned-too", coldkey="banned")
        with service.client(service.wallets("miner")) as client:
            (lease,) = client.claim()
        with service.client(service.wallets("trainer")) as client:
            client.post_release(release_by(service.wallets("trainer")))
        with service.client(service.wallets("greedy")) as client:
            for spent in client.claim(3):
                client.release(spent)
        barred = service.chain.member(hotkey_of(service.wallets("banned"))).coldkey
        operators.ban(Asked("key:1", "ban", ""), Ban(coldkey=barred, reason="sold its keys")).result()
        yield Scene(service, sheet_by, submission_for, lease, keys)


def claim(by: str = "miner", **sent: Any) -> Callable[[Scene], httpx.Response]:
    return lambda scene: scene.post(by, "/v1/leases", CLAIM, **sent)


def claim_at(seconds: float) -> Callable[[Scene], httpx.Response]:
    return lambda scene: scene.post("miner", "/v1/leases", CLAIM, nonce_ns=time.time_ns() + round(seconds * 1e9))


def replay(same_key: bool) -> Callable[[Scene], httpx.Response]:
    def attempt(scene: Scene) -> httpx.Response:
        first = scene.post("miner", "/v1/leases", CLAIM)
        assert first.status_code == 200
        key = {} if same_key else {IDEMPOTENCY_KEY: new_key()}
        sent = first.request
        return scene.service.http.post("/v1/leases", content=sent.content, headers=dict(sent.headers) | key)

    return attempt


def stolen_hotkey(scene: Scene) -> httpx.Response:
    named = {"X-Bittensor-Hotkey": hotkey_of(scene.wallet("miner"))}
    return scene.post("rival", "/v1/leases", CLAIM, headers=named)


def other_format(scene: Scene) -> httpx.Response:
    """The same key under the address format of another network."""
    public_key = bytes(scene.wallet("miner").hotkey.public_key)
    address = Keypair(public_key=public_key, ss58_format=0).ss58_address
    return scene.post("miner", "/v1/leases", CLAIM, headers={"X-Bittensor-Hotkey": address})


@dataclass
class Ed25519Wallet:
    hotkey: Keypair
    coldkey: None = None
    coldkeypub: None = None


def ed25519(scene: Scene) -> httpx.Response:
    key = Keypair.create_from_seed(b"7" * 32, crypto_type=CRYPTO_ED25519)
    return scene.post(Ed25519Wallet(key), "/v1/leases", CLAIM)


def unsigned(scene: Scene) -> httpx.Response:
    return scene.service.http.post("/v1/leases", json=CLAIM, headers={IDEMPOTENCY_KEY: new_key()})


def lease_verb(verb: str, by: str, fencing: int | None = None, lease_id: str | None = None) -> Callable[[Scene], Any]:
    def attempt(scene: Scene) -> httpx.Response:
        token = scene.lease.fencing if fencing is None else fencing
        return scene.post(by, f"/v1/leases/{lease_id or scene.lease.id}/{verb}", {"fencing": token})

    return attempt


def submit(by: str = "miner", **changes: Any) -> Callable[[Scene], httpx.Response]:
    def attempt(scene: Scene) -> httpx.Response:
        body = body_of(scene.submission_for(scene.lease))
        for path, value in changes.items():
            *parents, name = path.split("__")
            part = body
            for parent in parents:
                part = part[parent]
            part[name] = value
        return scene.post(by, "/v1/submissions", body)

    return attempt


def sheet(by: str, *, in_name_of: str | None = None, forged: dict[str, Any] | None = None, **fields: Any) -> Any:
    def attempt(scene: Scene) -> httpx.Response:
        signed = scene.sheet_by(scene.wallet(in_name_of or by), scene.lease, **fields)
        body = body_of(signed)
        body["sheet"] |= forged or {}
        return scene.post(by, "/v1/sheets", body)

    return attempt


def own_sheet(scene: Scene) -> httpx.Response:
    wallet = scene.wallet("validator")
    signed = scene.sheet_by(wallet, scene.lease, hotkey=hotkey_of(wallet))
    return scene.post("validator", "/v1/sheets", body_of(signed))


def release(by: str, in_name_of: str = "trainer", forged: dict[str, Any] | None = None, **fields: Any) -> Any:
    def attempt(scene: Scene) -> httpx.Response:
        body = body_of(release_by(scene.wallet(in_name_of), **fields))
        body["release"] |= forged or {}
        return scene.post(by, "/v1/releases", body)

    return attempt


def other_body(scene: Scene) -> httpx.Response:
    key = new_key()
    assert scene.post("miner", "/v1/leases", CLAIM, key=key).status_code == 200
    return scene.post("miner", "/v1/leases", {"count": 2}, key=key)


def operator(credentials: Callable[[Scene], str | None], path: str = "bans", **headers: str) -> Any:
    return lambda scene: scene.operate(
        path, {"coldkey": scene.lease.hotkey, "reason": "x"}, credentials(scene), **headers
    )


def member_as_operator(scene: Scene) -> httpx.Response:
    body = {"coldkey": scene.lease.hotkey, "reason": "x"}
    return scene.post("validator", "/v1/operator/bans", body)


def operators_other_body(scene: Scene) -> httpx.Response:
    key, bearer = {IDEMPOTENCY_KEY: new_key()}, f"Bearer {scene.keys['tasks']}"
    path = "tasks/{}/close"
    assert scene.operate(path.format("0" * 32), {}, bearer, **key).status_code == 404
    return scene.operate(path.format("1" * 32), {}, bearer, **key)


def get(path: str, **params: Any) -> Callable[[Scene], httpx.Response]:
    return lambda scene: scene.service.http.get(path, params=params or None)


def cursor(name: str, key: str | bytes, of: str | None = None) -> Callable[[Scene], httpx.Response]:
    """A cursor with the seal that it takes: how it is made is public."""

    def attempt(scene: Scene) -> httpx.Response:
        walk = Walk(of or name, PageRequest(), **FILTERS.get(of or name, {}))
        return scene.service.http.get(f"/v1/{name}", params={"cursor": walk._sealed(str(key))})

    return attempt


FILTERS: dict[str, dict[str, None]] = {
    "shards": {"crawl": None},
    "tasks": {"crawl": None, "open": None},
    "leases": {"hotkey": None, "task_id": None, "state": None},
}
POST_HEAD = b"POST /v1/leases HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@dataclass(frozen=True)
class Attack:
    """`says`: a part of the answer's detail, so that it is refused for the right reason."""

    name: str
    attempt: Callable[[Scene], httpx.Response]
    answer: tuple[int, str]
    says: str = ""


ATTACKS = [
    Attack("replay, same key", replay(same_key=True), UNAUTHORIZED, "sent before"),
    Attack("replay, other key", replay(same_key=False), UNAUTHORIZED, "sent before"),
    Attack("tampered body", claim(content=b'{"count": 64}'), UNAUTHORIZED, "signature"),
    Attack("other route", claim(to="/v1/submissions"), UNAUTHORIZED, "signature"),
    Attack("other query", claim(to="/v1/leases?count=64"), UNAUTHORIZED, "signature"),
    Attack("other method", claim(method="PUT"), UNAUTHORIZED, "signature"),
    Attack("other receiver", claim(receiver_ss58="5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"), UNAUTHORIZED),
    Attack("no receiver", claim(receiver_ss58=None), UNAUTHORIZED),
    Attack("stale nonce", claim_at(-60), UNAUTHORIZED),
    Attack("future nonce", claim_at(60), UNAUTHORIZED),
    Attack("huge nonce", claim(nonce_ns=2**70), UNAUTHORIZED),
    Attack("endless nonce", claim(headers={"X-Bittensor-Nonce": "9" * 5000}), UNAUTHORIZED),
    Attack("negative nonce", claim(nonce_ns=-1), UNAUTHORIZED),
    Attack("nonce that is no number", claim(headers={"X-Bittensor-Nonce": "soon"}), UNAUTHORIZED),
    Attack("other protocol version", claim(headers={"X-Bittensor-Version": "2"}), UNAUTHORIZED),
    Attack("no signature", unsigned, UNAUTHORIZED),
    Attack("empty signature", claim(headers={"X-Bittensor-Signature": ""}), UNAUTHORIZED),
    Attack("zero signature", claim(headers={"X-Bittensor-Signature": "0x" + "00" * 64}), UNAUTHORIZED),
    Attack("endless signature", claim(headers={"X-Bittensor-Signature": "0x" + "ab" * 4000}), UNAUTHORIZED),
    Attack("SQL for a hotkey", claim(headers={"X-Bittensor-Hotkey": SQL}), UNAUTHORIZED),
    Attack("stolen hotkey", stolen_hotkey, UNAUTHORIZED),
    Attack("non-canonical address", other_format, UNAUTHORIZED),
    Attack("ed25519 signature", ed25519, UNAUTHORIZED, "sr25519"),
    Attack("non-member", claim("stranger"), FORBIDDEN, "not registered"),
    Attack("banned coldkey", claim("banned"), FORBIDDEN, "sold its keys"),
    Attack("banned coldkey's other hotkey", claim("banned-too"), FORBIDDEN, "sold its keys"),
    Attack("banned coldkey as validator", sheet("banned"), FORBIDDEN, "sold its keys"),
    Attack("banned coldkey as trainer", release("banned", in_name_of="banned"), FORBIDDEN, "sold its keys"),
    Attack("score without permit", sheet("no-validator"), FORBIDDEN, "permit"),
    Attack("score below the minimum stake", sheet("poor-validator"), FORBIDDEN, "stake of 10"),
    Attack("score for one's own hotkey", own_sheet, FORBIDDEN, "their own work"),
    Attack("score for one's own coldkey", sheet("miners-validator"), FORBIDDEN, "their own work"),
    Attack("sheet in another's name", sheet("validator", in_name_of="no-validator"), FORBIDDEN, "another"),
    Attack("forged units", sheet("validator", forged={"units": 31.0}), UNAUTHORIZED, "signature"),
    Attack("forged outcome", sheet("validator", forged={"outcome": "fail"}), UNAUTHORIZED, "signature"),
    Attack("forged gates", sheet("validator", forged={"gates": [{"gate": "x", "outcome": "fail"}]}), UNAUTHORIZED),
    Attack("forged rules", sheet("validator", forged={"rule_version": "2"}), UNAUTHORIZED, "signature"),
    Attack("sheet about no task", sheet("validator", task_id="0" * 32), NOT_FOUND),
    Attack("release in another's name", release("rival"), FORBIDDEN, "another"),
    Attack("forged release", release("trainer", version="0.2.0", forged={"parameters": 2}), UNAUTHORIZED, "signature"),
    Attack("release of a version twice", release("trainer", parameters=2), CONFLICT, "another release"),
    Attack("another's lease: heartbeat", lease_verb("heartbeat", "rival"), FORBIDDEN),
    Attack("another's lease: release", lease_verb("release", "rival"), FORBIDDEN),
    Attack("another's lease: submit", submit("rival"), FORBIDDEN),
    Attack("stale fencing: heartbeat", lease_verb("heartbeat", "miner", 2**40), CONFLICT, "fencing"),
    Attack("stale fencing: release", lease_verb("release", "miner", -(2**62)), CONFLICT, "fencing"),
    Attack("stale fencing: submit", submit(fencing=7), CONFLICT, "fencing"),
    Attack("fencing beyond all integers", submit(fencing=2**200), CONFLICT, "fencing"),
    Attack("unknown lease", lease_verb("release", "miner", lease_id="0" * 32), NOT_FOUND),
    Attack("manifest of another task", submit(manifest__task_id="0" * 32), BAD, "names task"),
    Attack("manifest of another miner", submit(manifest__hotkey="5" * 48), BAD, "names hotkey"),
    Attack("manifest of other data", submit(dataset__root="c" * 64), BAD, "Merkle root"),
    Attack("manifest under other rules", submit(manifest__rule_version="2"), BAD, "rule version"),
    Attack("idempotency key reused", other_body, BAD, "another request"),
    Attack("no idempotency key", claim(headers={IDEMPOTENCY_KEY: ""}), BAD),
    Attack("short idempotency key", claim(key="short"), BAD),
    Attack("long idempotency key", claim(key="x" * 129), BAD),
    Attack("SQL for an idempotency key", claim(key=SQL), BAD),
    Attack("quota: more", claim("greedy"), SPENT, "3 leases a day"),
    Attack("quota: another hotkey of the coldkey", claim("greedy-too"), SPENT),
    Attack("quota: 65 leases", lambda scene: scene.post("rival", "/v1/leases", {"count": 65}), BAD),
    Attack("quota: no lease", lambda scene: scene.post("rival", "/v1/leases", {"count": 0}), BAD),
    Attack("operator without a key", operator(lambda _: None), UNAUTHORIZED),
    Attack("operator by a member's signature", member_as_operator, UNAUTHORIZED),
    Attack("operator with a wrong scope", operator(lambda s: f"Bearer {s.keys['tasks']}"), FORBIDDEN, "scope bans"),
    Attack("operator with a revoked key", operator(lambda s: f"Bearer {s.keys['revoked']}"), UNAUTHORIZED),
    Attack("operator with half a key", operator(lambda s: f"Bearer {s.keys['all'][:12]}"), UNAUTHORIZED),
    Attack("operator with a wrong secret", operator(lambda s: f"Bearer {s.keys['all'][:-1]}"), UNAUTHORIZED),
    Attack("operator by Basic", operator(lambda s: f"Basic {s.keys['all']}"), UNAUTHORIZED),
    Attack("operator by SQL", operator(lambda _: "Bearer ath_' OR 1=1 --_x"), UNAUTHORIZED),
    Attack(
        "operator from this machine, it says",
        operator(lambda _: None, **{"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "::1", "Forwarded": "for=localhost"}),
        UNAUTHORIZED,
    ),
    Attack(
        "operator with a key in the query", operator(lambda _: None, "bans?key=ath_x&authorization=x"), UNAUTHORIZED
    ),
    Attack("1 GB body", lambda s: s.raw(POST_HEAD + b"content-length: 1000000000\r\n\r\n", b""), (413, "too-large")),
    Attack(
        "endless body",
        lambda s: s.raw(POST_HEAD + b"transfer-encoding: chunked\r\n\r\n", b"400\r\n" + b" " * 1024 + b"\r\n"),
        (413, "too-large"),
    ),
    Attack(
        "slow body",
        lambda s: s.raw(POST_HEAD + b"content-length: 1000\r\n\r\n", b"x", pause=0.05),
        (408, "request-timeout"),
    ),
    Attack("body over the limit", claim(content=b"[" * 20_000), (413, "too-large")),
    Attack("deep JSON", lambda s: s.post("miner", "/v1/leases", b"[" * 16_000), (400, "bad-request")),
    Attack("half a JSON", lambda s: s.post("miner", "/v1/leases", b'{"count": '), BAD),
    Attack("no UTF-8", lambda s: s.post("miner", "/v1/leases", b"\xff\xfe"), BAD),
    Attack("NaN", lambda s: s.post("miner", "/v1/leases", b'{"count": NaN}'), BAD),
    Attack("NaN units", sheet("validator", forged={"units": float("nan")}), BAD),
    Attack("unknown field", lambda s: s.post("miner", "/v1/leases", {"count": 1, SQL: 1}), BAD),
    Attack("lone surrogate in a name", lambda s: s.post("miner", "/v1/leases", b'{"\\ud800": 1}'), BAD),
    Attack("NUL in a name", lambda s: s.post("miner", "/v1/leases", b'{"\\u0000": 1}'), BAD),
    Attack(
        "5,000 digits", lambda s: s.post("miner", "/v1/leases", b'{"count": %s}' % (b"9" * 5000)), (400, "bad-request")
    ),
    Attack("SQL in the path", get(f"/v1/tasks/{SQL}"), BAD),
    Attack("NUL in the path", get("/v1/tasks/%00"), BAD),
    Attack("bytes beyond UTF-8 in the path", get("/v1/tasks/%ff%fe"), BAD),
    Attack("way out of the path", get("/v1/tasks/..%2f..%2fetc%2fpasswd"), NOT_FOUND),
    Attack("SQL in the query", get("/v1/leases", hotkey="' OR 1=1 --"), BAD),
    Attack("SQL for a state", get("/v1/leases", state="' OR 1=1 --"), BAD),
    Attack("NUL in the query", get("/v1/leases", task_id="\0" * 32), BAD),
    Attack("no page", get("/v1/tasks", limit=0), BAD),
    Attack("endless page", get("/v1/tasks", limit=501), BAD),
    Attack("page of minus one", get("/v1/tasks", limit=-1), BAD),
    Attack("after beyond all integers", get("/v1/events", after=2**63), BAD),
    Attack("cursor of another list", cursor("tasks", "1", of="leases"), BAD, "another list"),
    Attack("cursor with other filters", cursor("leases", "1", of="tasks"), BAD),
    Attack("cursor that is garbage", get("/v1/tasks", cursor="%00é"), BAD),
    Attack("cursor that is empty", get("/v1/tasks", cursor=""), BAD),
    Attack("cursor that is overlong", get("/v1/tasks", cursor="A" * 121), BAD),
    Attack("cursor of SQL", get("/v1/tasks", cursor=base64.urlsafe_b64encode(SQL.encode()).decode()), BAD),
    Attack("forged cursor of SQL", cursor("tasks", SQL), BAD),
    Attack("forged cursor below zero", cursor("tasks", "-1"), BAD),
    Attack("forged cursor beyond all integers", cursor("tasks", str(2**63)), BAD),
    Attack("forged cursor with a NUL", cursor("crawls", "\0"), BAD),
    Attack("no such method", lambda s: s.service.http.put("/v1/leases"), (405, "method-not-allowed")),
    Attack("no such route", get("/v2/leases"), NOT_FOUND),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_an_attack_gets_its_answer_and_changes_nothing(scene, attack):
    before = scene.ledger()
    reply = attack.attempt(scene)
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert (reply.status_code, problem["code"]) == attack.answer, problem
    assert problem["status"] == reply.status_code
    assert attack.says in problem["detail"]
    assert scene.ledger() == before


POISONS = {"SQL": SQL, "NUL": "a\0b", "surrogate": "\ud800", "long": "x" * 9000, "empty": ""}
NUMBERS = [-1, 2**31, 2**53, 2**63, 2**200, -(2**63) - 1, 1.5, 1e308, float("inf"), float("nan")]


def poisoned(value: Any) -> Iterator[Any]:
    """A JSON value with one of its strings, names or numbers replaced by something worse."""
    if isinstance(value, str):
        yield from POISONS.values()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from NUMBERS
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in poisoned(item))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from ({**value, name: other} for other in poisoned(item))
            yield from ({**value, poison: item} for poison in POISONS.values())


def test_poison_in_any_field_is_text_or_refused(scene, submission_for):
    """Whatever is stored is stored as it came, on both databases alike; and it spoils nobody's reading."""
    service, trainer, validator = scene.service, scene.wallet("trainer"), scene.wallet("validator")
    poisoner = service.wallet("poisoner")
    with service.client(poisoner) as client:
        (lease,) = client.claim()
    bearer = f"Bearer {service.operators.create_key(('crawls', 'tasks', 'bans', 'opt-outs'), '')}"
    gate = {"gate": "form", "outcome": "pass", "reason": "none", "evidence": {"rows": [1, "x"]}}
    arm = {"name": "miner", "seed": "5" * 64, "tokens": 5, "bits_per_byte": {"news": 1.25}}
    effect = {"mean": 0.5, "low": 0.25, "high": 0.75, "by_domain": {"news": 0.5}, "errors": {"news": 0.25}}
    score = body_of(scene.sheet_by(validator, lease))["sheet"] | {"gates": [gate], "arms": [arm], "effect": effect}
    submission = body_of(submission_for(lease))
    submission["manifest"]["files"] = [{"path": "data/0.parquet", "bytes": 5, "sha256": "1" * 64, "rows": 4}]
    announced = body_of(release_by(trainer, version="0.3.0"))["release"]

    def signed(wallet: Wallet, name: str, noun: dict[str, Any]) -> dict[str, Any]:
        try:
            signature = sign(wallet, rfc8785.dumps(noun))
        except (rfc8785.CanonicalizationError, UnicodeEncodeError):
            signature = "0" * 128
        return {name: noun, "signature": signature}

    def requests() -> Iterator[httpx.Response]:
        for body in poisoned({"fencing": lease.fencing, "progress": {"records": 7}}):
            yield scene.post(poisoner, f"/v1/leases/{lease.id}/heartbeat", body)
        for body in poisoned(submission):
            yield scene.post(poisoner, "/v1/submissions", body)
        for noun in poisoned(score):
            yield scene.post(validator, "/v1/sheets", signed(validator, "sheet", noun))
        for noun in poisoned(announced):
            yield scene.post(trainer, "/v1/releases", signed(trainer, "release", noun))
        for body in poisoned({"coldkey": hotkey_of(poisoner), "reason": "reason"}):
            yield scene.operate("bans", body, bearer)
        for body in poisoned({"domain": "example.org", "reason": "reason", "withdraw": False}):
            yield scene.operate("opt-outs", body, bearer)
        for body in poisoned({"crawl": "CC-MAIN-2026-43", "crawl_url": "https://x.org", "warcs_per_shard": 4}):
            yield scene.operate("crawls", body, bearer)

    before, accepted = scene.ledger(), []
    for reply in requests():
        assert reply.status_code in (200, 201, 202, 400, 401, 403, 404, 409, 413, 422), reply.request.content
        if reply.status_code == 201 and reply.request.url.path == "/v1/sheets":
            accepted.append(json.loads(reply.request.content))
    after = scene.ledger()
    assert after["task"] == before["task"]
    assert {row[0] for row in after["lease"]} == {row[0] for row in before["lease"]}
    kept = service.http.get("/v1/sheets", params={"validator": hotkey_of(validator), "limit": 500}).json()["items"]
    assert all(signed in kept for signed in accepted)
    assert {SQL, "a\0b", ""} <= {signed["sheet"]["gates"][0]["reason"] for signed in accepted}
    document = service.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        if "get" in methods and "{" not in path:
            assert service.http.get(path).status_code == 200, path


def test_replies_to_signed_requests_are_signed(scene, wallets):
    for body, status in ((CLAIM, 200), ({"count": 99}, 422)):
        reply = scene.post("miner", "/v1/leases", body)
        assert reply.status_code == status
        good = {
            "signature": reply.headers[HEADER_REPLY_SIGNATURE],
            "body": reply.content,
            "request_signature": reply.request.headers[HEADER_REQUEST_SIGNATURE],
            "status": status,
            "server": scene.service.receiver,
        }
        verify_reply(good.pop("signature"), good.pop("body"), **good)
        good |= {"signature": reply.headers[HEADER_REPLY_SIGNATURE], "body": reply.content}
        other = scene.post("miner", "/v1/leases", body)
        for change in (
            {"body": reply.content + b" "},
            {"status": 201},
            {"signature": None},
            {"signature": other.headers[HEADER_REPLY_SIGNATURE]},
            {"request_signature": other.request.headers[HEADER_REQUEST_SIGNATURE]},
            {"server": hotkey_of(wallets("other-server"))},
        ):
            told = good | change
            with pytest.raises(Unauthorized):
                verify_reply(told.pop("signature"), told.pop("body"), **told)


def test_a_repeated_request_is_answered_as_the_first_time(scene):
    key = new_key()
    first, again = (scene.post("miner", "/v1/leases", CLAIM, key=key) for _ in range(2))
    assert (first.status_code, first.content) == (again.status_code, again.content) == (200, first.content)
    rival = scene.post("rival", "/v1/leases", CLAIM, key=key)
    assert rival.json() != first.json(), "keys are each caller's own"
