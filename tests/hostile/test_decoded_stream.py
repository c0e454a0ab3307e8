"""A server whose decoded stream breaks the rules: the stream stops, and nothing is acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl import Lsn
from pgrepl.codec import Row
from pgrepl.errors import ConnectionFailed, DecodeError, ServerShutdown, UsageError
from pgrepl.messages import Begin, Column, Commit, Insert, Message, Relation, StreamStop
from tests.hostile.decoded import (
    begin_decoded,
    decoded,
    recv_status,
    said,
    stream_of,
    until_hang_up,
)
from tests.hostile.sessions import PATIENCE, answers_a_query, assert_usable, data, keepalive
from tests.support import builders
from tests.support.scripted import Peer, ScriptedServer

Connect = Callable[..., Any]

ITEM = Relation(7, "public", "item", "d", (Column("id", 23, -1, True),))


def begin(position: int) -> Begin:
    return Begin(Lsn(position), 0, 700)


def commit(position: int, end: int | None = None) -> Commit:
    return Commit(Lsn(position), Lsn(position + 16 if end is None else end), 0)


def insert(number: int) -> Insert:
    return Insert(ITEM, Row(ITEM, (str(number),)))


def transaction(position: int, *numbers: int) -> bytes:
    """A whole transaction; its commit is at `position`."""
    return (
        said(begin(position), position - 8)
        + b"".join(said(insert(number), position - 8) for number in numbers)
        + said(commit(position), position + 16)
    )


GOOD = said(ITEM) + transaction(0x2000, 1)

BROKEN: dict[str, tuple[bytes, bytes, str, int | None]] = {
    "a change before its transaction": (
        said(insert(2), 0x3000),
        b"I",
        "expected a transaction to begin first, got message 'I' (offset 0, LSN 0/3000)",
        0x3000,
    ),
    "a commit before its transaction": (
        said(commit(0x3000), 0x3010),
        b"C",
        "expected a transaction to begin first, got message 'C' (offset 0, LSN 0/3010)",
        0x3010,
    ),
    "a transaction in another one": (
        said(begin(0x3000), 0x2FF0) + said(begin(0x4000), 0x2FF8),
        b"B",
        "expected the transaction that 'B' began to end first, got message 'B'",
        0x2FF8,
    ),
    "the end of a block that never began": (
        said(StreamStop(), 0x3000),
        b"E",
        "expected the tag of a pgoutput message of protocol version 1, got 'E'",
        0x3000,
    ),
    "a relation that was never described": (
        said(begin(0x3000), 0x2FF0) + data(0x2FF8, b"I\0\0\0\x08N\0\0"),
        b"I",
        "expected a relation that was described before message 'I', got OID 8",
        0x2FF8,
    ),
    "another commit than was announced": (
        said(begin(0x3000), 0x2FF0) + said(commit(0x3008), 0x3010),
        b"C",
        "expected the transaction that was to end at 0/3000 to do so, got its end at 0/3008",
        0x3008,
    ),
    "commits that go back": (
        transaction(0x1800, 2),
        b"C",
        "expected transactions in the order of their commits",
        0x1800,
    ),
    "bytes that are no message": (
        data(0x3000, b""),
        b"",
        "expected a pgoutput message, got no bytes (offset 0, LSN 0/3000)",
        0x3000,
    ),
}


@pytest.mark.parametrize(
    ("bad", "tag", "words", "lsn"), BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN]
)
def test_v10_what_breaks_the_rules_stops_the_stream(
    connect: Connect, bad: bytes, tag: bytes, words: str, lsn: int
) -> None:
    statuses: list[Any] = []
    script = decoded(GOOD + bad, lambda peer: statuses.extend(until_hang_up(peer)))
    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        seen: list[int] = []
        with pytest.raises(DecodeError) as caught:
            for each in stream.transactions():
                seen += [change.new["id"] for change in each]
                # In vain for what comes behind the first one.
                stream.ack(each)
        error = caught.value
        assert words in str(error)
        assert (error.tag or b"", error.lsn) == (tag, lsn)
        assert seen[:1] == [1]
        assert connection.closed
        with pytest.raises(UsageError, match="this one has ended"):
            stream.ack(Lsn(0x9000))
        stream.stop()
    assert max((flushed for _, flushed, _, _ in statuses), default=0) <= 0x2010


def test_v10_flat_iteration_stops_as_well(connect: Connect) -> None:
    with ScriptedServer(decoded(GOOD + said(insert(2), 0x3000), until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        kinds = []
        with pytest.raises(DecodeError, match="expected a transaction to begin first"):
            for message in stream:
                kinds.append(type(message).__name__)
        assert kinds == ["Relation", "Begin", "Insert", "Commit"]
        assert connection.closed


def test_a_value_that_cannot_be_decoded_is_for_its_reader_to_deal_with(connect: Connect) -> None:
    bad = data(0x2FF8, b"I\0\0\0\x07N\0\1t\0\0\0\1\xff")
    stream_bytes = said(ITEM) + said(begin(0x3000), 0x2FF0) + bad + said(commit(0x3000), 0x3010)
    with ScriptedServer(decoded(stream_bytes, until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        each = next(stream.transactions())
        (change,) = each
        with pytest.raises(DecodeError, match='in column "id" of public.item'):
            change.new["id"]
        assert change.new.raw("id") == b"\xff"
        assert each.is_whole
        connection.close()
        stream.stop()


# Positions


def test_a_keepalive_is_not_reported_while_a_transaction_is_open(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD + said(begin(0x3000), 0x2FF0) + keepalive(0x3000, reply_requested=True))
        # Acknowledged is the first transaction alone.
        while (status := recv_status(peer))[1] != 0x2010:
            assert status[1] == 0
        peer.send(keepalive(0x3000, reply_requested=True))
        assert recv_status(peer)[:3] == (0x2010,) * 3
        peer.send(said(insert(2), 0x2FF8) + said(commit(0x3000), 0x3010) + keepalive(0x5000, True))
        while (status := recv_status(peer))[1] == 0x2010:
            pass
        assert status[1] == 0x3010 or status[1] == 0x5000
        while status[1] != 0x5000:
            status = recv_status(peer)
        told.set()
        until_hang_up(peer)

    told = threading.Event()
    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        reader = threading.Thread(target=lambda: _acknowledge_all(stream))
        reader.start()
        assert told.wait(PATIENCE)
        stream.stop(timeout=0.2)
        reader.join(PATIENCE)
        assert connection.closed


def _acknowledge_all(stream: Any) -> None:
    for each in stream.transactions():
        for _ in each:
            pass
        stream.ack(each)


def test_an_acknowledgement_beyond_what_was_delivered_counts_as_what_was(
    connect: Connect,
) -> None:
    statuses: list[Any] = []
    script = decoded(
        GOOD + said(begin(0x3000), 0x2FF0), lambda peer: statuses.extend(until_hang_up(peer))
    )
    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        each = next(stream.transactions())
        assert [change.new["id"] for change in each] == [1]
        stream.ack(2**64 - 1)
        stream.stop(timeout=0.2)
        assert connection.closed
    assert statuses[-1][:3] == (0x2010,) * 3


def test_the_three_positions_can_be_moved_apart(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD)
        while (status := recv_status(peer))[0] == 0:
            pass
        assert status[:3] == (0x2010, 0, 0)
        while (status := recv_status(peer))[1] == 0:
            pass
        assert status[:3] == (0x2010, 0x2010, 0)
        while (status := recv_status(peer))[2] == 0:
            pass
        assert status[:3] == (0x2010, 0x2010, 0x2010)
        peer.expect(b"d")  # the last words
        assert peer.expect(b"c") == b""
        peer.send(
            builders.copy_done()
            + builders.command_complete("COPY 0")
            + builders.command_complete("START_REPLICATION")
            + builders.ready_for_query()
        )
        answers_a_query(peer)
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        each = next(stream.transactions())
        list(each)
        stream.ack(each, flushed=False, applied=False)
        while stream.stats().written == 0:
            time.sleep(0.01)
        stream.ack(each, applied=False)
        while stream.stats().flushed == 0:
            time.sleep(0.01)
        stream.ack(each)
        while stream.stats().applied == 0:
            time.sleep(0.01)
        stream.stop()
        assert_usable(connection)
        connection.close()


# Silence


def test_a_silent_server_is_asked_and_then_given_up(connect: Connect) -> None:
    asked: list[bool] = []

    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD)
        asked.extend(reply for *_, reply in until_hang_up(peer))

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server, receive_timeout=0.5)
        with pytest.raises(ConnectionFailed, match="nothing came from the server within 0.5 s"):
            _drain(stream)
        assert connection.closed
    assert asked.count(True) == 1


def test_an_answer_in_time_is_a_sign_of_life(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        for _ in range(3):
            while not recv_status(peer)[3]:
                pass
            peer.send(keepalive(0x1800))
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        _, stream = stream_of(connect, server, receive_timeout=0.5)
        with pytest.raises(ConnectionFailed, match="nothing came"):
            _drain(stream)


def test_a_busy_consumer_hears_nothing_and_blames_nobody(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD)
        time.sleep(1.0)
        peer.send(transaction(0x3000, 2))
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server, receive_timeout=0.4)
        transactions = stream.transactions()
        assert [change.new["id"] for change in next(transactions)] == [1]
        time.sleep(1.2)
        assert [change.new["id"] for change in next(transactions)] == [2]
        connection.close()
        stream.stop()


def test_statuses_come_in_time_while_the_consumer_is_busy(connect: Connect) -> None:
    counted: list[int] = []

    def script(peer: Peer) -> None:
        begin_decoded(peer, "300")  # hence a status every 100 ms
        peer.send(GOOD)
        for _ in range(5):
            recv_status(peer)
        counted.append(5)
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        for _ in next(stream.transactions()):
            while not counted:
                time.sleep(0.01)
        connection.close()
        stream.stop()


# The end


def test_a_shutdown_is_answered_and_told(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD + keepalive(0x2020, reply_requested=True))
        while recv_status(peer)[1] != 0x2020:
            pass
        peer.send(builders.command_complete("COPY 0"))

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        with pytest.raises(ServerShutdown):
            for each in stream.transactions():
                list(each)
                stream.ack(each)
        assert connection.closed
        stream.stop()


def test_a_server_that_never_ends_the_stream_is_left(connect: Connect) -> None:
    with ScriptedServer(decoded(GOOD, until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        list(next(stream.transactions()))
        stream.stop(timeout=0.3)
        assert connection.closed
        stream.stop()


def test_stopping_from_another_thread_ends_the_reader(connect: Connect) -> None:
    with ScriptedServer(decoded(GOOD, until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        seen: list[int] = []

        def read() -> None:
            for each in stream.transactions():
                seen.extend(change.new["id"] for change in each)

        reader = threading.Thread(target=read)
        reader.start()
        while not seen:
            time.sleep(0.01)
        stream.stop(timeout=1.0)
        reader.join(PATIENCE)
        assert not reader.is_alive()
        assert seen == [1]
        assert connection.closed


def test_a_transaction_left_in_the_middle_is_not_passed_over_unsaid(connect: Connect) -> None:
    with ScriptedServer(decoded(GOOD + transaction(0x3000, 2, 3), until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        transactions = stream.transactions()
        next(transactions)
        half = next(transactions)
        assert next(iter(half)).new["id"] == 2
        transactions.close()
        for start in (stream.transactions, stream.__iter__, stream.batches):
            with pytest.raises(UsageError, match="left in the middle"):
                next(iter(start()))
        # It can be read on in, and then the stream goes on.
        assert [change.new["id"] for change in half] == [3]
        assert half.is_whole
        connection.close()
        stream.stop()


def test_a_message_of_no_transaction_comes_by_itself(connect: Connect) -> None:
    alone = Message(False, Lsn(0x2800), "prefix", b"content")

    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD + said(alone, 0x2800))
        while recv_status(peer)[1] != 0x2800:
            pass
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server, messages=True)
        transactions = stream.transactions()
        list(next(transactions))
        each = next(transactions)
        assert (each.kind, each.xid, each.end_lsn) == ("message", None, 0x2800)
        assert list(each) == [alone]
        stream.ack(each)
        while stream.stats().flushed != 0x2800:
            time.sleep(0.01)
        connection.close()
        stream.stop()


def _drain(stream: Any) -> None:
    for each in stream.transactions():
        for _ in each:
            pass


def test_a_batch_is_acknowledged_though_its_transaction_ends_later(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(said(ITEM) + said(begin(0x2000), 0x1FF8) + said(insert(1), 0x1FF8))
        acknowledged.wait(PATIENCE)
        peer.send(said(commit(0x2000), 0x2010))
        while recv_status(peer)[1] != 0x2010:
            pass
        told.set()
        until_hang_up(peer)

    acknowledged, told = threading.Event(), threading.Event()
    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        batches = stream.batches(max_rows=1)
        batch = next(batches)
        assert (batch.end_lsn, batch.index) == (stream.start, 1)
        stream.ack(batch)
        acknowledged.set()
        reader = threading.Thread(target=lambda: next(batches, None))
        reader.start()
        assert told.wait(PATIENCE)
        stream.stop(timeout=0.2)
        reader.join(PATIENCE)
        assert connection.closed
