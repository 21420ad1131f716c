"""What is done with releases is written to the journal, told to all places, and refused where it may not be."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from athena.errors import BadInput, Conflict, Misconfigured, NotFound, Unavailable
from athena.hub import open_hub
from athena.registry import HeadCommitment
from athena.release import read_release
from athena.release_hub import Wanted, download_release, fetch_journal, locate, require_commitment
from athena.releases import Places, Releases


class Ledger:
    """A task server that keeps what it is told, and is away when `down`."""

    def __init__(self):
        self.releases, self.entries, self.down = [], [], False

    def journal(self, trainer, model):
        return iter([e for e in self.entries if (e.entry.by, e.entry.model) == (trainer, model)])

    def post_release(self, signed):
        self.releases.append(signed)

    def post_entry(self, signed):
        if self.down:
            raise Unavailable("away")
        self.entries.append(signed)


class Chain:
    """A chain that keeps each hotkey's last commitment."""

    def __init__(self, hotkey):
        self.hotkey, self.texts = hotkey, []

    def head(self):
        return SimpleNamespace(number=7)

    def commitments(self, block):
        return [SimpleNamespace(hotkey=self.hotkey, text=text) for text in self.texts[-1:]]

    def commit(self, text, *, sealed):
        assert not sealed
        self.texts.append(text)


@pytest.fixture
def places(tmp_path, trainer):
    return Places(open_hub(f"file://{tmp_path}/hub", kind="model"), "org", Ledger(), Chain(trainer))


@pytest.fixture
def releases(tmp_path, verify, signer):
    return Releases(tmp_path / "releases", "athena", verify, signer)


@pytest.fixture
def model(trained, evaluation, tmp_path):
    """A run of this loss; each has weights of its own."""

    def of(bits):
        folder = tmp_path / f"run-{bits}"
        if not folder.exists():
            shutil.copytree(trained.model, folder)
            (folder / "generation_config.json").write_text(f'{{"bits": {bits}}}')
        return replace(trained, model=folder, after=evaluation(news=bits, wiki=bits))

    return of


def test_a_better_model_ships_by_itself_and_all_places_know(releases, places, model):
    for version, bits in (("0.1.0", 2.5), ("0.2.0", 2.0)):
        releases.cut(model(bits), version, places)
        assert releases.ship(version, places).state == "released"
    registry = releases.registry()
    assert [registry.standings[v].gate for v in ("0.1.0", "0.2.0")] == ["first", "better"]
    assert registry.aliases == {"latest": "0.2.0", "stable": "0.2.0"}
    published = fetch_journal(places.hub, "org/athena")
    assert published == places.ledger.entries
    assert [signed.release.version for signed in places.ledger.releases] == ["0.1.0", "0.2.0"]
    assert HeadCommitment.parse(places.chain.texts[-1]) == HeadCommitment.of(published)
    before = len(published), len(places.chain.texts)
    releases.ship("0.2.0", places)
    assert (len(fetch_journal(places.hub, "org/athena")), len(places.chain.texts)) == before


def test_a_worse_model_waits_for_a_name_and_a_reason(releases, places, model, tmp_path):
    releases.cut(model(2.0), "0.1.0", places)
    releases.ship("0.1.0", places)
    _, standing = releases.cut(model(2.5), "0.2.0", places)
    assert (standing.state, standing.gate) == ("candidate", "worse")
    assert "worse" in (tmp_path / "releases" / "athena" / "0.2.0.regression.json").read_text()
    assert releases.ship("0.2.0", places).state == "candidate"
    with pytest.raises(Conflict, match="approve it first"):
        releases.publish("0.2.0", places)
    with pytest.raises(Conflict) as caught:
        releases.approve("0.2.0")
    assert "reason" in caught.value.remedy
    releases.approve("0.2.0", "the old one holds a domain that opted out")
    assert releases.ship("0.2.0", places).state == "released"
    assert releases.registry().aliases == {"latest": "0.2.0", "stable": "0.1.0"}


def test_what_was_held_is_cut_anew_and_what_is_out_is_not(releases, places, model):
    first, _ = releases.cut(model(2.0), "0.1.0", places)
    again, _ = releases.cut(model(2.0), "0.1.0", places)
    assert again == first
    second, standing = releases.cut(model(1.5), "0.1.0", places)
    assert second.release.digest() == standing.release != first.release.digest()
    assert not releases.is_taken("0.1.0")
    releases.ship("0.1.0", places)
    assert releases.is_taken("0.1.0")
    with pytest.raises(Conflict, match="another model"):
        releases.cut(model(2.0), "0.1.0", places)


def test_roll_back_and_yank(releases, places, model):
    for version, bits in (("0.1.0", 2.5), ("0.2.0", 2.0), ("0.3.0", 1.5)):
        releases.cut(model(bits), version, places)
        releases.ship(version, places)
    assert releases.roll_back("stable", places, reason="loops").version == "0.2.0"
    assert releases.ship("0.3.0", places).version == "0.3.0"
    assert releases.registry().aliases["stable"] == "0.2.0", "a restart of the trainer does not undo a roll back"
    releases.yank("0.2.0", "a take-down", places)
    assert releases.registry().aliases == {"latest": "0.3.0", "stable": "0.1.0"}
    entries = fetch_journal(places.hub, "org/athena")
    assert [(e.entry.action, e.entry.reason) for e in entries[-2:]] == [("alias", "loops"), ("yank", "a take-down")]


