"""What protocol versions 2 to 4 add, on both twins: stream blocks, prepared transactions, and whom
a relation was described to."""

from __future__ import annotations

import contextlib
import re
import struct
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrepl.codec import Row
from pgrepl.errors import DecodeError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
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
from tests.support.feeding import read
from tests.support.pgoutput_captured_streams import ON, PARALLEL, SKIPPED, Conversation
from tests.support.pgoutput_encoder import encode
from tests.support.pgoutput_server import Server

LSN, END, TIME = Lsn("1/F73E0220"), Lsn("1/F73E0250"), 848653377652022
XID, SUBXID, OTHER = 740, 741, 750

ITEM = Relation(16389, "public", "item", "d", (Column("id", 23, -1, True),))
WIDE = replace(ITEM, columns=(*ITEM.columns, Column("note", 25, -1, False)))
OID = struct.pack("!I", ITEM.oid)

START, STOP = StreamStart(XID, True), StreamStop()
AGAIN = StreamStart(XID, False)
COMMIT = StreamCommit(XID, LSN, END, TIME)

# Those that stand outside of stream blocks alone, by the version that brought them.
OUTSIDE: dict[int, tuple[LogicalMessage, ...]] = {
    1: (Begin(LSN, TIME, XID), Commit(LSN, END, TIME), StreamAbort(XID, SUBXID)),
    2: (START, COMMIT),
    3: (
        BeginPrepare(LSN, END, TIME, XID, "gid é"),
        Prepare(LSN, END, TIME, XID, ""),
        CommitPrepared(LSN, END, TIME, XID, "gid"),
        RollbackPrepared(LSN, END, -1, TIME, XID, "gid"),
        StreamPrepare(LSN, END, TIME, XID, "gid"),
    ),
}
MARKED: tuple[Any, ...] = (
    ITEM,
    Type(16385, "public", "mood"),
    Insert(ITEM, Row(ITEM, ("1",))),
    Update(ITEM, Row(ITEM, ("1",), True), None, Row(ITEM, ("2",))),
    Delete(ITEM, Row(ITEM, ("1",), True), None),
    Truncate((ITEM,), True, False),
    Message(True, LSN, "prefix", b"content"),
)


def name_of(value: object) -> str:
    return type(value).__name__ if not isinstance(value, int) else str(value)


def insert(relation: Relation, xid: int | None = None) -> Insert:
    """A row of NULLs, which shows what width the decoder takes the relation to have."""
    return Insert(relation, Row(relation, (None,) * len(relation.columns)), xid)


def feed(decoder: Any, *messages: LogicalMessage) -> None:
    """Feed messages that must come out as they went in."""
    for message in messages:
        decoded = decoder.feed(encode(message))
        assert decoded == message
        # Not what a Relation or Type is compared by.
        assert getattr(decoded, "xid", None) == getattr(message, "xid", None)


