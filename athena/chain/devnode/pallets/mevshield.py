"""The MEV shield: extrinsics that travel encrypted to the block author inside MevShield.submit_encrypted.

The author's ML-KEM-768 key here is a public key with t = 0, whose secret key is zero: the ciphertext's v part is then
the message itself plus small noise, so the node opens it with a rounding, and so could anyone. The client's side is
the real cryptography, unchanged.
"""

from __future__ import annotations

import hashlib

from Crypto.Cipher import ChaCha20_Poly1305

from athena.chain.devnode.block import blake2b_256
from athena.chain.devnode.execution import Execution
from athena.chain.devnode.extrinsics import MAX_EXTRINSIC_BYTES, Call
from athena.chain.devnode.scale import Reader
from athena.errors import BadInput

PALLET = "MevShield"
# 256 coefficients of 12 bits for each of the 3 zero polynomials of t, then the seed of the matrix. The seed must not
# be UTF-8: the codec would hand the key to clients as text.
NEXT_KEY = bytes(1152) + b"\xff" * 32
_KEY_HASH_BYTES, _KEM_BYTES, _U_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 1088, 960, 24, 16
_MAX_CIPHERTEXT_BYTES = 8192


def genesis(block: Execution) -> None:
    block.storage.put(PALLET, "NextKey", value=NEXT_KEY)


def submit_encrypted(block: Execution, signer: str, call: Call) -> None:
    """Takes the carrier; what it holds follows it in the same block if it opens and is valid."""
    ciphertext = ciphertext_of(call)
    block.deposit_event(PALLET, "EncryptedSubmitted", {"id": blake2b_256(ciphertext), "who": signer})
    block.carried = open_shielded(ciphertext)


def ciphertext_of(call: Call) -> bytes:
    return Reader(call.data).vector(max_bytes=_MAX_CIPHERTEXT_BYTES)


def open_shielded(ciphertext: bytes) -> bytes | None:
    """The extrinsic inside: [key hash][u16 KEM length][KEM ciphertext][nonce][sealed]; None if it does not open."""
    reader = Reader(ciphertext)
    try:
        reader.take(_KEY_HASH_BYTES)
        if reader.number(2) != _KEM_BYTES:
            return None
        kem, nonce, sealed = reader.take(_KEM_BYTES), reader.take(_NONCE_BYTES), reader.rest()
    except BadInput:
        return None
    if not _TAG_BYTES < len(sealed) <= MAX_EXTRINSIC_BYTES:
        return None
    cipher = ChaCha20_Poly1305.new(key=_shared_secret(kem), nonce=nonce)
    try:
        return cipher.decrypt_and_verify(sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:])
    except ValueError:
        return None


def _shared_secret(kem: bytes) -> bytes:
    """FIPS 203: v holds one 4-bit coefficient a message bit, near 8 for 1 and near 0 for 0; K = G(m, H(key))[:32]."""
    message = bytearray(32)
    for index in range(256):
        coefficient = kem[_U_BYTES + index // 2] >> 4 * (index % 2) & 0xF
        message[index // 8] |= (4 <= coefficient < 12) << index % 8
    return hashlib.sha3_512(bytes(message) + hashlib.sha3_256(NEXT_KEY).digest()).digest()[:32]
