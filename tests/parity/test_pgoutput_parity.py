"""pgoutput on both twins: whatever the bytes, the same message or the same error.

``PGREPL_MUTATIONS=100000`` tries as many random mutations, instead of the few of an ordinary run.
"""

from __future__ import annotations

import importlib
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.codec import _pure
from pgrepl.errors import DecodeError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Row,
    Truncate,
    Type,
    Update,
)
from tests.support.pgoutput_encoder import encode
from tests.support.pgoutput_strategies import conversations

MUTATIONS = int(os.environ.get("PGREPL_MUTATIONS", "20000"))
LSN = Lsn("1/F73E0220")

ITEM = Relation(
    16389,
    "public",
    "item",
    "d",
    (
        Column("id", 20, -1, True),
        Column("note", 25, -1, False),
        Column("Größe", 1700, 786438, True),
    ),
)
LOG = Relation(2**32 - 1, "pg_catalog", "log", "f", (Column("line", 25, -1, True),))
BARE = Relation(7, "s", "bare", "n", ())
DESCRIBED = (ITEM, LOG, BARE)
ROW = Row(ITEM, ("1", "a note é \U0001f418", "1.50"))
KEY = Row(ITEM, ("1", "1.50"), key_only=True)

MESSAGES: tuple[LogicalMessage, ...] = (
    Begin(LSN, 848653377652022, 732),
    Commit(LSN, Lsn(LSN + 0x30), -1),
    Origin(Lsn(2**64 - 1), "elsewhere"),
    *DESCRIBED,
    Type(16385, "public", "mood"),
    Insert(ITEM, ROW),
    Insert(ITEM, Row(ITEM, (b"\0\1", None, UNCHANGED))),
    Insert(BARE, Row(BARE, ())),
    Update(ITEM, None, None, ROW),
    Update(ITEM, KEY, None, Row(ITEM, ("2", UNCHANGED, None))),
    Update(LOG, None, Row(LOG, ("",)), Row(LOG, ("x" * 300,))),
    Delete(ITEM, KEY, None),
    Delete(LOG, None, Row(LOG, (b"",))),
    Truncate((), False, False),
    Truncate((LOG, ITEM, ITEM), True, True),
    Message(True, LSN, "prefix", b"content"),
    Message(False, LSN, "", b""),
)
PAYLOADS = tuple(encode(message) for message in MESSAGES)


class Outcome(NamedTuple):
    """What feeding a payload led to, so that two of them can be compared."""

    message: LogicalMessage | None
    shown: str
    error: tuple[Any, ...] | None


@pytest.fixture(scope="module")
def native() -> ModuleType:
    """The native twin; a run that must have it fails without."""
    if os.environ.get("PGREPL_REQUIRE_EXT") == "1":
        return importlib.import_module("pgrepl.codec._native")
    module: ModuleType = pytest.importorskip("pgrepl.codec._native", exc_type=ImportError)
    return module


def outcome(decoder: Any, payload: bytes) -> Outcome:
    """Feed a payload; an exception other than `DecodeError` is nobody's right."""
    try:
        message = decoder.feed(payload, lsn=LSN)
    except DecodeError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(payload)
        return Outcome(None, str(error), (type(error), error.tag, error.offset, error.lsn))
    # Equality does not tell an Lsn from an int, or True from 1; the text does.
    return Outcome(message, repr(message), None)


def outcomes(native: ModuleType, payloads: Iterator[bytes]) -> Iterator[Outcome]:
    """Feed each payload to a fresh decoder of both twins, and give what they agree on."""
    for payload in payloads:
        results = []
        for twin in (native, _pure):
            decoder = twin.Decoder()
            for relation in DESCRIBED:
                decoder.feed(encode(relation))
            results.append(outcome(decoder, payload))
        assert results[0] == results[1], payload.hex(" ")
        yield results[0]


def test_every_message(native: ModuleType) -> None:
    results = list(outcomes(native, iter(PAYLOADS)))
    assert [result.message for result in results] == list(MESSAGES)


