import os
import stat
import subprocess
import sys
from pathlib import Path

import bittensor
import pytest
from bittensor.sp_core import CRYPTO_ED25519, ss58_decode, ss58_encode

from athena.chain.wallets import hotkey_of, open_wallet, sign, verify
from athena.errors import Misconfigured, Unauthorized


def test_created_wallet_opens_again_as_the_same_identity(tmp_path, capfd):
    first = open_wallet("miner", "one", tmp_path, create=True)
    again = open_wallet("miner", "one", tmp_path)
    assert hotkey_of(first) == hotkey_of(again)
    assert capfd.readouterr() == ("", ""), "a mnemonic on stdout ends up in a log"
    file = tmp_path / "miner" / "hotkeys" / "one"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_default_path_is_btclis(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = open_wallet("miner", path=tmp_path / ".bittensor" / "wallets", create=True)
    assert hotkey_of(open_wallet("miner")) == hotkey_of(made)


def test_create_adds_a_hotkey_and_leaves_the_coldkey(tmp_path):
    first = open_wallet("miner", "one", tmp_path, create=True)
    second = open_wallet("miner", "two", tmp_path, create=True)
    assert hotkey_of(first) != hotkey_of(second)
    assert first.coldkeypub.ss58_address == second.coldkeypub.ss58_address


@pytest.mark.parametrize(
    "lost",
    [
        ["coldkeypub.txt", "hotkeys/default", "hotkeys/defaultpub.txt"],
        ["hotkeys/default", "hotkeys/defaultpub.txt"],
        ["hotkeys/defaultpub.txt"],
    ],
)
def test_create_mends_what_a_kill_left_half_done(tmp_path, lost):
    cold = open_wallet("miner", path=tmp_path, create=True).coldkeypub.ss58_address
    for name in lost:
        (tmp_path / "miner" / name).unlink()
    mended = open_wallet("miner", path=tmp_path, create=True)
    assert mended.coldkeypub.ss58_address == cold
    verify(hotkey_of(mended), b"x", sign(mended, b"x"))


def test_create_on_a_machine_without_coldkey_makes_no_coldkey(tmp_path):
    open_wallet("miner", path=tmp_path, create=True)
    for name in ("coldkey", "hotkeys/default", "hotkeys/defaultpub.txt"):
        (tmp_path / "miner" / name).unlink()
    open_wallet("miner", path=tmp_path, create=True)
    assert not (tmp_path / "miner" / "coldkey").exists()


def test_create_does_not_replace_a_hotkey_whose_secret_half_is_lost(tmp_path):
    open_wallet("miner", path=tmp_path, create=True)
    (tmp_path / "miner" / "hotkeys" / "default").unlink()
    with pytest.raises(Misconfigured, match="there is no hotkey"):
        open_wallet("miner", path=tmp_path, create=True)


def test_missing_wallet_says_how_to_make_one(tmp_path):
    with pytest.raises(Misconfigured) as caught:
        open_wallet("nobody", path=tmp_path)
    assert "btcli wallet new-hotkey -w nobody" in str(caught.value)


@pytest.mark.parametrize("name, hotkey", [("a/b", "default"), ("..", "default"), ("a", "../b"), ("", "default")])
def test_names_cannot_leave_the_wallet_folder(tmp_path, name, hotkey):
    with pytest.raises(Misconfigured):
        open_wallet(name, hotkey, tmp_path, create=True)
    assert list(tmp_path.iterdir()) == []


def test_broken_hotkey_file_is_a_fault_of_this_node(tmp_path):
    open_wallet("miner", path=tmp_path, create=True)
    (tmp_path / "miner" / "hotkeys" / "default").write_text("{}")
    with pytest.raises(Misconfigured, match="cannot read"):
        open_wallet("miner", path=tmp_path)


def test_hotkey_of_another_scheme_is_refused(tmp_path):
    bittensor.Wallet("miner", "default", str(tmp_path)).create_new_hotkey(suppress=True, crypto_type=CRYPTO_ED25519)
    with pytest.raises(Misconfigured, match="sr25519"):
        open_wallet("miner", path=tmp_path)


def test_encrypted_hotkey_is_refused_without_a_prompt(tmp_path):
    open_wallet("miner", path=tmp_path, create=True)
    (tmp_path / "miner" / "hotkeys" / "default").write_bytes(b"$NACL" + bytes(100))  # how an encrypted keyfile begins
    program = (
        "import sys; from pathlib import Path; from athena.chain.wallets import open_wallet;"
        "open_wallet('miner', path=Path(sys.argv[1]))"
    )
    terminal, other = os.openpty()  # the SDK asks only where a person could answer
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], stdin=other, capture_output=True, text=True, timeout=60
    )
    os.close(terminal)
    os.close(other)
    assert "Misconfigured" in done.stderr and "unencrypted hotkey" in done.stderr
    assert done.stdout == "" and "password" not in done.stderr


def test_signature_is_bound_to_key_and_message(tmp_path):
    alice, bob = (open_wallet(name, path=tmp_path, create=True) for name in ("alice", "bob"))
    signature = sign(alice, b"message")
    assert len(signature) == 128
    verify(hotkey_of(alice), b"message", signature)
    for hotkey, message, forged in [
        (hotkey_of(bob), b"message", signature),
        (hotkey_of(alice), b"massage", signature),
        (hotkey_of(alice), b"message", sign(bob, b"message")),
        (hotkey_of(alice), b"message", "00" * 64),
        (hotkey_of(alice), b"message", signature[:-2]),
        (hotkey_of(alice), b"message", "not hex"),
        (hotkey_of(alice), b"message", ""),
        ("5Alice", b"message", signature),
        ("", b"message", signature),
        ("5" + "ü" * 47, b"message", signature),
    ]:
        with pytest.raises(Unauthorized):
            verify(hotkey, message, forged)


def test_one_key_has_one_name(tmp_path: Path):
    """The same public key in another network's address format must not pass as a second identity."""
    wallet = open_wallet("alice", path=tmp_path, create=True)
    polkadot = ss58_encode(ss58_decode(hotkey_of(wallet)), 0)
    with pytest.raises(Unauthorized, match="address of this network"):
        verify(polkadot, b"message", sign(wallet, b"message"))
