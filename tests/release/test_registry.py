"""States, aliases and commitments follow from a journal of signed entries, and from nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athena.errors import BadInput, Conflict, NotFound, TooLarge, Unauthorized
from athena.journal import Journal, Signer, parse_journal
from athena.registry import GENESIS, Entry, HeadCommitment, Registry, SignedEntry, covered, replay, version_key

OTHER = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
START = datetime(2026, 1, 2, tzinfo=UTC)
PLACE = {"location": "file:org/athena", "revision": "a" * 40}


def digest_of(version):
    return version.replace(".", "").ljust(64, "0")


@pytest.fixture
def journal(tmp_path, verify):
    return Journal(tmp_path / "athena", "athena", verify)


@pytest.fixture
def ship(journal, signer):
    def through(version, gate="first", against=None, reason=""):
        for action, said in (
            ("cut", {}),
            ("propose", {"gate": gate, "against": against}),
            ("approve", {"reason": reason}),
            ("publish", PLACE),
        ):
            registry = journal.append(signer, action, version, digest_of(version), **said)
        return registry

    return through


def test_from_draft_to_released_and_back(journal, signer, ship):
    states = []
    for action, said in (
        ("cut", {}),
        ("propose", {"gate": "first"}),
        ("approve", {}),
        ("publish", PLACE),
        ("yank", {"reason": "it loops"}),
    ):
        standing = journal.append(signer, action, "0.1.0", digest_of("0.1.0"), **said).standings["0.1.0"]
        states.append(standing.state)
    assert states == ["draft", "candidate", "approved", "released", "yanked"]
    with pytest.raises(Conflict, match="was yanked"):
        journal.registry().resolve("0.1.0")
    assert [(e.entry.action, e.entry.by) for e in journal.entries()][-1] == ("yank", signer.hotkey)


@pytest.mark.parametrize("action", ["propose", "approve", "publish", "alias", "yank"])
def test_no_step_is_skipped(journal, signer, action):
    said = {"propose": {"gate": "first"}, "publish": PLACE, "alias": {"alias": "stable"}, "yank": {"reason": "x"}}
    with pytest.raises(Conflict, match="not cut yet"):
        journal.append(signer, action, "0.1.0", "0" * 64, **said.get(action, {}))
    assert journal.entries() == []


def test_what_is_not_better_ships_with_a_reason_only(journal, signer, ship):
    ship("0.1.0")
    with pytest.raises(Conflict, match="worse than the release before"):
        ship("0.2.0", gate="worse", against="0.1.0")
    registry = journal.append(signer, "approve", "0.2.0", digest_of("0.2.0"), reason="fixes the licence")
    assert registry.standings["0.2.0"].state == "approved"
    assert journal.entries()[-1].entry.reason == "fixes the licence"


def test_an_unapproved_version_is_cut_anew_and_an_approved_one_is_not(journal, signer):
    journal.append(signer, "cut", "0.1.0", "1" * 64)
    journal.append(signer, "propose", "0.1.0", "1" * 64, gate="first")
    assert journal.append(signer, "cut", "0.1.0", "2" * 64).standings["0.1.0"].release == "2" * 64
    with pytest.raises(Conflict, match="another release"):
        journal.append(signer, "propose", "0.1.0", "1" * 64, gate="first")
    journal.append(signer, "propose", "0.1.0", "2" * 64, gate="first")
    journal.append(signer, "approve", "0.1.0", "2" * 64)
    with pytest.raises(Conflict, match="cannot cut"):
        journal.append(signer, "cut", "0.1.0", "3" * 64)


def test_aliases_move_roll_back_and_pass_over_what_was_yanked(journal, signer, ship):
    for version in ("0.9.0", "0.10.0", "0.11.0"):
        ship(version, gate="better" if version != "0.9.0" else "first", against=None if version == "0.9.0" else "0.9.0")
        journal.append(signer, "alias", version, digest_of(version), alias="stable")
    assert journal.registry().aliases == {"latest": "0.11.0", "stable": "0.11.0"}
    assert journal.registry().before("stable") == "0.10.0"
    journal.append(signer, "alias", "0.10.0", digest_of("0.10.0"), alias="stable")
    assert journal.registry().aliases == {"latest": "0.11.0", "stable": "0.10.0"}
    registry = journal.append(signer, "yank", "0.10.0", digest_of("0.10.0"), reason="x")
    assert registry.aliases == {"latest": "0.11.0", "stable": "0.9.0"}, "not what was rolled back before"
    assert registry.resolve("stable").version == registry.resolve("v0.9.0").version == "0.9.0"
    with pytest.raises(NotFound, match="no other release before"):
        registry.before("stable")
    with pytest.raises(NotFound) as caught:
        registry.resolve("canary")
    assert "stable" in caught.value.remedy
    assert version_key("0.10.0") > version_key("0.9.0")


def test_latest_is_nobodys_to_set(journal, signer, ship):
    ship("0.1.0")
    with pytest.raises(BadInput, match="lacks what belongs to it"):
        journal.append(signer, "alias", "0.1.0", digest_of("0.1.0"), alias="latest")


def test_only_the_owner_writes_and_every_signature_is_checked(journal, signer, ship, verify):
    ship("0.1.0")
    with pytest.raises(BadInput, match="not 5FHneW46"):
        journal.append(Signer(OTHER, signer.sign), "cut", "0.2.0", "0" * 64)
    entries = journal.entries()
    forged = entries[0].entry.model_copy(update={"release": "9" * 64})
    with pytest.raises(Unauthorized):
        replay("athena", [SignedEntry(entry=forged, signature=entries[0].signature), *entries[1:]], verify)
    for missing in range(len(entries) - 1):
        with pytest.raises(Conflict):
            replay("athena", entries[:missing] + entries[missing + 1 :], verify)
    with pytest.raises(BadInput, match="not other"):
        replay("other", entries, verify)


def test_a_kill_in_the_middle_of_a_line_loses_that_line_only(journal, signer):
    journal.append(signer, "cut", "0.1.0", "1" * 64)
    whole = journal.file.read_bytes()
    journal.append(signer, "propose", "0.1.0", "1" * 64, gate="first")
    second = journal.file.read_bytes()[len(whole) :]
    for length in (1, len(second) // 2, len(second) - 1):
        journal.file.write_bytes(whole + second[:length])
        assert [signed.entry.action for signed in journal.entries()] == ["cut"]
    journal.append(signer, "propose", "0.1.0", "1" * 64, gate="first")
    assert [signed.entry.number for signed in journal.entries()] == [0, 1]


def test_a_longer_copy_is_taken_over_and_another_journal_is_not(journal, signer, ship, tmp_path, verify):
    ship("0.1.0")
    elsewhere = Journal(tmp_path / "elsewhere", "athena", verify)
    elsewhere.adopt(journal.entries())
    assert elsewhere.entries() == journal.entries()
    elsewhere.append(signer, "alias", "0.1.0", digest_of("0.1.0"), alias="stable")
    elsewhere.adopt(journal.entries())
    assert len(elsewhere.entries()) == len(journal.entries()) + 1
    journal.append(signer, "alias", "0.1.0", digest_of("0.1.0"), alias="canary")
    with pytest.raises(Conflict, match="another journal"):
        elsewhere.adopt(journal.entries())


def test_hostile_journals_are_refused():
    with pytest.raises(BadInput):
        parse_journal(b'{"entry": {}}\n')
    with pytest.raises(TooLarge):
        parse_journal(b"{}\n" * 5000)
    with pytest.raises(TooLarge):
        parse_journal(b" " * (9 * 2**20))
    assert parse_journal(b"half a line") == []


def test_the_commitment_stands_for_all_entries_before_it(journal, ship, signer):
    ship("0.1.0")
    commitment = HeadCommitment.of(journal.entries())
    assert HeadCommitment.parse(commitment.encode()) == commitment
    assert len(commitment.encode()) < 384
    first = journal.entries()
    journal.append(signer, "alias", "0.1.0", digest_of("0.1.0"), alias="stable")
    assert covered(journal.entries(), commitment) == first
    with pytest.raises(Conflict, match="old copy"):
        covered(first, HeadCommitment.of(journal.entries()))
    for text in ("", "athr1", commitment.encode() + "|", commitment.encode().upper(), "athr1|a|00.1.0|" + "0" * 129):
        with pytest.raises(BadInput):
            HeadCommitment.parse(text)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cut", "propose", "approve", "publish", "alias", "yank"]),
            st.sampled_from(["0.1.0", "0.2.0"]),
        ),
        max_size=30,
    )
)
def test_whatever_is_tried_nothing_yanked_or_unapproved_is_ever_named(steps):
    registry = Registry("athena")
    approved = set()
    for number, (action, version) in enumerate(steps):
        said = {"propose": {"gate": "first"}, "publish": PLACE, "alias": {"alias": "stable"}, "yank": {"reason": "x"}}
        entry = Entry(
            model="athena", number=registry.length, previous=registry.head, at=START + timedelta(hours=number),
            by=OTHER, action=action, version=version, release=digest_of(version), **said.get(action, {}),
        )  # fmt: skip
        try:
            registry = registry.after(entry)
        except Conflict:
            continue
        if action == "approve":
            approved.add(version)
        assert all(registry.standings[v].state == "released" and v in approved for v in registry.aliases.values())
    assert registry.length == 0 or registry.head != GENESIS