def test_every_message_cut_short_anywhere(native: ModuleType) -> None:
    cuts = (payload[:size] for payload in PAYLOADS for size in range(len(payload)))
    results = list(outcomes(native, cuts))
    assert len(results) == sum(map(len, PAYLOADS))
    assert all(result.error for result in results)


def test_every_message_with_any_one_bit_flipped(native: ModuleType) -> None:
    def flips() -> Iterator[bytes]:
        for payload in PAYLOADS:
            for bit in range(len(payload) * 8):
                mutant = bytearray(payload)
                mutant[bit // 8] ^= 1 << bit % 8
                yield bytes(mutant)

    results = list(outcomes(native, flips()))
    assert {result.error is None for result in results} == {True, False}


def test_random_mutations(native: ModuleType) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    chance = random.Random(seed)
    results = outcomes(native, (mutant(chance) for _ in range(MUTATIONS)))
    broken = sum(result.error is not None for result in results)
    # Neither all of them pass nor all of them stop at the first field.
    assert MUTATIONS // 20 < broken < MUTATIONS


def mutant(chance: random.Random) -> bytes:
    """Return a payload with a few things wrong with it."""
    data = bytearray(chance.choice(PAYLOADS))
    for _ in range(chance.randint(1, 4)):
        chance.choice(MUTATORS)(data, chance)
    return bytes(data)


def set_byte(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, *b"NKOnutbIUD"))


def set_number(data: bytearray, chance: random.Random) -> None:
    """Write a number over any place, where a length or count may stand."""
    layout = chance.choice((">h", ">i"))
    edge = 1 << 8 * struct.calcsize(layout) - 1
    number = struct.pack(layout, chance.choice((-edge, -2, -1, 0, 1, 2, 3, 255, edge - 1)))
    at = chance.randint(0, len(data))
    data[at : at + len(number)] = number


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randint(0, len(data)) :]


def remove(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    del data[at : at + chance.randint(1, 8)]


def insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.randbytes(chance.randint(1, 8))


def splice(data: bytearray, chance: random.Random) -> None:
    other = chance.choice(PAYLOADS)
    data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]


MUTATORS = (set_byte, set_number, cut, remove, insert, splice)


@given(st.lists(conversations(), max_size=6), st.binary(max_size=40), st.integers(0, 6))
def test_a_stream_with_a_fault_in_it(
    native: ModuleType,
    stream: list[tuple[tuple[Relation, ...], LogicalMessage]],
    garbage: bytes,
    position: int,
) -> None:
    # Relations come again and again with other columns, so what a decoder remembers counts here.
    payloads = [encode(m) for relations, message in stream for m in (*relations, message)]
    payloads.insert(position, garbage)
    one, other = native.Decoder(), _pure.Decoder()
    for payload in payloads:
        assert outcome(one, payload) == outcome(other, payload)


@given(payload=st.binary(max_size=60), tag=st.sampled_from(b"BCORYIUDTM"))
def test_any_bytes_behind_any_tag(native: ModuleType, payload: bytes, tag: int) -> None:
    list(outcomes(native, iter((payload, bytes((tag,)) + payload))))


NO_SLOTS = """
import pgrepl.messages as messages
for name in ("Begin", "Commit", "Insert", "Update", "Delete", "Message", "Row"):
    # A subclass keeps its fields where its base does, but has no slots of its own to be looked up.
    setattr(messages, name, type(name, (getattr(messages, name),), {}))
from pgrepl.codec._native import Decoder
decoder = Decoder()
for line in open(0):
    message = decoder.feed(bytes.fromhex(line))
    print(ascii(message), type(message) is getattr(messages, type(message).__name__))
"""


def test_native_sets_fields_that_are_not_plain_slots(native: ModuleType) -> None:
    payloads = [encode(message) for message in (*DESCRIBED, *MESSAGES)]
    run = subprocess.run(
        [sys.executable, "-c", NO_SLOTS],
        input="\n".join(payload.hex() for payload in payloads),
        env=os.environ | {"PGREPL_IMPL": "python"},  # so that messages.py comes before the twin
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == [f"{message!a} True" for message in (*DESCRIBED, *MESSAGES)]
