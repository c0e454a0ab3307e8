"""WAL in batches: messages and columns, faults in a CopyData body, and the status that we send."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrepl import Lsn
from pgrepl.errors import ProtocolError
from tests.support import builders
from tests.support.feeding import batches_of, fill, pieces

UNSIGNED = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))
SIGNED = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 0, 2**63 - 1]))


class Data(NamedTuple):
    """An XLogData as this test knows it."""

    start: int
    end: int
    time: int
    payload: bytes

    def wire(self) -> bytes:
        return builders.copy_data(builders.xlog_data(*self))


class Keepalive(NamedTuple):
    """A keepalive as this test knows it."""

    end: int
    time: int
    reply: bool

    def wire(self) -> bytes:
        return builders.copy_data(builders.keepalive(*self))


DATA = st.builds(Data, UNSIGNED, UNSIGNED, SIGNED, st.binary(max_size=60))
KEEPALIVES = st.builds(Keepalive, UNSIGNED, SIGNED, st.booleans())
MESSAGES = st.lists(st.one_of(DATA, DATA, KEEPALIVES), min_size=1, max_size=40)
CUTS = st.lists(st.integers(0, 3000), max_size=12)


def known(message: Any) -> Data | Keepalive:
    """The message as this test knows it; which of the two it is, its fields tell."""
    if hasattr(message, "data"):
        return Data(message.wal_start, message.wal_end, message.server_time, bytes(message))
    return Keepalive(message.wal_end, message.server_time, message.reply_requested)


def batch_of(codec: ModuleType, messages: Sequence[Data | Keepalive]) -> Any:
    reader = codec.FrameReader()
    reader.feed(b"".join(message.wire() for message in messages))
    batch = codec.next_batch(reader)
    assert reader.pending == 0
    return batch


MIXED: list[Data | Keepalive] = [
    Keepalive(5, 1, False),
    Data(0, 0, 2, b"R"),
    Data(100, 200, -3, b"I" * 10),
    Keepalive(300, 4, True),
    Keepalive(310, 5, False),
    Data(50, 60, 6, b""),
]


# Batches


@given(messages=MESSAGES, end=st.sampled_from([b"", b"\n", b"--"]), count=st.integers(-1, 41))
def test_payloads_in_one_piece(
    codec: ModuleType, messages: list[Data | Keepalive], end: bytes, count: int
) -> None:
    batch = batch_of(codec, messages)
    payloads = [message.payload + end for message in messages if isinstance(message, Data)]
    assert batch.payloads(end) == b"".join(payloads)
    assert batch.payloads(end, count) == b"".join(payloads[: max(count, 0)])
    assert batch.tail(len(batch)).payloads(end) == b""


def test_what_follows_a_payload_is_bytes(codec: ModuleType) -> None:
    batch = batch_of(codec, MIXED)
    assert batch.payloads() == b"R" + b"I" * 10
    for nonsense in ("\n", None, bytearray(b"\n")):
        with pytest.raises(TypeError):
            batch.payloads(nonsense)
    with pytest.raises(TypeError):
        batch.payloads(b"", 1.0)


@given(messages=MESSAGES, cuts=CUTS)
def test_messages_come_as_they_were_sent_however_the_bytes_are_cut(
    codec: ModuleType, messages: list[Data | Keepalive], cuts: list[int]
) -> None:
    reader = codec.FrameReader(64)
    got = []
    for piece in pieces(b"".join(message.wire() for message in messages), cuts):
        fill(reader, piece)
        for batch in batches_of(codec, reader):
            assert len(batch) > 0
            got += list(batch)
    assert [known(message) for message in got] == messages
    assert [type(m) for m in got] == [
        codec.XLogData if isinstance(m, Data) else codec.PrimaryKeepalive for m in messages
    ]
    assert reader.pending == 0


@given(messages=MESSAGES)
def test_columns_say_what_the_messages_say(
    codec: ModuleType, messages: list[Data | Keepalive]
) -> None:
    batch = batch_of(codec, messages)
    data = [message for message in messages if isinstance(message, Data)]
    for name, format, expected in (
        ("wal_start", "Q", [message.start for message in data]),
        ("wal_end", "Q", [message.end for message in data]),
        ("server_time", "q", [message.time for message in data]),
    ):
        column = getattr(batch, name)
        assert type(column) is memoryview
        assert (column.format, column.itemsize, column.ndim) == (format, 8, 1)
        assert (column.shape, column.nbytes) == ((len(data),), 8 * len(data))
        assert column.readonly
        assert list(column) == column.tolist() == expected
        assert column.tobytes() == struct.pack(f"={len(data)}{format}", *expected)
        assert column[1:].tolist() == expected[1:]


def test_columns_fit_numpy(codec: ModuleType) -> None:
    numpy = pytest.importorskip("numpy")
    batch = batch_of(codec, MIXED)
    assert numpy.frombuffer(batch.wal_start, "u8").tolist() == [0, 100, 50]
    assert numpy.asarray(batch.wal_end).dtype == numpy.uint64
    assert numpy.asarray(batch.server_time).tolist() == [2, -3, 6]
    assert numpy.asarray(batch_of(codec, MIXED[:1]).wal_start).size == 0


def test_a_column_outlives_its_batch(codec: ModuleType) -> None:
    batch = batch_of(codec, MIXED)
    column = batch.wal_start
    del batch
    assert column.tolist() == [0, 100, 50]


@given(messages=MESSAGES)
def test_what_a_batch_tells_of_all_its_messages(
    codec: ModuleType, messages: list[Data | Keepalive]
) -> None:
    batch = batch_of(codec, messages)
    keepalives = [message for message in messages if isinstance(message, Keepalive)]
    data = [message for message in messages if isinstance(message, Data)]
    assert batch.reply_requested is any(keepalive.reply for keepalive in keepalives)
    ends = [keepalive.end for keepalive in keepalives]
    assert batch.received(False) == max(ends + [message.start for message in data])
    # A hostile position may lie so high that its end wraps around.
    wrapped = [(message.start + len(message.payload)) % 2**64 for message in data]
    assert batch.received(True) == max(ends + wrapped)
    assert repr(batch) == f"<WalBatch {len(data)} XLogData, {len(keepalives)} keepalives>"
    sizes = [5 + 25 + len(message.payload) for message in data] + [5 + 18] * len(keepalives)
    assert batch.nbytes == sum(sizes)


@given(
    messages=MESSAGES,
    bounds=st.tuples(
        *[st.none() | st.integers(-50, 50)] * 2, st.sampled_from([None, -2, -1, 1, 3])
    ),
)
def test_a_batch_is_a_sequence(
    codec: ModuleType, messages: list[Data | Keepalive], bounds: tuple[int | None, ...]
) -> None:
    batch = batch_of(codec, messages)
    count = len(messages)
    assert isinstance(batch, Sequence)
    assert len(batch) == count
    assert [known(batch[i]) for i in range(-count, count)] == messages * 2
    assert [known(message) for message in batch[slice(*bounds)]] == messages[slice(*bounds)]
    assert [known(message) for message in reversed(batch)] == messages[::-1]
    assert batch[0] in batch
    assert batch.count(batch[-1]) == messages.count(messages[-1])
    assert batch.index(batch[-1]) == messages.index(messages[-1])
    for beyond in (count, -count - 1, 10**30):
        with pytest.raises(IndexError):
            batch[beyond]
    with pytest.raises(TypeError):
        batch["0"]  # type: ignore[call-overload]


def test_a_batch_matches_a_sequence_pattern(codec: ModuleType) -> None:
    match batch_of(codec, MIXED):
        case [codec.PrimaryKeepalive(end, _, False), codec.XLogData(), *rest]:
            assert end == 5
            assert len(rest) == 4
        case _:
            raise AssertionError("a batch should match a sequence pattern")


def test_iterators_are_independent(codec: ModuleType) -> None:
    batch = batch_of(codec, MIXED)
    pairs = itertools.product(batch, batch)
    assert [known(a) for a, _ in pairs] == [m for m in MIXED for _ in MIXED]
    iterator = iter(batch)
    assert iter(iterator) is iterator
    del batch
    assert [known(message) for message in iterator] == MIXED
    assert next(iterator, None) is None


@given(messages=MESSAGES)
@settings(max_examples=50)
def test_the_tail_of_a_batch_is_a_batch(
    codec: ModuleType, messages: list[Data | Keepalive]
) -> None:
    batch = batch_of(codec, messages)
    for start in range(len(messages) + 1):
        tail, expected = batch.tail(start), messages[start:]
        assert [known(message) for message in tail] == expected
        data = [message for message in expected if isinstance(message, Data)]
        assert tail.wal_start.tolist() == [message.start for message in data]
        alike = batch_of(codec, expected) if expected else codec.WalBatch()
        assert (tail.received(False), tail.nbytes) == (alike.received(False), alike.nbytes)
        if expected:
            assert [known(message) for message in tail.tail(1)] == expected[1:]
    for beyond in (-1, len(messages) + 1):
        with pytest.raises(IndexError, match=f"between 0 and {len(messages)}, got {beyond}"):
            batch.tail(beyond)


def test_a_batch_of_keepalives_alone(codec: ModuleType) -> None:
    many = [Keepalive(i, -i, i == 70) for i in range(100)]
    batch = batch_of(codec, many)
    assert [known(message) for message in batch] == many
    assert batch.wal_start.tolist() == batch.wal_end.tolist() == batch.server_time.tolist() == []
    assert (batch.received(True), batch.received(False)) == (99, 99)
    assert batch.reply_requested is True
    assert batch.tail(71).reply_requested is False


def test_more_keepalives_than_anybody_expects(codec: ModuleType) -> None:
    many = [Keepalive(i, 0, False) if i % 3 else Data(i, i, 0, b"x") for i in range(1000)]
    assert [known(message) for message in batch_of(codec, many)] == many


def test_an_empty_batch_says_that_streaming_has_ended(codec: ModuleType) -> None:
    batch = codec.WalBatch()
    assert (len(batch), list(batch), list(batch[:]), bool(batch)) == (0, [], [], False)
    assert (batch.received(True), batch.received(False), batch.reply_requested) == (0, 0, False)
    assert batch.wal_start.tolist() == batch.wal_end.tolist() == batch.server_time.tolist() == []
    assert len(batch.tail(0)) == 0
    assert repr(batch) == "<WalBatch 0 XLogData, 0 keepalives>"


@given(messages=MESSAGES, foreign=st.sampled_from([builders.notice_response("n"), b"c\0\0\0\4"]))
def test_a_batch_ends_before_what_is_no_copy_data(
    codec: ModuleType, messages: list[Data | Keepalive], foreign: bytes
) -> None:
    reader = codec.FrameReader()
    run = b"".join(message.wire() for message in messages)
    reader.feed(run + foreign + run)
    assert [known(message) for message in codec.next_batch(reader)] == messages
    assert codec.next_batch(reader) is None
    assert reader.next_frame() == (foreign[:1], foreign[5:])
    assert [known(message) for message in codec.next_batch(reader)] == messages
    assert codec.next_batch(reader) is None


def test_a_piece_of_a_message_makes_no_batch(codec: ModuleType) -> None:
    wire = MIXED[2].wire()
    for cut in range(len(wire)):
        reader = codec.FrameReader()
        reader.feed(wire[:cut])
        assert codec.next_batch(reader) is None
        assert reader.pending == cut
        reader.feed(wire[cut:])
        assert [known(message) for message in codec.next_batch(reader)] == [MIXED[2]]


def test_a_batch_comes_from_a_reader_of_the_same_twin(codec: ModuleType) -> None:
    with pytest.raises((TypeError, AttributeError)):
        codec.next_batch(None)
    with pytest.raises((TypeError, AttributeError)):
        codec.next_batch(b"")


# Faults in a CopyData body

FAULTS = [
    (b"", b"d", "expected XLogData or a keepalive in a CopyData message, got an empty one"),
    (b"x", b"x", "expected 'w' (XLogData) or 'k' (keepalive) in a CopyData message, got 'x'"),
    (b"\0", b"\0", "expected 'w' (XLogData) or 'k' (keepalive) in a CopyData message, got 0x00"),
    (b"W" + bytes(24), b"W", "expected 'w' (XLogData) or 'k' (keepalive)"),
    (b"w", b"w", "expected an XLogData message of at least 25 bytes, got 1"),
    (b"w" + bytes(23), b"w", "expected an XLogData message of at least 25 bytes, got 24"),
    (b"k", b"k", "expected a keepalive of 18 bytes, got 1"),
    (b"k" + bytes(16), b"k", "expected a keepalive of 18 bytes, got 17"),
    (b"k" + bytes(18), b"k", "expected a keepalive of 18 bytes, got 19"),
    (b"k" + bytes(300), b"k", "expected a keepalive of 18 bytes, got 301"),
]


@pytest.mark.parametrize(("body", "tag", "words"), FAULTS)
def test_a_body_at_fault(codec: ModuleType, body: bytes, tag: bytes, words: str) -> None:
    reader = codec.FrameReader()
    reader.feed(b"".join(m.wire() for m in MIXED) + builders.copy_data(body) + MIXED[0].wire())
    assert [known(message) for message in codec.next_batch(reader)] == MIXED
    for _ in range(3):
        with pytest.raises(ProtocolError) as caught:
            codec.next_batch(reader)
        assert type(caught.value) is ProtocolError
        assert str(caught.value).startswith(words)
        assert (caught.value.tag, caught.value.offset) == (tag, 0)


@pytest.mark.parametrize("flag", [0, 1, 2, 0x80, 0xFF])
def test_any_other_number_than_zero_asks_for_a_reply(codec: ModuleType, flag: int) -> None:
    reader = codec.FrameReader()
    reader.feed(builders.copy_data(builders.keepalive(1, 2)[:-1] + bytes((flag,))))
    assert codec.next_batch(reader)[0].reply_requested is (flag != 0)


# What we send


@given(UNSIGNED, UNSIGNED, UNSIGNED, SIGNED, st.booleans())
def test_a_status_as_the_server_reads_it(
    codec: ModuleType, written: int, flushed: int, applied: int, time: int, reply: bool
) -> None:
    frame = codec.standby_status(written, flushed, applied, time, reply)
    numbers = [each.to_bytes(8, "big") for each in (written, flushed, applied, time % 2**64)]
    assert frame == b"d" + (38).to_bytes(4, "big") + b"r" + b"".join(numbers) + bytes((reply,))
    assert type(frame) is bytes


@pytest.mark.parametrize("place", range(4))
def test_a_status_that_cannot_be_said(codec: ModuleType, place: int) -> None:
    def status(value: Any) -> bytes:
        return bytes(codec.standby_status(*[value if i == place else 0 for i in range(4)], False))

    beyond = [2**63, -(2**63) - 1] if place == 3 else [2**64, -1]
    for value in beyond:
        with pytest.raises(OverflowError):
            status(value)
    with pytest.raises(TypeError):
        status(1.5)
    assert status(Lsn(5)) == status(5)
