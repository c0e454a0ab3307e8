"""The law of views: what looks at received bytes never sees them change, and when nothing looks,
their memory is used again."""

from __future__ import annotations

import ctypes
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import builders
from tests.support.feeding import batches_of, fill


def payload(number: int, size: int) -> bytes:
    """Bytes that differ from message to message in every place."""
    return bytes((number * 31 + i) % 256 for i in range(size))


# What a consumer may keep of a message, and what it must then see for ever.
KEEP: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "nothing": lambda batch, message: None,
    "batch": lambda batch, message: batch,
    "iterator": lambda batch, message: iter(batch),
    "message": lambda batch, message: message,
    "view": lambda batch, message: message.data,
    "part": lambda batch, message: message.data[3:-3],
    "view of view": lambda batch, message: memoryview(message.data)[1:],
    "tail": lambda batch, message: batch.tail(len(batch) - 1),
}


def seen(what: str, kept: Any) -> list[bytes]:
    """The payload bytes that are visible through a thing that was kept."""
    if what in ("batch", "tail"):
        return [bytes(message) for message in kept]
    if what == "iterator":  # looked at once, when the test is over
        return []
    return [bytes(kept)]


STEPS = st.lists(
    st.tuples(
        st.integers(0, 400),  # size of the next payload
        st.integers(1, 500),  # bytes in the read that may bring it
        st.sampled_from(list(KEEP)),
        st.integers(0, 6),  # how many of the oldest things kept to let go now
    ),
    min_size=5,
    max_size=60,
)


@given(steps=STEPS, chunk_size=st.integers(64, 256))
@settings(max_examples=300)
def test_no_view_ever_sees_its_bytes_change(
    codec: ModuleType, steps: list[tuple[int, int, str, int]], chunk_size: int
) -> None:
    reader = codec.FrameReader(chunk_size)
    unsent = b""
    sent: list[bytes] = []
    taken = 0
    kept: list[tuple[str, Any, list[bytes], list[bytes]]] = []
    for number, (size, read, what, let_go) in enumerate(steps):
        sent.append(payload(number, size))
        unsent += builders.copy_data(builders.xlog_data(number, number, 0, sent[-1]))
        fill(reader, unsent[:read])
        unsent = unsent[read:]
        for batch in batches_of(codec, reader):
            message = batch[-1]
            expected = sent[taken : taken + len(batch)]
            taken += len(batch)
            assert [bytes(each) for each in batch] == expected
            thing = KEEP[what](batch, message)
            if thing is not None:
                kept.append((what, thing, seen(what, thing), expected))
            del batch, message, thing
        del kept[:let_go]
        for name, thing, before, _ in kept:
            assert seen(name, thing) == before
    for name, thing, _, expected in kept:
        if name == "iterator":
            assert [bytes(each) for each in thing] == expected


def test_messages_stay_as_they_are_while_a_long_stream_goes_on(codec: ModuleType) -> None:
    reader = codec.FrameReader(4096)
    kept: list[tuple[Any, bytes]] = []
    for number in range(3000):
        body = payload(number, 10 + number % 300)
        fill(reader, builders.copy_data(builders.xlog_data(number, number, 0, body)), 1000)
        for message in codec.next_batch(reader):
            kept.append((message if number % 2 else message.data, body))
        if number % 5 == 0:
            kept.pop(number % len(kept))
    assert len(kept) > 2000
    assert all(bytes(thing) == body for thing, body in kept)


def test_a_view_stays_while_its_chunk_grows_for_a_large_frame(codec: ModuleType) -> None:
    reader = codec.FrameReader(256)
    fill(reader, builders.copy_data(builders.xlog_data(1, 1, 0, b"first")))
    view = codec.next_batch(reader)[0].data
    large = payload(2, 100_000)
    fill(reader, builders.copy_data(builders.xlog_data(2, 2, 0, large)), 1000)
    second = codec.next_batch(reader)[0].data
    fill(reader, builders.copy_data(builders.xlog_data(3, 3, 0, payload(3, 100_000))))
    codec.next_batch(reader)
    assert bytes(view) == b"first"
    assert bytes(second) == large


# When nothing looks, memory is used again. How, is the native twin's own affair.


@pytest.fixture
def native(codec: ModuleType) -> ModuleType:
    if not codec.__name__.endswith("_native"):
        pytest.skip("the pure twin leaves its memory to Python")
    return codec


def address_of_room(reader: Any) -> int:
    with reader.get_buffer() as room:
        return ctypes.addressof(ctypes.c_char.from_buffer(room))


def addresses(codec: ModuleType, rounds: int, keep: Any) -> set[int]:
    """Where the chunks lie, one after the other, while `keep` holds on to what a round brought."""
    reader = codec.FrameReader(4096)
    found = set()
    for number in range(rounds):
        found.add(address_of_room(reader))
        fill(reader, builders.copy_data(builders.xlog_data(number, number, 0, bytes(1000))))
        keep(codec.next_batch(reader))
    return found


def test_a_chunk_that_nobody_looks_at_is_filled_again(native: ModuleType) -> None:
    assert len(addresses(native, 1000, lambda batch: None)) == 1


def test_a_consumer_that_keeps_the_last_batch_needs_two_chunks(native: ModuleType) -> None:
    last: list[Any] = []

    def keep(batch: Any) -> None:
        last[:] = [batch]

    assert len(addresses(native, 1000, keep)) == 2


def test_messages_that_are_kept_have_chunks_of_their_own(native: ModuleType) -> None:
    kept: list[Any] = []
    assert len(addresses(native, 200, lambda batch: kept.append(batch[0]))) >= 200 / 4


@pytest.mark.parametrize("what", ["wal_start", "wal_end", "server_time"])
def test_a_column_does_not_hold_the_chunk(native: ModuleType, what: str) -> None:
    kept: list[Any] = []
    assert len(addresses(native, 200, lambda batch: kept.append(getattr(batch, what)))) == 1
    assert [column[0] for column in kept] == ([0] * 200 if what == "server_time" else [*range(200)])


def test_a_long_stream_needs_no_more_memory_than_a_short_one(codec: ModuleType) -> None:
    reader = codec.FrameReader()
    piece = builders.copy_data(builders.xlog_data(1, 1, 0, bytes(1000))) * 100
    count = 0
    tracemalloc.start()
    try:
        for _ in range(300):
            fill(reader, piece)
            for batch in batches_of(codec, reader):
                count += len(batch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 30_000
    assert peak < 2 << 20, "30 MB went through"
