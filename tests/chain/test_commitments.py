from datetime import UTC, datetime

import bittensor_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.chain.commitments import Committed, plain_fields, read_commitments, reveal_round, sealed_fields
from athena.errors import BadInput, TooLarge

# The published pulse of drand's quicknet round 1000: chain hash 52db9ba7…, as `drand` itself serves it.
ROUND = 1000
PULSE = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"


def as_stored(fields: list[dict], block: int) -> dict:
    """A registration of the pallet as the SDK decodes it."""
    shown = [{k: "0x" + v.hex() if isinstance(v, bytes) else v for k, v in field.items()} for field in fields]
    return {"deposit": 0, "block": block, "info": {"fields": shown}}


def as_revealed(payload: bytes) -> str:
    """A `Vec<u8>` as the SDK decodes it."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return "0x" + payload.hex()


def compact(payload: bytes) -> bytes:
    size = len(payload)
    return (bytes([size << 2]) if size < 64 else (size << 2 | 1).to_bytes(2, "little")) + payload


def read_one(*, stored=None, reveals=None, last=None) -> Committed | None:
    found = read_commitments(
        [("key", stored)] if stored is not None else [],
        [("key", reveals)] if reveals is not None else [],
        {"key": last} if last is not None else {},
        {"key": 3},
    )
    return found[0] if found else None


@given(st.text(min_size=1, max_size=384).filter(lambda text: len(text.encode()) <= 384))
def test_plain_text_comes_back(text):
    fields = plain_fields(text)
    assert len(fields) <= 3
    assert read_one(stored=as_stored(fields, 7)) == Committed("key", 3, 7, 7, text, "plain")


@given(st.text(min_size=1, max_size=384).filter(lambda text: len(text.encode()) <= 384))
def test_revealed_text_comes_back_with_its_commit_block(text):
    revealed = as_revealed(compact(text.encode()))
    assert read_one(reveals=[(revealed, 20)], last=7) == Committed("key", 3, 7, 20, text, "revealed")


@pytest.mark.parametrize("text", ["a short text", "ath1|" + "a" * 250, "a" * 63, "a" * 64, "ü" * 192])
def test_sealed_text_opens_with_the_beacons_pulse(text):
    [field] = sealed_fields(text, ROUND)
    sealed = field["TimelockEncrypted"]
    assert sealed["reveal_round"] == ROUND and text.encode() not in sealed["encrypted"]
    envelope, _ = bittensor_core.encrypt_at_round(b"", ROUND)
    assert len(sealed["encrypted"]) <= 1024, "the pallet's bound on a ciphertext"
    opened = open_with_pulse(sealed["encrypted"], envelope)
    assert read_one(reveals=[(as_revealed(opened), 20)], last=7).text == text


def open_with_pulse(inner: bytes, template: bytes) -> bytes:
    """The plaintext of an inner ciphertext: wrapped again in the envelope that the SDK's function expects."""
    body = bytes(bittensor_core.inner_ciphertext(template))
    head, tail = template.split(body)
    length = compact(b"x" * len(inner))[: -len(inner)]
    old_length = compact(b"x" * len(body))[: -len(body)]
    assert head.endswith(old_length)
    return bytes(bittensor_core.decrypt_with_signature(head[: -len(old_length)] + length + inner + tail, PULSE))


@pytest.mark.parametrize("text, error", [("", BadInput), ("a" * 385, TooLarge), ("ü" * 193, TooLarge)])
def test_text_that_does_not_fit(text, error):
    with pytest.raises(error):
        plain_fields(text)
    with pytest.raises(error):
        sealed_fields(text, ROUND)


def test_reveal_round_is_the_first_after_the_delay():
    quicknet = {"genesis_time": 1_692_803_367, "period": 3}

    def at(seconds: float, delay: float = 0.0) -> int:
        return reveal_round(quicknet, datetime.fromtimestamp(1_692_803_367 + seconds, UTC), delay)

    assert [at(-100), at(0), at(0.5), at(3), at(3.001)] == [1, 1, 2, 2, 3]
    assert at(0, delay=2997) == 1000
    slow = {"genesis_time": 0, "period": 1_000_000}
    assert reveal_round(slow, datetime.fromtimestamp(998_500_000, UTC), 400_000) == 1000


