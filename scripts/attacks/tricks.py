"""Attacks by how a dataset is published, committed to and leased, and by whom."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pickle
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from athena.chain.client import Neuron
from athena.errors import AthenaError, NotFound, RateLimited
from athena.hub import open_hub
from athena.protocol import Commitment, DatasetRef, Lease
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, ROW_SCHEMA
from athena.refine.recipe import load_recipe
from athena.wire import MAX_LEASES_PER_CLAIM, ReleaseRequest
from scripts.attacks.datasets import Row, own_decisions
from scripts.attacks.forgeries import shortened
from scripts.attacks.network import READ_BLOCKS, Network, Player, Tamper
from scripts.attacks.play import Act, neurons_now

EXECUTED = "executed"
"""The folder that a dataset's code would make beside it."""


def committed_by(slot: Player, victim: Player, lease: Lease) -> str:
    """The text of the victim's commitment for the lease's task, once the chain has revealed it."""
    slot.network.reveal()
    for entry in slot.chain.commitments(slot.chain.head().number):
        if entry.hotkey == victim.hotkey and entry.text and lease.task.id in entry.text:
            return entry.text
    raise NotFound(f"{victim.name} has no revealed commitment for task {lease.task.id}")


def stolen_rows(slot: Player, victim: Player, lease: Lease) -> list[Row]:
    """The rows of the victim's dataset, fetched where its revealed commitment says."""
    commitment = Commitment.parse(committed_by(slot, victim, lease), signer=victim.hotkey)
    ref = commitment.dataset
    folder = slot.network.folder / "stolen" / ref.root
    slot.network.hub.fetch(ref.repository, ref.revision, folder, max_bytes=1 << 30)
    rows: list[Row] = pq.read_table(folder / DATA_FILE).to_pylist()
    return rows


def repeat_their_commitment(slot: Player, lease: Lease) -> None:
    """The victim's text, word for word."""
    slot.commit_text(committed_by(slot, slot.network.bob, lease))


def sign_their_commitment(slot: Player, lease: Lease) -> None:
    """The victim's text with another hotkey in it."""
    victim = slot.network.bob
    slot.commit_text(committed_by(slot, victim, lease).replace(victim.hotkey, slot.hotkey))


def take_their_data(slot: Player, lease: Lease) -> None:
    """The victim's rows under the slot's own name, a few left out and a few cut short."""
    rows = stolen_rows(slot, slot.network.bob, lease)
    edited = [{**row, "text": shortened(row)} if n % 25 == 0 else row for n, row in enumerate(rows) if n % 20]
    slot.deliver(edited, lease)


def take_their_other_task(slot: Player, lease: Lease) -> None:
    """The texts of the victim's dataset of another task, at places of this task's shard."""
    victim = slot.network.bob
    [other] = [other for other in victim.leases if other.task.id != lease.task.id]
    texts = [row["text"] for row in own_decisions(slot.rows(other))]
    own = slot.rows(lease)
    slot.deliver([{**row, "text": text} for row, text in zip(own, texts, strict=False)], lease)


def change_the_repository(slot: Player, lease: Lease) -> None:
    """The commitment promises data that a later revision of the repository will hold."""
    rows = slot.rows(lease)
    early, _ = slot.publish(rows[:1], lease)
    later, manifest = slot.publish(rows, lease)
    promised = DatasetRef(location=early.location, revision=early.revision, root=later.root)
    slot.commit(promised, lease)
    slot.submit(lease, promised, manifest)


def upload_later(slot: Player, lease: Lease) -> None:
    """The commitment is made at once, the data comes once the validators have looked."""
    network = slot.network
    elsewhere = open_hub((network.folder / "elsewhere").as_uri())
    promised, manifest = slot.publish(slot.rows(lease), lease, hub=elsewhere)
    slot.commit(promised, lease)
    slot.submit(lease, promised, manifest)
    network.judge()
    folder = network.folder / "made" / promised.repository
    network.hub.publish(folder, promised.repository, message="data")


def take_one_lease(slot: Player) -> None:
    slot.claim(1)


def commit_late(network: Network) -> Sequence[Neuron]:
    """Canonical work on the slot's lease, committed to after its deadline, when time no longer counts."""
    slot, [lease] = network.slot, network.slot.leases
    dataset, _ = slot.publish(slot.rows(lease), lease, recipe=load_recipe("fineweb-1").ref)
    network.node.advance(max(0, lease.deadline_block - network.node.height) + 1)
    network.server.pass_time((lease.deadline_at - lease.issued_at).total_seconds() + 1)
    slot.commit(dataset, lease)
    network.judge()
    return neurons_now(network)


