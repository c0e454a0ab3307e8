"""The events of a decoded stream: keepalives among the changes, and what each may acknowledge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgrepl import Lsn, StreamEvent
from pgrepl.errors import DecodeError, UsageError
from pgrepl.messages import Begin, Commit, Insert, Relation
from tests.hostile.decoded import (
    decoded,
    expect_silence_to_count,
    leave,
    said,
    stream_of,
    until_hang_up,
)
from tests.hostile.sessions import PATIENCE, keepalive
from tests.hostile.test_decoded_stream import ITEM, begin, commit, insert, transaction
from tests.support.scripted import ScriptedServer

Connect = Callable[..., Any]


def read(stream: Any, count: int) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    while len(events) < count:
        events += stream.receive(timeout=PATIENCE)
    return events


SENT = (
    keepalive(0x1800)
    + said(ITEM)
    + said(begin(0x2000), 0x1FF0)
    + said(insert(1), 0x1FF8)
    + keepalive(0x2000, reply_requested=True)
    + said(commit(0x2000), 0x2010)
    + keepalive(0x1700)
    + keepalive(0x3000)
)


def test_positions_of_events(connect: Connect) -> None:
    with ScriptedServer(decoded(SENT, until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        events = read(stream, 8)
        kinds = [None if each.message is None else type(each.message) for each in events]
        assert kinds == [None, Relation, Begin, Insert, None, Commit, None, None]
        assert [each.lsn for each in events] == [
            *(0x1800, 0, 0x1FF0, 0x1FF8, 0x2000, 0x2010, 0x1700, 0x3000)
        ]
        # Inside of a transaction a keepalive has no position, and nothing ever goes back.
        assert [each.position for each in events] == [*(0x1800, 0, 0, 0, 0, 0x2010, 0x1800, 0x3000)]
        assert [each.reply_requested for each in events] == [False] * 4 + [True] + [False] * 3
        leave(connection, stream)


def test_a_keepalive_can_be_acknowledged_at_once(connect: Connect) -> None:
    statuses: list[Any] = []
    script = decoded(SENT, lambda peer: statuses.extend(until_hang_up(peer)))
    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        events = read(stream, 8)
        stream.ack(events[5].position)
        stream.ack(events[-1].position, applied=False)
        stream.stop(timeout=0.2)
        assert connection.closed
    assert statuses[-1][:3] == (0x3000, 0x3000, 0x2010)


def test_an_acknowledgement_beyond_the_events_counts_as_what_was_given(connect: Connect) -> None:
    statuses: list[Any] = []
    sent = transaction(0x2000) + keepalive(0x2800) + said(begin(0x3000), 0x2FF0) + keepalive(0x3000)
    script = decoded(sent, lambda peer: statuses.extend(until_hang_up(peer)))
    with ScriptedServer(script) as server:
        _, stream = stream_of(connect, server)
        read(stream, 5)
        stream.ack(Lsn(0x9000))
        stream.stop(timeout=0.2)
    assert max(flushed for _, flushed, _, _ in statuses) == 0x2800


def test_events_are_to_be_read_to_their_end(connect: Connect) -> None:
    with ScriptedServer(decoded(SENT, until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        events = stream.receive(timeout=PATIENCE)
        first = next(events)
        with pytest.raises(UsageError, match="all that was received before to be read"):
            stream.receive(timeout=0)
        assert first.position == 0x1800
        rest = list(events)
        assert len(rest) + len(read(stream, 7 - len(rest))) == 7
        leave(connection, stream)


def test_an_error_in_an_event_stops_the_stream(connect: Connect) -> None:
    with ScriptedServer(decoded(transaction(0x2000) + said(insert(2)), until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        seen = []
        with pytest.raises(DecodeError, match="expected a transaction to begin first"):
            while True:
                for event in stream.receive(timeout=PATIENCE):
                    seen.append(event)
        assert [type(event.message) for event in seen] == [Begin, Commit]
        assert connection.closed


def test_silence_counts_for_who_waits_elsewhere(connect: Connect) -> None:
    expect_silence_to_count(stream_of, connect)


def test_untyped_values_are_what_was_sent(connect: Connect) -> None:
    with ScriptedServer(decoded(said(ITEM) + transaction(0x2000, 7), until_hang_up)) as server:
        connection, stream = stream_of(connect, server, typed=False)
        [row] = [each.message.new for each in read(stream, 4) if isinstance(each.message, Insert)]
        assert row.asdict() == {"id": "7"}
        leave(connection, stream)


def test_types_are_for_typed_values(connect: Connect) -> None:
    with ScriptedServer(decoded(until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        with pytest.raises(UsageError, match="types or typed=False"):
            connection.stream("s", publications=["p"], typed=False, types={23: str})
        leave(connection, stream)