def fault(decoder: Any, payload: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        read(decoder.feed(payload))
    assert caught.value.tag == payload[:1]
    return caught.value


@pytest.mark.parametrize(
    ("version", "streaming", "captured"),
    [(3, "on", ON), (4, "parallel", PARALLEL), (1, "off", (SKIPPED,))],
    ids=["on", "parallel", "skipped"],
)
def test_what_a_real_server_sent(
    codec: Any, version: int, streaming: str, captured: Conversation
) -> None:
    decoder = codec.Decoder(version, streaming, typed=False)
    for text, expected in captured:
        payload = bytes.fromhex(text)
        message = decoder.feed(payload)
        assert message == expected
        assert getattr(message, "xid", None) == getattr(expected, "xid", None)
        # The encoder, which the other tests stand on, is held to the same bytes.
        assert encode(expected) == payload


class TestVersions:
    @pytest.mark.parametrize("version", [1, 2, 3, 4])
    def test_has_the_messages_of_the_earlier_ones(self, codec: Any, version: int) -> None:
        for since, messages in OUTSIDE.items():
            for message in messages:
                decoder = codec.Decoder(version, typed=False)
                if since <= version:
                    feed(decoder, message)
                    continue
                error = fault(decoder, encode(message))
                tag = chr(encode(message)[0])
                assert str(error) == (
                    "expected the tag of a pgoutput message of protocol version "
                    f"{version}, got '{tag}' (offset 0)"
                )

    def test_the_last_one_has_no_other_tags(self, codec: Any) -> None:
        for tag in set(range(256)) - set(b"BCORYIUDTMSEcAbPKrp"):
            for before in ((), (START,)):
                decoder = codec.Decoder(4, "parallel", typed=False)
                feed(decoder, *before)
                error = str(fault(decoder, bytes((tag, 0, 0))))
                assert "of protocol version 4, got" in error, tag

    def test_stream_abort_tells_more_in_parallel_mode(self, codec: Any) -> None:
        short, long = StreamAbort(XID, SUBXID), StreamAbort(XID, SUBXID, LSN, TIME)
        assert len(encode(long)) == len(encode(short)) + 16
        for version, streaming in ((1, "off"), (2, "on"), (3, "on"), (4, "on"), (4, "off")):
            feed(codec.Decoder(version, streaming, typed=False), short)
            error = fault(codec.Decoder(version, streaming, typed=False), encode(long))
            assert (error.offset, "got 16 more bytes" in str(error)) == (9, True)
        feed(codec.Decoder(4, "parallel", typed=False), long)
        error = fault(codec.Decoder(4, "parallel", typed=False), encode(short))
        assert (error.offset, "expected 8 more bytes" in str(error)) == (9, True)


class TestBlocks:
    @pytest.mark.parametrize("message", MARKED, ids=name_of)
    def test_inside_and_nowhere_else_messages_have_an_xid(self, codec: Any, message: Any) -> None:
        inside = replace(message, xid=2**32 - 1)
        assert len(encode(inside)) == len(encode(message)) + 4
        decoder = codec.Decoder(2, "on", typed=False)
        feed(decoder, ITEM, message, START, inside, inside, STOP, message)
        # At the wrong place the xid is taken for what stands behind it, and the other way round.
        with contextlib.suppress(DecodeError):
            assert decoder.feed(encode(inside)) != message
        decoder = codec.Decoder(2, "on", typed=False)
        feed(decoder, ITEM, START)
        with contextlib.suppress(DecodeError):
            assert decoder.feed(encode(message)) != message

    def test_an_origin_has_no_xid(self, codec: Any) -> None:
        origin = Origin(Lsn(0), "elsewhere")
        feed(codec.Decoder(2, "on", typed=False), origin, START, origin, STOP, origin)

    @pytest.mark.parametrize("message", sum(OUTSIDE.values(), ()), ids=name_of)
    def test_cannot_hold_what_ends_or_begins(self, codec: Any, message: LogicalMessage) -> None:
        decoder = codec.Decoder(4, typed=False)
        feed(decoder, START)
        payload = encode(message)
        error = fault(decoder, payload)
        assert str(error) == (
            f"expected a message that can be inside of a stream block, got message "
            f"'{chr(payload[0])}' in the one of transaction {XID} (offset 0)"
        )

    def test_cannot_end_before_it_begins(self, codec: Any) -> None:
        for before in ((), (ITEM, Begin(LSN, TIME, XID)), (START, STOP)):
            decoder = codec.Decoder(2, "on", typed=False)
            feed(decoder, *before)
            error = fault(decoder, encode(STOP))
            assert str(error) == (
                "expected a stream block to begin first, got message 'E', which must be inside of "
                "one (offset 0)"
            )

    def test_the_place_comes_before_the_contents(self, codec: Any) -> None:
        decoder = codec.Decoder(3, "on", typed=False)
        feed(decoder, START)
        assert "got message 'C' in the one" in str(fault(decoder, b"C\xff"))
        assert "to begin first, got message 'E'" in str(
            fault(codec.Decoder(2, "on", typed=False), b"E!")
        )
        assert "of protocol version 2, got 'b'" in str(
            fault(codec.Decoder(2, "on", typed=False), b"b")
        )

    def test_belongs_to_any_transaction(self, codec: Any) -> None:
        feed(
            codec.Decoder(2, "on", typed=False),
            START,
            STOP,
            StreamStart(OTHER, True),
            STOP,
            AGAIN,
            STOP,
        )
        # The outcome may be that of a transaction which nobody saw begin.
        feed(codec.Decoder(3, "on", typed=False), COMMIT, StreamAbort(OTHER, OTHER), AGAIN, STOP)


# Offsets behind a mark: fault, payload, offset and words, in a block of XID with ITEM described.
MARK = struct.pack("!I", SUBXID)
INSIDE_FAULTS: tuple[tuple[str, bytes, int, str], ...] = (
    ("no xid", b"I\0\0\0", 1, "expected 4 more bytes in message 'I', got 3"),
    ("message, no xid", b"M", 1, "expected 4 more bytes in message 'M', got 0"),
    ("relation, no oid", b"R" + MARK, 5, "expected 4 more bytes"),
    ("stop, trailing", b"E\0", 1, "expected the end of message 'E', got 1 more bytes"),
    ("insert, unknown", b"I" + MARK + b"\0\0\0\7N\0\0", 5, "before message 'I', got OID 7"),
    ("update, unknown", b"U" + MARK + b"\0\0\0\7N\0\0", 5, "before message 'U', got OID 7"),
    ("delete, unknown", b"D" + MARK + b"\0\0\0\7K\0\0", 5, "before message 'D', got OID 7"),
    ("truncate, unknown", b"T" + MARK + b"\0\0\0\2\0" + OID + b"\0\0\0\7", 14, "got OID 7"),
    ("insert, wide", b"I" + MARK + OID + b"N\0\2nn", 10, "expected 1 columns .* got 2"),
    ("insert, text", b"I" + MARK + OID + b"N\0\1t\0\0\0\1\xff", 17, 'column "id" of public.item'),
)
OUTSIDE_FAULTS: tuple[tuple[str, bytes, int, str], ...] = (
    ("start, no flags", b"S\0\0\0\1", 5, "expected 1 more bytes in message 'S', got 0"),
    ("start, flags", b"S\0\0\0\1\2", 5, "expected known flags in message 'S', got 2"),
    ("start, trailing", b"S\0\0\0\1\1\0", 6, "expected the end of message 'S'"),
    ("commit, flags", b"c\0\0\0\1\1", 5, "expected known flags in message 'c', got 1"),
    ("commit, half a time", b"c\0\0\0\1\0" + b"\0" * 20, 22, "expected 8 more bytes .* got 4"),
    ("abort, no subxid", b"A\0\0\0\1\0", 5, "expected 4 more bytes .* got 1"),
    ("abort, half a time", b"A" + b"\0" * 20, 17, "expected 8 more bytes .* got 4"),
    ("begin prepare, no xid", b"b" + b"\0" * 26, 25, "expected 4 more bytes .* got 2"),
    ("begin prepare, no gid", b"b" + b"\0" * 28 + b"gid", 29, "zero byte .* message 'b'"),
    ("begin prepare, trailing", b"b" + b"\0" * 28 + b"gid\0!", 33, "end of message 'b', got 1"),
    ("prepare, flags", b"P\1", 1, "expected known flags in message 'P', got 1"),
    ("commit prepared, flags", b"K\x80", 1, "expected known flags in message 'K', got 128"),
    ("rollback prepared, flags", b"r\1", 1, "expected known flags in message 'r', got 1"),
    ("rollback prepared, one time", b"r" + b"\0" * 25, 26, "expected 8 more bytes .* got 0"),
    ("stream prepare, flags", b"p\1", 1, "expected known flags in message 'p', got 1"),
)
FAULTS = [
    *(pytest.param((START,), *each[1:], id=f"in a block: {each[0]}") for each in INSIDE_FAULTS),
    *(pytest.param((), *each[1:], id=each[0]) for each in OUTSIDE_FAULTS),
]


@pytest.mark.parametrize(("before", "payload", "offset", "words"), FAULTS)
def test_v5_v6_v10_fault(
    codec: Any, before: tuple[LogicalMessage, ...], payload: bytes, offset: int, words: str
) -> None:
    decoder = codec.Decoder(4, "parallel", typed=False)
    feed(decoder, ITEM, *before)
    error = fault(decoder, payload)
    assert error.offset == offset
    assert re.search(words, str(error)), str(error)


class TestDescriptions:
    """Whom a relation was described to; `ITEM` has one column, `WIDE` two."""

    def test_in_a_block_is_for_its_transaction(self, codec: Any) -> None:
        decoder = codec.Decoder(2, "on", typed=False)
        wide = replace(WIDE, xid=SUBXID)
        feed(decoder, ITEM, START, wide, insert(wide, XID), STOP, insert(ITEM))
        # Not for another transaction, but for all later blocks of this one.
        feed(decoder, StreamStart(OTHER, True), insert(ITEM, OTHER), STOP)
        feed(decoder, AGAIN, insert(wide, SUBXID), STOP, insert(ITEM))

    def test_in_a_block_is_unknown_elsewhere(self, codec: Any) -> None:
        decoder = codec.Decoder(2, "on", typed=False)
        feed(decoder, START, replace(ITEM, xid=XID), STOP)
        assert "got OID 16389" in str(fault(decoder, encode(insert(ITEM))))
        decoder = codec.Decoder(2, "on", typed=False)
        feed(decoder, START, replace(ITEM, xid=XID), STOP, StreamStart(OTHER, True))
        assert "got OID 16389" in str(fault(decoder, encode(insert(ITEM, OTHER))))

    def test_for_all_counts_in_blocks_too(self, codec: Any) -> None:
        feed(codec.Decoder(2, "on", typed=False), ITEM, START, insert(ITEM, XID), STOP)

    @pytest.mark.parametrize("outcome", [COMMIT, StreamPrepare(LSN, END, TIME, XID, "gid")])
    def test_is_for_all_once_the_transaction_is_settled(
        self, codec: Any, outcome: LogicalMessage
    ) -> None:
        decoder = codec.Decoder(3, "on", typed=False)
        wide = replace(WIDE, xid=SUBXID)
        feed(decoder, ITEM, insert(ITEM), START, wide, STOP, outcome, insert(wide))
        feed(decoder, StreamStart(OTHER, True), insert(wide, OTHER), STOP)

    def test_is_gone_when_the_transaction_is_aborted(self, codec: Any) -> None:
        decoder = codec.Decoder(2, "on", typed=False)
        wide = replace(WIDE, xid=SUBXID)
        feed(decoder, ITEM, START, wide, STOP, StreamAbort(XID, XID), insert(ITEM))
        # What is not there any more cannot come back with a commit of the same xid either.
        feed(decoder, AGAIN, insert(ITEM, XID), STOP, COMMIT, insert(ITEM))

    def test_of_a_subtransaction_is_gone_when_that_is_aborted(self, codec: Any) -> None:
        decoder = codec.Decoder(2, "on", typed=False)
        other = Relation(7, "s", "other", "n", (), XID)
        feed(decoder, ITEM, START, other, replace(WIDE, xid=SUBXID), STOP)
        feed(decoder, StreamAbort(XID, SUBXID), AGAIN, insert(ITEM, XID), insert(other, XID), STOP)
        # The server describes it again, by the transaction or by another part of it.
        again = replace(WIDE, xid=XID)
        feed(decoder, AGAIN, again, insert(again, XID), STOP, StreamAbort(XID, SUBXID))
        feed(decoder, COMMIT, insert(again), insert(other))

    def test_is_not_touched_by_the_abort_of_another_part(self, codec: Any) -> None:
        decoder = codec.Decoder(2, "on", typed=False)
        item = replace(ITEM, xid=SUBXID)
        feed(decoder, START, item, STOP, StreamAbort(XID, SUBXID + 1), StreamAbort(OTHER, OTHER))
        feed(decoder, StreamAbort(OTHER, SUBXID), AGAIN, insert(item, XID), STOP)

    def test_begins_anew_with_a_first_segment(self, codec: Any) -> None:
        decoder = codec.Decoder(2, "on", typed=False)
        feed(decoder, ITEM, START, replace(WIDE, xid=XID), STOP, START, insert(ITEM, XID))

    def test_is_let_go_with_its_transaction(self, codec: Any) -> None:
        decoder = codec.Decoder(2, "on", typed=False)
        feed(decoder, START)
        relation = decoder.feed(encode(replace(ITEM, xid=SUBXID)))
        feed(decoder, insert(ITEM, SUBXID), STOP)
        alone = replace(relation)
        assert sys.getrefcount(relation) > sys.getrefcount(alone)
        feed(decoder, StreamAbort(XID, SUBXID))
        assert sys.getrefcount(relation) == sys.getrefcount(alone)

    def test_that_came_later_stands(self, codec: Any) -> None:
        # The table changed while the stream was open, and all were told after it was.
        decoder = codec.Decoder(2, "on", typed=False)
        feed(decoder, START, replace(ITEM, xid=XID), STOP, WIDE, COMMIT, insert(WIDE))
        # Of two streams the one that was told last, whichever is committed last.
        for first, last in ((XID, OTHER), (OTHER, XID)):
            decoder = codec.Decoder(2, "on", typed=False)
            feed(decoder, START, replace(ITEM, xid=XID), STOP)
            feed(decoder, StreamStart(OTHER, True), replace(WIDE, xid=OTHER), STOP)
            feed(decoder, replace(COMMIT, xid=first), replace(COMMIT, xid=last), insert(WIDE))

    def test_a_relation_of_the_row_before_is_looked_up_again_where_it_may_differ(
        self, codec: Any
    ) -> None:
        decoder = codec.Decoder(3, "on", typed=False)
        wide = replace(WIDE, xid=XID)
        feed(decoder, ITEM, insert(ITEM), START, wide, insert(wide, XID), STOP, insert(ITEM))
        feed(decoder, AGAIN, insert(wide, XID), STOP, insert(ITEM), COMMIT, insert(wide))

    @settings(max_examples=200)
    @given(seed=st.integers(0, 2**64 - 1), steps=st.integers(1, 120))
    def test_is_what_the_server_thinks_it_told(self, codec: Any, seed: int, steps: int) -> None:
        decoder = codec.Decoder(3, "on", typed=False)
        for message in Server(seed).messages(steps):
            feed(decoder, message)
