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
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.codec import Row, _pure
from pgrepl.errors import DecodeError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from tests.parity.twins import exact
from tests.support.feeding import read
from tests.support.pgoutput_encoder import encode
from tests.support.pgoutput_server import Server
from tests.support.pgoutput_strategies import DIALECTS, Conversation, Dialect, conversations

MUTATIONS = int(os.environ.get("PGREPL_MUTATIONS", "20000"))
LSN = Lsn("1/F73E0220")
TAGS = b"BCORYIUDTMSEcAbPKrp"

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

XID, TIME = 740, 848653377652022

MARKED: tuple[Any, ...] = (
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
ORIGIN = Origin(Lsn(2**64 - 1), "elsewhere")
START = StreamStart(XID, True)
PREPARED = (LSN, Lsn(LSN + 0x30), -1, 2**32 - 1, "gid é")

V1: tuple[LogicalMessage, ...] = (
    Begin(LSN, TIME, 732),
    Commit(LSN, Lsn(LSN + 0x30), -1),
    ORIGIN,
    *MARKED,
)
OUTSIDE: tuple[LogicalMessage, ...] = (
    *V1,
    START,
    StreamStart(0, False),
    StreamCommit(XID, LSN, Lsn(LSN + 0x30), TIME),
    BeginPrepare(*PREPARED),
    Prepare(*PREPARED),
    CommitPrepared(*PREPARED),
    RollbackPrepared(LSN, Lsn(0), -1, TIME, 0, ""),
    StreamPrepare(*PREPARED),
)
SHORT, LONG = StreamAbort(XID, XID + 1), StreamAbort(XID, XID, LSN, TIME)
INSIDE: tuple[LogicalMessage, ...] = (
    *(replace(message, xid=XID + i % 2) for i, message in enumerate(MARKED)),
    ORIGIN,
    StreamStop(),
)


class Place(NamedTuple):
    """Where a payload comes: what the decoder was asked for, and what it was fed before."""

    dialect: Dialect
    before: tuple[LogicalMessage, ...]
    messages: tuple[LogicalMessage, ...]


PLACES = (
    Place(Dialect(1, "off"), DESCRIBED, (*V1, SHORT)),
    Place(Dialect(3, "on"), DESCRIBED, (*OUTSIDE, SHORT)),
    Place(Dialect(4, "parallel"), DESCRIBED, (*OUTSIDE, LONG)),
    Place(Dialect(2, "on"), (*DESCRIBED, START), INSIDE),
)


class Sample(NamedTuple):
    """A payload and its place."""

    place: Place
    payload: bytes


MESSAGES = tuple(message for place in PLACES for message in place.messages)
SAMPLES = tuple(Sample(place, encode(message)) for place in PLACES for message in place.messages)


class Outcome(NamedTuple):
    """What feeding a payload led to, so that two of them can be compared."""

    message: LogicalMessage | str | None  # of one with a bad value its text
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
        return Outcome(None, *faults_of(error))
    shown = repr(message)
    try:
        read(message)
    except DecodeError as error:
        return Outcome(shown, *faults_of(error))
    return Outcome(message, repr(exact(message)), None)


def faults_of(error: DecodeError) -> tuple[str, tuple[Any, ...]]:
    return str(error), (type(error), error.tag, error.offset, error.lsn)


def agreed(
    native: ModuleType, dialect: Dialect, payloads: Iterable[bytes], ordered: bool = False
) -> Iterator[Outcome]:
    """Feed the same to a decoder of both twins, up to the first fault, and give what comes out."""
    one, other = (twin.Decoder(*dialect, typed=False, ordered=ordered) for twin in (native, _pure))
    for payload in payloads:
        result = outcome(one, payload)
        assert result == outcome(other, payload), (dialect, payload.hex(" "))
        assert one.totals == other.totals
        yield result
        if result.error:
            _, _, offset, _ = result.error
            assert 0 <= offset <= len(payload)
            break


def outcomes(native: ModuleType, samples: Iterable[Sample]) -> Iterator[Outcome]:
    """Feed each payload to fresh decoders at its place, and give what they agree on."""
    # What comes next tells whether both are in a stream block now, or both are not.
    probes = encode(Insert(ITEM, ROW)), encode(StreamStop())
    for place, payload in samples:
        payloads = [*map(encode, place.before), payload, *probes]
        yield [*agreed(native, place.dialect, payloads)][len(place.before)]


def test_every_message(native: ModuleType) -> None:
    results = list(outcomes(native, SAMPLES))
    assert [result.message for result in results] == list(MESSAGES)


def test_v6_v10_every_message_cut_short_anywhere(native: ModuleType) -> None:
    cuts = [
        Sample(place, payload[:size]) for place, payload in SAMPLES for size in range(len(payload))
    ]
    results = list(outcomes(native, cuts))
    assert len(results) == sum(len(payload) for _, payload in SAMPLES)
    assert all(result.error for result in results)


def test_v10_every_message_with_any_one_bit_flipped(native: ModuleType) -> None:
    def flips() -> Iterator[Sample]:
        for place, payload in SAMPLES:
            for bit in range(len(payload) * 8):
                mutant = bytearray(payload)
                mutant[bit // 8] ^= 1 << bit % 8
                yield Sample(place, bytes(mutant))

    results = list(outcomes(native, flips()))
    assert {result.error is None for result in results} == {True, False}


def test_every_message_at_every_place(native: ModuleType) -> None:
    results = list(outcomes(native, (Sample(p, s.payload) for p in PLACES for s in SAMPLES)))
    assert {result.error is None for result in results} == {True, False}


def test_random_mutations(native: ModuleType) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    chance = random.Random(seed)
    results = outcomes(native, (mutant(chance) for _ in range(MUTATIONS)))
    broken = sum(result.error is not None for result in results)
    # Neither all of them pass nor all of them stop at the first field.
    assert MUTATIONS // 20 < broken < MUTATIONS


def mutant(chance: random.Random) -> Sample:
    """Return a payload with a few things wrong with it, its place perhaps among them."""
    place, payload = chance.choice(SAMPLES)
    data = bytearray(payload)
    for _ in range(chance.randint(1, 4)):
        chance.choice(MUTATORS)(data, chance)
    return Sample(chance.choice((place, place, *PLACES)), bytes(data))


def set_byte(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice(
            (0, 1, 0x7F, 0x80, 0xFF, *b"NKOnutb", *TAGS)
        )


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
    other = chance.choice(SAMPLES).payload
    data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]


MUTATORS = (set_byte, set_number, cut, remove, insert, splice)


@given(
    st.sampled_from(DIALECTS).flatmap(
        lambda dialect: st.tuples(st.just(dialect), st.lists(conversations(dialect), max_size=6))
    ),
    st.binary(max_size=40),
    st.integers(0, 6),
    st.booleans(),
)
def test_a_stream_with_a_fault_in_it(
    native: ModuleType,
    stream: tuple[Dialect, list[Conversation]],
    garbage: bytes,
    position: int,
    ordered: bool,
) -> None:
    # Relations come again and again with other columns, so what a decoder remembers counts here.
    dialect, parts = stream
    payloads = [encode(m) for part in parts for m in (*part.before, part.message, *part.after)]
    payloads.insert(position, garbage)
    list(agreed(native, dialect, payloads, ordered))


@given(
    seed=st.integers(0, 2**64 - 1),
    chance=st.randoms(use_true_random=False),
    ordered=st.booleans(),
)
def test_transactions_in_any_order(
    native: ModuleType, seed: int, chance: random.Random, ordered: bool
) -> None:
    # What a server sends, and now and then something left out, moved or with another xid.
    payloads = [encode(message) for message in Server(seed).messages(40)]
    for _ in range(chance.randint(0, 3)):
        payloads.insert(chance.randint(0, len(payloads)), chance.choice(payloads))
        del payloads[chance.randrange(len(payloads))]
    list(agreed(native, Dialect(3, "on"), payloads, ordered))


@given(payload=st.binary(max_size=60), tag=st.sampled_from(TAGS))
def test_any_bytes_behind_any_tag(native: ModuleType, payload: bytes, tag: int) -> None:
    payloads = payload, bytes((tag,)) + payload
    list(outcomes(native, (Sample(place, each) for place in PLACES for each in payloads)))


NO_SLOTS = """
import pgrepl.messages as messages
for name in ("Begin", "Commit", "Insert", "Update", "Delete", "Message"):
    # A subclass keeps its fields where its base does, but has no slots of its own to be looked up.
    setattr(messages, name, type(name, (getattr(messages, name),), {}))
from pgrepl.codec._native import Decoder
decoder = Decoder(4, "parallel", typed=False)
for line in open(0):
    message = decoder.feed(bytes.fromhex(line))
    print(ascii(message), type(message) is getattr(messages, type(message).__name__))
"""


def test_native_sets_fields_that_are_not_plain_slots(native: ModuleType) -> None:
    # Not what INSIDE begins with: rows would then have relations with an xid, which a text shows.
    messages = (*DESCRIBED, *V1, START, *INSIDE[len(DESCRIBED) :])
    payloads = [encode(message) for message in messages]
    run = subprocess.run(
        [sys.executable, "-c", NO_SLOTS],
        input="\n".join(payload.hex() for payload in payloads),
        env=os.environ | {"PGREPL_IMPL": "python"},  # so that messages.py comes before the twin
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == [f"{message!a} True" for message in messages]
