"""A trainer's commitment on a real chain decides which journal of releases people believe."""

import shutil

import pytest

from athena.chain.wallets import hotkey_of, sign, verify
from athena.errors import Conflict
from athena.hub import open_hub
from athena.journal import JOURNAL, Journal, Signer
from athena.release_hub import Wanted, locate, publish_journal
from athena.releases import Places, Releases

RELEASE = "e" * 64


def test_an_old_copy_of_the_journal_is_found_out(node, chain_of, wallet_of, tmp_path):
    wallet, chain = wallet_of("carol"), chain_of("carol")
    signer = Signer(hotkey_of(wallet), lambda message: sign(wallet, message))
    hub = open_hub(f"file://{tmp_path}/hub", kind="model")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text("{}")
    revision = hub.publish(tmp_path / "files", "org/athena", message="0.1.0")
    journal = Journal(tmp_path / "releases" / "athena", "athena", verify)
    place = {"location": "file:org/athena", "revision": revision}
    for action, said in (("cut", {}), ("propose", {"gate": "first"}), ("approve", {}), ("publish", place)):
        journal.append(signer, action, "0.1.0", RELEASE, **said)
    shutil.copy(journal.file, tmp_path / JOURNAL)

    wanted = Wanted.parse("org/athena@0.1.0", trainer=signer.hotkey, network=node.address)
    publish_journal(hub, journal.file, "org/athena")
    with pytest.raises(Conflict, match="nothing on chain"):
        locate(hub, wanted, verify)
    chain.register()
    releases = Releases(tmp_path / "releases", "athena", verify, signer)
    places = Places(hub, "org", None, chain)
    releases.tell(places)
    assert locate(hub, wanted, verify) == (revision, RELEASE)
    releases.yank("0.1.0", "a take-down", places)
    publish_journal(hub, tmp_path / JOURNAL, "org/athena")  # a hub that hides the yank
    with pytest.raises(Conflict, match="old copy"):
        locate(hub, wanted, verify)
