"""What no file can take of streamed transactions, on both twins: it is counted, bounded by the
limit, and given back."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from pgrepl.codec.spool import Spool
from pgrepl.errors import SpoolError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    Column,
    LogicalMessage,
    Origin,
    Relation,
    StreamAbort,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
)
from tests.support.spooling import ITEM, XID, batch_of, commit, described, insert

LIMIT = 1 << 20
START, AGAIN, STOP = StreamStart(XID, True), StreamStart(XID, False), StreamStop()
MOOD = Relation(
    16395, "public", "moody", "d", (Column("id", 23, -1, True), Column("mood", 99999, -1, False))
)


def described_again() -> Iterator[list[LogicalMessage]]:
    """A table with a user's type, after each of many savepoints that are rolled back."""
    for subxid in range(1000, 2000):
        change: list[Any] = [Type(99999, "public", "mood", subxid), replace(MOOD, xid=subxid)]
        yield [*change, insert(MOOD, 1, subxid), STOP, StreamAbort(XID, subxid), AGAIN]


def altered() -> Iterator[list[LogicalMessage]]:
    for number in range(1000):
        yield [described(replace(ITEM, name=f"item{number}"), XID), insert(ITEM, 1, XID)]


def turned_about() -> Iterator[list[LogicalMessage]]:
    """A table that is described in two ways in turn."""
    for number in range(1000):
        yield [described(replace(ITEM, name=f"item{number % 2}"), XID), insert(ITEM, 1, XID)]


def many_tables() -> Iterator[list[LogicalMessage]]:
    """Described, and never used."""
    for oid in range(1, 1000):
        yield [described(replace(ITEM, oid=oid), XID)]


def many_types() -> Iterator[list[LogicalMessage]]:
    """What a table means changes with the types that it may have."""
    for number in range(1000):
        yield [Type(99999, "public", f"mood{number}", XID), described(MOOD, XID)]


def many_aborts() -> Iterator[list[LogicalMessage]]:
    for first in range(10_000, 450_000, 2000):
        yield [STOP, *(StreamAbort(XID, subxid) for subxid in range(first, first + 2000, 2)), AGAIN]


def long_origins() -> Iterator[list[LogicalMessage]]:
    for xid in range(1000, 1010):
        yield [STOP, StreamStart(xid, True), Origin(Lsn(1), "x" * 100_000), STOP, AGAIN]


def truncates() -> Iterator[list[LogicalMessage]]:
    """Each of other tables than the one before."""
    tables = tuple(replace(ITEM, oid=oid) for oid in range(1, 21))
    yield [described(table, XID) for table in tables]
    for number in range(150):
        shift = number % 19 + 1
        some = (*tables[shift:], *tables[:shift]) * (40 + number % 7)
        yield [Truncate(some, False, False, XID)]


def put_aside(
    codec: Any, spool: Spool, sent: Callable[[], Iterator[list[LogicalMessage]]]
) -> tuple[int, SpoolError | None]:
    """Put a transaction aside; return the peak of what memory grew by meanwhile, and the error."""
    decoder = codec.Decoder(3, "on")
    everything: list[list[Any]] = [[START], *sent()]
    batches = [batch_of(codec, messages) for messages in everything]
    error = None
    tracemalloc.start()
    try:
        for batch in batches:
            list(decoder.decode_batch(batch, spool))
    except SpoolError as raised:
        error = raised
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak, error


@pytest.mark.parametrize("sent", [described_again, turned_about])
def test_what_was_described_as_before_is_not_kept_twice(codec: Any, sent: Any) -> None:
    spool = Spool(LIMIT)
    peak, error = put_aside(codec, spool, sent)
    assert (peak < LIMIT, error) == (True, None)
    assert len(spool.take(XID).bound) == 1 + (sent is turned_about)


@pytest.mark.parametrize("sent", [altered, many_tables, many_types, many_aborts, long_origins])
def test_what_goes_beyond_the_limit_ends_the_stream(codec: Any, sent: Any) -> None:
    spool = Spool(LIMIT)
    peak, error = put_aside(codec, spool, sent)
    assert peak < LIMIT + LIMIT // 4  # with the batch and its messages
    assert "of the memory_limit of this stream, got more; raise it" in str(error)
    for xid in (XID, *range(1000, 1010)):
        spool.abort(xid, xid)
    # Whatever was counted is given back, to the last byte: otherwise these would not fit.
    for xid in range(500):
        assert spool.begin(xid, True) is not None


def test_a_higher_limit_has_room_for_more(codec: Any) -> None:
    peak, error = put_aside(codec, Spool(4 * LIMIT), altered)
    assert (peak < 4 * LIMIT, error) == (True, None)


def test_truncates_of_any_number_of_tables_go_to_the_file(codec: Any) -> None:
    spool = Spool(LIMIT)
    peak, error = put_aside(codec, spool, truncates)
    assert (peak < LIMIT, error) == (True, None)
    assert len(spool.take(XID).bound) == 20


def test_truncates_come_back_as_they_were(codec: Any) -> None:
    spool, decoder = Spool(LIMIT), codec.Decoder(3, "on")
    sent: list[list[Any]] = [[START], *truncates(), [STOP, commit(XID)]]
    for messages in sent:
        changes = decoder.decode_batch(batch_of(codec, messages), spool)
        list(changes)
    expected = [message for (message, *_) in sent if isinstance(message, Truncate)]
    assert list(changes.streamed(XID)) == expected
    assert spool.memory == 0
