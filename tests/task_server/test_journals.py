"""Journals of releases: kept once and in order, and every version's state and aliases follow from them."""

from datetime import UTC, datetime

import pytest

from athena.chain.wallets import hotkey_of, sign
from athena.errors import BadInput, Conflict, Forbidden, Unauthorized
from athena.registry import Entry, Registry, SignedEntry

PLACE = {"location": "hf:org/athena", "revision": "a" * 40}
SHIPPED = (("cut", {}), ("propose", {"gate": "first"}), ("approve", {}), ("publish", PLACE))


class Pen:
    """Writes a journal that the server is told of."""

    def __init__(self, client, wallet, model="athena"):
        self.client, self.wallet, self.registry = client, wallet, Registry(model)
        self.written = []

    def next(self, action, version, **said):
        entry = Entry(
            model=self.registry.model, number=self.registry.length, previous=self.registry.head, version=version,
            at=datetime(2026, 1, 2, tzinfo=UTC), by=hotkey_of(self.wallet), action=action,
            release=version.replace(".", "").ljust(64, "0"), **said,
        )  # fmt: skip
        return SignedEntry(entry=entry, signature=sign(self.wallet, entry.canonical()))

    def write(self, action, version, **said):
        signed = self.next(action, version, **said)
        self.client.post_entry(signed)
        self.registry = self.registry.after(signed.entry)
        self.written.append(signed)

    def ship(self, version):
        for action, said in SHIPPED:
            self.write(action, version, **said)


def test_states_and_aliases_follow_from_the_journal(serve):
    service = serve()
    trainer, other = service.wallet("trainer"), service.wallet("other")
    with service.client(trainer) as client, service.client(other) as rival:
        pen, theirs = Pen(client, trainer), Pen(rival, other)
        pen.ship("0.1.0")
        pen.write("alias", "0.1.0", alias="stable")
        theirs.write("cut", "0.1.0")
        pen.ship("0.2.0")
        pen.write("alias", "0.2.0", alias="stable")
        views = list(client.registry(trainer=hotkey_of(trainer)))
        assert [(v.version, v.state, v.aliases) for v in views] == [
            ("0.1.0", "released", ()),
            ("0.2.0", "released", ("latest", "stable")),
        ]
        assert (views[1].location, views[1].revision, views[1].gate) == (*PLACE.values(), "first")
        pen.write("yank", "0.2.0", reason="a take-down")
        views = list(client.registry(model="athena"))
        assert [(v.trainer, v.state, v.aliases) for v in views] == [
            (hotkey_of(trainer), "released", ("latest", "stable")),
            (hotkey_of(other), "draft", ()),
            (hotkey_of(trainer), "yanked", ()),
        ]
        assert list(client.journal(hotkey_of(trainer), "athena")) == pen.written
        assert list(client.journal()) == pen.written[:5] + theirs.written + pen.written[5:]
        kinds = [event.body["action"] for event in client.events() if event.kind == "journaled"]
        assert kinds.count("publish") == 2 and kinds[-1] == "yank"


def test_an_entry_is_kept_once_and_only_in_its_place(serve):
    service = serve()
    trainer, other = service.wallet("trainer"), service.wallet("other")
    with service.client(trainer) as client, service.client(other) as rival:
        pen = Pen(client, trainer)
        pen.write("cut", "0.1.0")
        client.post_entry(pen.written[0])
        proposed = pen.next("propose", "0.1.0", gate="first")
        for wrong in (
            {"number": 7},
            {"previous": "1" * 64},
            {"version": "0.2.0"},
            {"release": "2" * 64},
        ):
            entry = proposed.entry.model_copy(update=wrong)
            with pytest.raises(Conflict):
                client.post_entry(SignedEntry(entry=entry, signature=sign(trainer, entry.canonical())))
        with pytest.raises(Unauthorized):
            client.post_entry(proposed.model_copy(update={"signature": pen.written[0].signature}))
        with pytest.raises(Forbidden, match="another trainer"):
            rival.post_entry(proposed)
        with pytest.raises(BadInput):
            list(client.registry(model="Not A Model"))
        assert list(client.journal()) == pen.written
        assert [view.state for view in client.registry()] == ["draft"]
