"""Frames: the same ones however the bytes are cut, and a fault at the moment it can be seen."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrepl.errors import ProtocolError
from tests.support import builders
from tests.support.feeding import fill, frames_of, pieces

# From the list of message formats: those that carry data of any size, and those that never do.
LONG_TAGS = b"dDTENAV"
SHORT_TAGS = b"RKSZCcWHGIv123nst"
TAGS = LONG_TAGS + SHORT_TAGS
MAX_LENGTH = 0x3FFFFFFF
SHORT_LENGTH = 30000

FRAMES = st.lists(
    st.tuples(
        st.sampled_from([bytes((tag,)) for tag in TAGS]),
        st.one_of(st.binary(max_size=40), st.integers(0, 700).map(bytes)),
    ),
    max_size=30,
)
CUTS = st.lists(st.integers(0, 5000), max_size=30)


def wire(frames: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(builders.message(tag, body) for tag, body in frames)


def header(tag: int, length: int) -> bytes:
    return struct.pack("!Bi", tag, length)


def fault(reader: Any) -> tuple[str, bytes | None, int | None]:
    with pytest.raises(ProtocolError) as caught:
        reader.next_frame()
    assert type(caught.value) is ProtocolError
    return str(caught.value), caught.value.tag, caught.value.offset


# The same frames however the bytes are cut


@given(frames=FRAMES, cuts=CUTS, chunk_size=st.integers(64, 300))
def test_any_cut_gives_the_same_frames(
    codec: ModuleType, frames: list[tuple[bytes, bytes]], cuts: list[int], chunk_size: int
) -> None:
    data = wire(frames)
    for way in (fill, lambda r, piece: r.feed(piece)):
        reader = codec.FrameReader(chunk_size)
        got = []
        arrived = taken = 0
        for piece in pieces(data, cuts):
            way(reader, piece)
            arrived += len(piece)
            new = frames_of(reader)
            got += new
            taken += sum(5 + len(body) for _, body in new)
            assert reader.pending == arrived - taken
        assert got == frames
        assert reader.pending == 0


@given(frames=FRAMES)
@settings(max_examples=30)
def test_byte_by_byte_a_frame_comes_with_its_last_byte(
    codec: ModuleType, frames: list[tuple[bytes, bytes]]
) -> None:
    reader = codec.FrameReader(64)
    ends = list(itertools.accumulate(5 + len(body) for _, body in frames))
    got = []
    for number, byte in enumerate(wire(frames), 1):
        fill(reader, bytes((byte,)))
        frame = reader.next_frame()
        assert (frame is not None) == (number in ends)
        if frame is not None:
            got.append(frame)
            assert reader.next_frame() is None
    assert got == frames


@given(frames=FRAMES, cuts=CUTS)
@settings(max_examples=50)
def test_frames_can_wait_as_long_as_they_like(
    codec: ModuleType, frames: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    reader = codec.FrameReader(64)
    for piece in pieces(wire(frames), cuts):
        fill(reader, piece)
    assert reader.pending == len(wire(frames))
    assert frames_of(reader) == frames


def test_a_frame_is_two_bytes_objects(codec: ModuleType) -> None:
    reader = codec.FrameReader()
    reader.feed(builders.message(b"C", b"SELECT\0"))
    tag, body = reader.next_frame()
    assert (type(tag), type(body)) == (bytes, bytes)
    assert (tag, body) == (b"C", b"SELECT\0")
    assert reader.next_frame() is None


def test_an_empty_body(codec: ModuleType) -> None:
    for tag in TAGS:
        reader = codec.FrameReader()
        reader.feed(header(tag, 4) * 2)
        assert frames_of(reader) == [(bytes((tag,)), b"")] * 2


@pytest.mark.parametrize("way", [bytes, bytearray, memoryview])
def test_whatever_holds_bytes_can_be_fed(codec: ModuleType, way: Any) -> None:
    reader = codec.FrameReader()
    reader.feed(way(builders.ready_for_query()))
    assert reader.next_frame() == (b"Z", b"I")


@pytest.mark.parametrize("data", [5, "Z", None, [90]])
def test_what_holds_no_bytes_cannot(codec: ModuleType, data: object) -> None:
    reader = codec.FrameReader()
    with pytest.raises(TypeError):
        reader.feed(data)
    assert reader.pending == 0


# Faults


@pytest.mark.parametrize("length", [-(2**31), -5, -1, 0, 1, 2, 3, MAX_LENGTH + 1, 2**31 - 1])
def test_v5_v6_a_length_out_of_range(codec: ModuleType, length: int) -> None:
    for tag in TAGS:
        allowed = MAX_LENGTH if tag in LONG_TAGS else SHORT_LENGTH
        reader = codec.FrameReader()
        for byte in header(tag, length)[:-1]:
            reader.feed(bytes((byte,)))
            assert reader.next_frame() is None  # any length can still come
        reader.feed(header(tag, length)[-1:])
        assert fault(reader) == (
            f"expected a length between 4 and {allowed} for message {chr(tag)!r}, got {length} "
            "(offset 1)",
            bytes((tag,)),
            1,
        )


def test_messages_without_data_are_short(codec: ModuleType) -> None:
    for tag in SHORT_TAGS:
        reader = codec.FrameReader()
        reader.feed(header(tag, SHORT_LENGTH) + bytes(SHORT_LENGTH - 4))
        reader.feed(header(tag, SHORT_LENGTH + 1))
        assert reader.next_frame() == (bytes((tag,)), bytes(SHORT_LENGTH - 4))
        message, *where = fault(reader)
        assert f"between 4 and 30000 for message {chr(tag)!r}, got 30001" in message
        assert where == [bytes((tag,)), 1]


def test_messages_with_data_may_be_as_long_as_the_server_can_make_them(codec: ModuleType) -> None:
    for tag in LONG_TAGS:
        reader = codec.FrameReader()
        reader.feed(header(tag, MAX_LENGTH))
        assert reader.next_frame() is None  # it may still come
        assert reader.pending == 5


def test_an_unknown_tag_is_seen_at_once(codec: ModuleType) -> None:
    for tag in set(range(256)) - set(TAGS):
        reader = codec.FrameReader()
        reader.feed(bytes((tag,)))
        message, *where = fault(reader)
        shown = repr(chr(tag)) if 0x20 < tag < 0x7F else f"0x{tag:02x}"
        assert message == f"expected the tag of a backend message, got {shown} (offset 0)"
        assert where == [bytes((tag,)), 0]


@given(
    frames=FRAMES,
    cuts=CUTS,
    bad=st.one_of(
        st.sampled_from([b"x", b"\0", b"Q", b"\xff"]),
        st.tuples(
            st.sampled_from(TAGS),
            st.one_of(st.integers(-(2**31), 3), st.integers(MAX_LENGTH + 1, 2**31 - 1)),
        ).map(lambda pair: header(*pair)),
    ),
    behind=st.binary(max_size=300),
)
def test_a_fault_comes_after_all_before_it_and_then_for_ever(
    codec: ModuleType,
    frames: list[tuple[bytes, bytes]],
    cuts: list[int],
    bad: bytes,
    behind: bytes,
) -> None:
    reader = codec.FrameReader(64)
    got = []
    error = None
    for piece in pieces(wire(frames) + bad + behind, cuts):
        fill(reader, piece)
        if error is None:
            try:
                while (frame := reader.next_frame()) is not None:
                    got.append(frame)
            except ProtocolError as caught:
                error = (str(caught), caught.tag, caught.offset)
                assert got == frames
        if error is not None:
            assert fault(reader) == fault(reader) == error
            with pytest.raises(ProtocolError) as caught_again:
                codec.next_batch(reader)
            assert str(caught_again.value) == error[0]
    assert error is not None
    assert error[1] == bad[:1]


# The limit


def test_v7_a_lower_limit_holds_for_every_tag(codec: ModuleType) -> None:
    reader = codec.FrameReader()
    assert reader.limit == MAX_LENGTH
    reader.limit = 100
    assert reader.limit == 100
    reader.feed(header(ord("E"), 100) + bytes(96) + header(ord("d"), 101))
    assert reader.next_frame() == (b"E", bytes(96))
    assert "between 4 and 100 for message 'd', got 101" in fault(reader)[0]
    reader.limit = 101
    assert reader.next_frame() is None
    reader.feed(bytes(97))
    assert reader.next_frame() == (b"d", bytes(97))


def test_a_higher_limit_leaves_short_messages_short(codec: ModuleType) -> None:
    reader = codec.FrameReader()
    reader.limit = 65536
    reader.feed(header(ord("Z"), 30001))
    assert "between 4 and 30000 for message 'Z', got 30001" in fault(reader)[0]


def test_the_limit_is_none_of_a_batchs_business(codec: ModuleType) -> None:
    frame = builders.copy_data(builders.xlog_data(1, 1, 0, bytes(200)))
    for cut in (0, 5, 50, len(frame)):
        reader = codec.FrameReader()
        reader.limit = 100
        reader.feed(frame[:cut])
        assert (codec.next_batch(reader) is not None) == (cut == len(frame))
        reader.feed(frame[cut:])
        if cut < len(frame):
            assert len(codec.next_batch(reader)) == 1


@pytest.mark.parametrize("limit", [-1, 0, 3, MAX_LENGTH + 1, 2**31, 2**64])
def test_a_limit_that_makes_no_sense(codec: ModuleType, limit: int) -> None:
    reader = codec.FrameReader()
    with pytest.raises(ValueError, match=f"between 4 and {MAX_LENGTH}, got {limit}"):
        reader.limit = limit
    assert reader.limit == MAX_LENGTH


# The buffer


@pytest.mark.parametrize("chunk_size", [64, 65, 4096, 131072])
def test_there_is_always_room(codec: ModuleType, chunk_size: int) -> None:
    reader = codec.FrameReader(chunk_size)
    for number in range(3 * chunk_size):
        with reader.get_buffer() as room:
            assert not room.readonly
            assert (room.format, room.ndim, room.contiguous) == ("B", 1, True)
            size = min(1 + number % 7, len(room))
            assert size > 0
            room[:size] = b"d" * size  # no frame comes of this: its length is out of range
        reader.buffer_updated(size)
        if reader.pending > 2 * chunk_size:
            return
    raise AssertionError("the reader should have become full")


def test_asking_twice_gives_the_same_room(codec: ModuleType) -> None:
    reader = codec.FrameReader()
    with reader.get_buffer() as room:
        room[:3] = b"abc"
    with reader.get_buffer(1) as room:
        assert bytes(room[:3]) == b"abc"
    with reader.get_buffer(10**9):  # the hint is asyncio's, and no more than a hint
        pass
    assert reader.pending == 0


def test_no_bytes_arrived(codec: ModuleType) -> None:
    reader = codec.FrameReader()
    reader.get_buffer().release()
    reader.buffer_updated(0)
    reader.feed(b"")
    assert (reader.pending, reader.next_frame()) == (0, None)


@pytest.mark.parametrize("excess", [1, 2**31, 2**62])
def test_more_was_filled_than_there_was_room(codec: ModuleType, excess: int) -> None:
    reader = codec.FrameReader(64)
    size = len(reader.get_buffer())
    with pytest.raises(ValueError, match=f"expected 0 to {size} filled bytes, got {size + excess}"):
        reader.buffer_updated(size + excess)
    with pytest.raises(ValueError, match=r"filled bytes, got -1"):
        reader.buffer_updated(-1)
    assert reader.pending == 0
    fill(reader, builders.ready_for_query())
    assert reader.next_frame() == (b"Z", b"I")


@pytest.mark.parametrize("chunk_size", [0, 1, 63])
def test_a_chunk_that_is_too_small(codec: ModuleType, chunk_size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 64 bytes, got {chunk_size}"):
        codec.FrameReader(chunk_size)


# Large frames, and large claims


@pytest.mark.parametrize(
    ("size", "largest"),
    [(1 << 20, 1 << 30), (1 << 20, 1009), (70 << 20, 1 << 30), (70 << 20, 16384)],
    ids=["1 MB", "1 MB trickled", "70 MB", "70 MB in TLS records"],
)
def test_a_frame_larger_than_any_chunk(codec: ModuleType, size: int, largest: int) -> None:
    body = struct.pack("!I", 0x01020304) * (size // 4)
    data = builders.ready_for_query() + builders.copy_data(body) + builders.ready_for_query()
    reader = codec.FrameReader()
    rest = memoryview(data)
    got = []
    while rest:
        with reader.get_buffer() as room:
            part = min(len(room), len(rest), largest)
            room[:part] = rest[:part]
        reader.buffer_updated(part)
        rest = rest[part:]
        got += frames_of(reader)
    assert [(tag, len(content)) for tag, content in got] == [(b"Z", 1), (b"d", size), (b"Z", 1)]
    assert got[1][1] == body


@pytest.mark.parametrize("largest", [1 << 30, 100], ids=["at once", "trickled"])
@pytest.mark.parametrize("tag", [b"d", b"E"])
def test_v7_memory_grows_with_what_has_arrived_and_not_with_what_is_claimed(
    codec: ModuleType, tag: bytes, largest: int
) -> None:
    arrived = bytes(100_000)
    tracemalloc.start()
    try:
        reader = codec.FrameReader()
        fill(reader, builders.message(tag, length=MAX_LENGTH) + arrived, largest)
        assert codec.next_batch(reader) is None
        assert reader.next_frame() is None
        room = len(reader.get_buffer())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.pending == 100_005
    assert room < 1 << 20
    assert 100_000 < peak < 1 << 20, "either nothing was measured, or the claim was believed"


def test_after_a_large_frame_its_memory_is_given_back(codec: ModuleType) -> None:
    reader = codec.FrameReader()
    tracemalloc.start()
    try:
        data = builders.copy_data(bytes(8 << 20))
        before = tracemalloc.get_traced_memory()[0]
        fill(reader, data)
        assert tracemalloc.get_traced_memory()[0] - before > 8 << 20
        assert len(frames_of(reader)) == 1
        for _ in range(3):
            fill(reader, builders.ready_for_query())
            assert frames_of(reader) == [(b"Z", b"I")]
        assert tracemalloc.get_traced_memory()[0] - before < 1 << 20
    finally:
        tracemalloc.stop()
