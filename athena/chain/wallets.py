"""Keys on disk, and sr25519 signatures over the canonical bytes of what Athena says.

A node signs everything with its hotkey, so the hotkey file must not be encrypted: nothing here ever prompts. The
coldkey is needed only to register, and may be absent from a node's machine.
"""

from __future__ import annotations

from pathlib import Path

from bittensor import Wallet as Wallet
from bittensor.sp_core import CRYPTO_SR25519, KeyfileError
from bittensor.sp_core import verify as verify_sr25519
from bittensor.wallets import is_bittensor_address, resolve_wallet_password

from athena.errors import Misconfigured, Unauthorized


def open_wallet(name: str, hotkey: str = "default", path: Path | None = None, *, create: bool = False) -> Wallet:
    """The wallet `path/name` with an unencrypted sr25519 hotkey, read and ready to sign.

    `path` defaults to ~/.bittensor/wallets, where btcli keeps them. With `create`, what is missing is made, the
    coldkey unencrypted and no mnemonic shown: for one machine's dev chain, not for keys that hold money.
    Raises Misconfigured where the hotkey is absent, encrypted, unreadable or of another scheme.
    """
    for part in (name, hotkey):
        if part in ("", ".", "..") or "/" in part:
            raise Misconfigured(f"{part!r} is not a wallet or hotkey name", remedy="give a name without slashes")
    root = path if path is not None else Path.home() / ".bittensor" / "wallets"
    wallet = Wallet(name, hotkey, str(root))
    if create:
        _create_missing(wallet)
    _load_hotkey(wallet, root)
    return wallet


def hotkey_of(wallet: Wallet) -> str:
    """The hotkey's ss58 address: the identity that a node has on the chain, to the task server and in signatures."""
    return str(wallet.hotkey.ss58_address)


def sign(wallet: Wallet, message: bytes) -> str:
    """The hotkey's sr25519 signature over `message`, 128 hex characters; different at every call."""
    return bytes(wallet.hotkey.sign(message)).hex()


def verify(hotkey: str, message: bytes, signature: str) -> None:
    """Raises Unauthorized unless `signature` (128 hex characters) is `hotkey`'s sr25519 signature over `message`."""
    require_canonical(hotkey)
    try:
        genuine = verify_sr25519(message, bytes.fromhex(signature), hotkey, CRYPTO_SR25519)
    except ValueError as error:  # not hex, or not 64 bytes
        raise Unauthorized(f"malformed signature: {error}") from error
    if not genuine:
        raise Unauthorized(f"the signature is not {hotkey}'s over these bytes")


def require_coldkey(wallet: Wallet) -> None:
    """Raises Misconfigured unless the coldkey can sign unattended.

    An encrypted one needs the SDK's BT_WALLET_PASSWORD or BT_WALLET_PASSWORD_FILE; it would prompt otherwise.
    """
    file = wallet.coldkey_file
    elsewhere = "register with `btcli subnets register` where the coldkey is"
    if not file.exists_on_device():
        raise Misconfigured(f"wallet {wallet.name!r} has no coldkey here", remedy=elsewhere)
    try:
        password = resolve_wallet_password(wallet)
        if password is None and file.is_encrypted():
            raise Misconfigured(f"the coldkey of wallet {wallet.name!r} is locked", remedy=elsewhere)
        wallet.get_coldkey(password=password)
    except (OSError, ValueError, KeyfileError) as error:
        raise Misconfigured(
            f"cannot unlock the coldkey of wallet {wallet.name!r}: {error}", remedy=elsewhere
        ) from error


def require_canonical(hotkey: str) -> None:
    """Raises Unauthorized unless `hotkey` is an address in the chain's own ss58 format (42).

    A signature holds for the same key in any format, so without this one key would pass as many identities.
    """
    if not is_bittensor_address(hotkey):
        raise Unauthorized("the hotkey is not an ss58 address of this network")


def _create_missing(wallet: Wallet) -> None:
    # A machine that holds only the public halves keeps it that way; a kill between two files is mended by the next
    # call. Existing files are never written over: the SDK would ask whether to.
    cold, cold_public = wallet.coldkey_file, wallet.coldkeypub_file
    has_hotkey = wallet.hotkey_file.exists_on_device() or wallet.hotkeypub_file.exists_on_device()
    if not (has_hotkey or cold.exists_on_device() or cold_public.exists_on_device()):
        wallet.create_new_coldkey(use_password=False, suppress=True)
    if cold.exists_on_device() and not cold_public.exists_on_device() and not cold.is_encrypted():
        wallet.regenerate_coldkeypub(public_key="0x" + bytes(wallet.coldkey.public_key).hex())
    if not has_hotkey:
        wallet.create_new_hotkey(suppress=True)


def _load_hotkey(wallet: Wallet, root: Path) -> None:
    file = wallet.hotkey_file
    where = f"hotkey {wallet.hotkey_str!r} of wallet {wallet.name!r} in {root}"
    make = f"btcli wallet new-hotkey -w {wallet.name} -H {wallet.hotkey_str} -p {root}"
    if not file.exists_on_device():
        raise Misconfigured(f"there is no {where}", remedy=f"create it with `{make}`, or name another wallet")
    if file.is_encrypted():  # asked first: the SDK would prompt for the password
        raise Misconfigured(f"the {where} is encrypted", remedy="a node signs unattended: use an unencrypted hotkey")
    try:
        scheme = wallet.hotkey.crypto_type
    except (OSError, ValueError, KeyfileError) as error:
        raise Misconfigured(f"cannot read the {where}: {error}", remedy="restore the file from its mnemonic") from error
    if scheme != CRYPTO_SR25519:
        raise Misconfigured(f"the {where} is not an sr25519 key", remedy=f"create one with `{make}`")