SEALED = {"TimelockEncrypted": {"encrypted": "0x00", "reveal_round": 9}}
FAILED = {"TimelockRevealFailed": {"reveal_round": 9}}
TEXT = as_revealed(compact(b"text"))


@pytest.mark.parametrize(
    "stored, reveals, last, expected",
    [
        (as_stored([SEALED], 7), None, 7, (7, 0, None, "sealed")),
        (as_stored([SEALED], 7), [(TEXT, 5)], 7, (7, 0, None, "sealed")),
        (as_stored([FAILED], 7), None, 7, (7, 0, None, "failed")),
        (as_stored([{"Raw1": b"x"}, SEALED], 7), None, 7, (7, 0, None, "sealed")),
        # replaced in the very block that revealed the one before
        (as_stored([{"Raw1": b"x"}], 7), [(TEXT, 7)], 7, (7, 7, "x", "plain")),
        (as_stored([{"Raw1": b"x"}], 7), [(TEXT, 9)], 7, (7, 7, None, "plain")),
        (None, [(as_revealed(compact(b"old")), 5), (TEXT, 9)], 7, (7, 9, "text", "revealed")),
        (None, [(TEXT, 9), (as_revealed(compact(b"other")), 9)], 7, (7, 9, None, "revealed")),
        (None, [(TEXT, 7)], 7, None),
        (None, [(TEXT, 9)], None, None),
    ],
)
def test_life_of_a_commitment(stored, reveals, last, expected):
    found = read_one(stored=stored, reveals=reveals, last=last)
    assert found == (None if expected is None else Committed("key", 3, *expected))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"text",
        b"0xzz",  # the SDK's own reader takes this for hex and fails for all keys
        b"0x" + b"00" * 40,
        compact(b"text")[:-1],
        compact(b"text") + b"x",
        compact(b""),
        compact(b"\xff\xfe"),
        compact(b"a" * 385),
        b"\x03" + b"a" * 300,
        b"\x02\x00\x01\x00" + b"a" * 64,
        b"\xff" * 1000,
        b"\x01",
    ],
)
def test_revealed_bytes_that_are_no_commitment_have_no_text(payload):
    found = read_one(reveals=[(as_revealed(payload), 20)], last=7)
    assert found is not None and (found.text, found.status) == (None, "revealed")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["None"],
        ["ResetBondsFlag"],
        [{"BigRaw": "text"}],
        [{"Sha256": "0x" + "00" * 32}],
        [{"Raw0": b""}],
        [{"Raw2": b"\xff\xfe"}],
        [{"Raw1": b"x"}, {"BigRaw": "text"}],
        [{"Raw4": "text"}],
        [{"Raw4": None}],
        [{"Raw1": "0xz"}],
        [{"Raw1": "0x00", "Raw2": "0x00"}],
        [[{"Raw1": "0x00"}]],
        [{"Raw128": b"a" * 128}] * 4,
        [None],
    ],
)
def test_stored_fields_that_are_no_commitment_have_no_text(fields):
    found = read_one(
        stored=as_stored(fields, 7)
        if all(isinstance(f, dict) for f in fields)
        else {"block": 7, "info": {"fields": fields}}
    )
    assert found == Committed("key", 3, 7, 7, None, "plain")


json_like = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["0x", "0x00", "0xff", "Raw1", "block", "info"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["block", "info", "fields", "Raw1", "TimelockEncrypted"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    json_like, st.lists(st.tuples(st.text(max_size=30) | st.binary(max_size=30).map(as_revealed), st.integers(0, 99)))
)
def test_whatever_one_key_stored_the_others_are_read(stored, reveals):
    good = as_stored(plain_fields("good"), 7)
    found = read_commitments(
        [("bad", stored), ("good", good)], [("bad", reveals), ("worse", reveals)], {"worse": 3}, {"good": 1}
    )
    assert Committed("good", 1, 7, 7, "good", "plain") in found
    assert found == sorted(found, key=lambda entry: (entry.commit_block, entry.hotkey))