def commit_to_an_address(slot: Player, lease: Lease) -> None:
    """Commitments whose data would be fetched from inside of the validator's network, or from its own disk."""
    dataset, _ = slot.publish(slot.rows(lease), lease)
    text = Commitment(dataset=dataset, task_id=lease.task.id, hotkey=slot.hotkey).encode()
    elsewhere = ("http://169.254.169.254/latest", "file:../keys")[slot.leases.index(lease) % 2]
    slot.commit_text(text.replace(dataset.location, elsewhere))


def commit_twice(slot: Player, lease: Lease) -> None:
    """An honest dataset, committed to again once it is judged."""
    dataset, manifest = slot.publish(slot.rows(lease), lease, recipe=load_recipe("fineweb-1").ref)
    slot.commit(dataset, lease)
    slot.submit(lease, dataset, manifest)
    slot.network.judge()
    slot.network.node.advance(2 * READ_BLOCKS)
    slot.commit(dataset, lease)


def choose_a_task(slot: Player) -> None:
    """No lease is taken: the slot picks the task that it likes best."""
    slot.leases = list(slot.network.alice.leases)


def commit_only(slot: Player, lease: Lease) -> None:
    """An honest dataset and a commitment; the task server hears nothing."""
    dataset, _ = slot.publish(slot.rows(lease), lease, recipe=load_recipe("fineweb-1").ref)
    slot.commit(dataset, lease)


class _Overheard(httpx.HTTPTransport):
    """Keeps what goes over the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return super().handle_request(request)


def overhear(slot: Player) -> None:
    """Listens to what the slot's neighbour asks of the task server from now on."""
    slot.claim()
    victim = slot.network.alice
    slot.overheard = (wire := _Overheard()).requests
    victim.ledger = slot.network.stack.enter_context(closing(slot.network.server.client(victim.wallet, transport=wire)))


def give_back_theirs(slot: Player, lease: Lease) -> None:
    """The victim's last lease is given back: by the slot, and in requests that bear the victim's signature of another
    one. Then all that the victim asked for is asked once more. Raises RuntimeError where a forgery is let pass."""
    theirs = slot.network.alice.leases[-1]
    with contextlib.suppress(AthenaError):
        slot.ledger.release(theirs)
    body = ReleaseRequest(fencing=theirs.fencing).canonical()
    with httpx.Client(base_url=slot.network.server.url) as http:
        for said in slot.overheard:
            signed = {name: value for name, value in said.headers.items() if name not in ("content-length", "host")}
            forged = http.post(f"/v1/leases/{theirs.id}/release", content=body, headers=signed)
            if forged.is_success:
                raise RuntimeError("the task server took another request's signature")
            http.post(said.url, content=said.content, headers=signed)


def flood(slot: Player) -> None:
    """Asks for leases until it is refused. Raises RuntimeError where that never happens."""
    slot.claim()
    with closing(slot.network.server.client(slot.wallet, retry_seconds=0.0)) as hasty:
        for _ in range(2 * slot.network.server.writes_per_minute):
            try:
                hasty.claim()
            except RateLimited:
                return
    raise RuntimeError("the task server lets a hotkey ask as often as it likes")


def hoard(slot: Player) -> None:
    """All leases that the server gives out, none of which is worked on; they run out."""
    slot.claim(MAX_LEASES_PER_CLAIM)


def abstain(slot: Player, lease: Lease) -> None:
    """Nothing is delivered."""


def only_the_first(slot: Player, lease: Lease) -> None:
    """Of two leases only one is worked on: the one that promises more."""
    if lease is slot.leases[0]:
        slot.work(lease)


def let_leases_run_out(network: Network) -> Sequence[Neuron]:
    network.server.pass_time(2 * 3600.0)
    return neurons_now(network)


def fall_silent(slot: Player, lease: Lease) -> None:
    """An honest first task; of the second the hub gives no answer, so that no verdict comes and nothing decays."""
    if lease is not slot.leases[0]:
        slot.network.hub.silent.add(slot.name)
    slot.work(lease)


def honest_work(slot: Player, lease: Lease) -> None:
    slot.work(lease)


def hide(slot: Player, lease: Lease) -> None:
    """The dataset lies on a host that never answers."""
    slot.network.hub.silent.add(slot.name)
    slot.deliver(slot.rows(lease), lease)