def test_the_work_moves_to_another_machine(releases, places, model, tmp_path, verify, signer):
    releases.cut(model(2.5), "0.1.0", places)
    releases.ship("0.1.0", places)
    elsewhere = Releases(tmp_path / "elsewhere", "athena", verify, signer)
    _, standing = elsewhere.cut(model(2.0), "0.2.0", places)
    assert standing.gate == "better", "the evaluation before it came from the hub"
    elsewhere.ship("0.2.0", places)
    releases.cut(model(1.5), "0.3.0", places)
    assert releases.ship("0.3.0", places).gate == "better"
    assert list(releases.registry().standings) == ["0.1.0", "0.2.0", "0.3.0"]


def test_an_interrupted_publication_goes_on(releases, places, model):
    releases.cut(model(2.5), "0.1.0", places)
    places.ledger.down = True
    with pytest.raises(Unavailable):
        releases.ship("0.1.0", places)
    places.ledger.down = False
    releases.ship("0.1.0", places)
    assert [e.entry.action for e in places.ledger.entries] == ["cut", "propose", "approve", "publish", "alias"]
    assert fetch_journal(places.hub, "org/athena") == places.ledger.entries


def test_a_release_that_changed_after_the_cut_is_not_published(releases, places, model):
    releases.cut(model(2.5), "0.1.0", places)
    releases.approve("0.1.0")
    (releases.folder_of("0.1.0") / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"config\.json"):
        releases.publish("0.1.0", places)
    with pytest.raises(NotFound):
        places.hub.resolve("org/athena", "v0.1.0")


def test_only_the_owner_acts(releases, places, model, tmp_path, verify):
    releases.cut(model(2.5), "0.1.0", places)
    with pytest.raises(Misconfigured, match="wallet"):
        Releases(tmp_path / "releases", "athena", verify).approve("0.1.0")


def test_people_download_by_alias_and_version(releases, places, model, verify, trainer, tmp_path):
    for version, bits in (("0.1.0", 2.5), ("0.2.0", 2.0)):
        releases.cut(model(bits), version, places)
        releases.ship(version, places)
    releases.roll_back("stable", places)

    def located(reference, **options):
        return locate(places.hub, Wanted.parse(f"org/athena@{reference}", **options), verify)

    for reference, version in (("stable", "0.1.0"), ("latest", "0.2.0"), ("0.1.0", "0.1.0"), ("v0.2.0", "0.2.0")):
        revision, digest = located(reference, trainer=trainer)
        assert digest == read_release(releases.folder_of(version)).release.digest()
        assert places.hub.resolve("org/athena", f"v{version}") == revision
    revision, digest = located("stable")
    into = tmp_path / "mine"
    assert download_release(places.hub, "org/athena", revision, into, verify, digest=digest).version == "0.1.0"
    with pytest.raises(BadInput, match="not 5FHneW46"):
        located("stable", trainer="5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty")
    with pytest.raises(NotFound, match="no journal"):
        locate(places.hub, Wanted.parse("org/other"), verify)
    releases.yank("0.2.0", "x", places)
    with pytest.raises(Conflict, match="yanked"):
        located("0.2.0")
    assert located(places.hub.resolve("org/athena", "v0.2.0")) == (places.hub.resolve("org/athena", "v0.2.0"), None)


def test_what_is_on_chain_decides_which_journal_is_the_right_one(releases, places, model):
    for version, bits in (("0.1.0", 2.5), ("0.2.0", 2.0)):
        releases.cut(model(bits), version, places)
        releases.ship(version, places)
    entries, standings = fetch_journal(places.hub, "org/athena"), releases.registry().standings
    first, *_, last = places.chain.texts
    for version in ("0.1.0", "0.2.0"):
        require_commitment(last, entries, standings[version])
    require_commitment(first, entries, standings["0.1.0"])
    with pytest.raises(Conflict, match="not committed to on chain yet"):
        require_commitment(first, entries, standings["0.2.0"])
    with pytest.raises(Conflict, match="old copy"):
        require_commitment(last, entries[:-1], standings["0.1.0"])
    with pytest.raises(Conflict, match="nothing on chain"):
        require_commitment(None, entries, standings["0.1.0"])
    with pytest.raises(BadInput, match="not an athr1"):
        require_commitment("ath1|file:org/data", entries, standings["0.1.0"])


def test_names_are_read_with_their_defaults():
    assert Wanted.parse("athena@stable") == Wanted("athena-network/athena", "stable")
    assert Wanted.parse("org/athena") == Wanted("org/athena", "latest")
    assert str(Wanted.parse("org/athena@0.1.0").folder) == "athena-0.1.0"