def inherit(network: Network) -> Sequence[Neuron]:
    """The uid of the slot, which did honest work, goes to a newcomer."""
    newcomer = network.world.hotkeys["newcomer"]
    registered = [neuron for neuron in neurons_now(network) if neuron.hotkey != newcomer]
    return [
        dataclasses.replace(neuron, hotkey=newcomer, registered_block=network.node.height)
        if neuron.hotkey == network.slot.hotkey
        else neuron
        for neuron in registered
    ]


def return_anew(network: Network) -> Sequence[Neuron]:
    """The slot's hotkey, which did honest work, was pruned and is registered by a new owner of the key."""
    return [
        dataclasses.replace(neuron, registered_block=network.node.height)
        if neuron.hotkey == network.slot.hotkey
        else neuron
        for neuron in neurons_now(network)
    ]


def more_keys(*others: str) -> Act:
    """Honest work, and the same rows under the slot's other hotkeys, as far as they get leases of the task."""

    def act(slot: Player, lease: Lease) -> None:
        slot.work(lease)
        for key in map(slot.network.player, others):
            for own in key.claim():
                if own.task.id == lease.task.id:
                    key.work(own)

    return act


def lend(*others: str) -> Act:
    """Work by a recipe of the slot's own; once it lies open, others deliver it again with a few rows changed."""

    def act(slot: Player, lease: Lease) -> None:
        rows = own_decisions(slot.rows(lease))
        slot.deliver(rows, lease)
        slot.network.reveal()
        for key in map(slot.network.player, others):
            [own] = [own for own in key.claim() if own.task.id == lease.task.id]
            key.deliver(rows[1:], own)

    return act


def praise_oneself(slot: Player, lease: Lease) -> None:
    """Honest work, and a score sheet about it that claims sixteen times the units, posted to the task server."""
    slot.work(lease)
    slot.network.judge()
    [sheet] = [sheet for sheet in slot.network.validator.signed() if sheet.sheet.hotkey == slot.hotkey][-1:]
    better = sheet.model_copy(update={"sheet": sheet.sheet.model_copy(update={"units": 32.0})})
    with contextlib.suppress(AthenaError):
        slot.ledger.post_sheet(better)


def bomb(folder: Path) -> None:
    """A few kilobytes whose one long text every row points at."""
    rows = 400
    index = pa.array([0] * rows, pa.int32())
    columns = dict(zip(ROW_SCHEMA.names, pq.read_table(folder / DATA_FILE).slice(0, 1).columns, strict=True))
    arrays = {name: pa.concat_arrays([column.combine_chunks()] * rows) for name, column in columns.items()}
    arrays["warc_offset"] = pa.array(range(rows), pa.int64())
    arrays["text"] = pa.DictionaryArray.from_arrays(index, pa.array(["0" * (1 << 20)]))
    fields = [pa.field(field.name, arrays[field.name].type, field.nullable) for field in ROW_SCHEMA]
    table = pa.Table.from_arrays(list(arrays.values()), schema=pa.schema(fields))
    pq.write_table(table, folder / DATA_FILE, compression="zstd", store_schema=False, row_group_size=rows)
    _repair_manifest(folder, rows)


def pickled(folder: Path) -> None:
    """A pickle under the name of the data, which runs code once it is loaded."""
    (folder / DATA_FILE).write_bytes(pickle.dumps(_Code(folder)))
    _repair_manifest(folder, None)


def scripted(folder: Path) -> None:
    """A loading script and a pickle beside the data."""
    (folder / "dataset.py").write_text(f"import os\nos.mkdir({str(folder.with_name(EXECUTED))!r})\n")
    (folder / "state.pkl").write_bytes(pickle.dumps(_Code(folder)))


class _Code:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self._folder.with_name(EXECUTED)), 0o700)


def nothing_ran(network: Network) -> Sequence[Neuron]:
    """Raises RuntimeError where a dataset's code was executed."""
    if any(network.folder.rglob(EXECUTED)):
        raise RuntimeError("code of a dataset was executed")
    return neurons_now(network)


def bloated(folder: Path) -> None:
    """One more file, larger than all that may be fetched."""
    with (folder / f"more-{DATA_FILE}").open("wb") as file:
        file.truncate((64 << 20) + 1)


def delivered(tamper: Tamper) -> Act:
    """Canonical rows in a folder that `tamper` edits before it is published."""

    def act(slot: Player, lease: Lease) -> None:
        slot.deliver(slot.rows(lease), lease, tamper=tamper)

    return act


def _repair_manifest(folder: Path, rows: int | None) -> None:
    """Size and hash of the data file as it is now."""
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    data = (folder / DATA_FILE).read_bytes()
    manifest["files"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if rows is not None:
        manifest |= {"rows": rows, "records": rows}
        manifest["files"][0]["rows"] = rows
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
