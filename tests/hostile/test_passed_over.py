"""Transactions that are kept for later: never silently empty, and never acknowledged unread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from pgrepl.errors import DecodeError, UsageError
from pgrepl.messages import CommitPrepared, Message, StreamCommit, StreamStart, StreamStop
from tests.hostile.decoded import begin_decoded, decoded, leave, said, stream_of, until_hang_up
from tests.hostile.sessions import PATIENCE
from tests.hostile.test_decoded_stream import ITEM, begin, commit, insert, transaction
from tests.support.inside import wire_of
from tests.support.scripted import Peer, ScriptedServer

Connect = Callable[..., Any]

THREE = said(ITEM) + transaction(0x2000, 1) + transaction(0x3000, 2, 3) + transaction(0x4000, 4)


def ids(changes: Any) -> list[int]:
    return [change.new["id"] for change in changes]


@pytest.fixture
def three(connect: Connect) -> Iterator[tuple[Any, list[Any]]]:
    """A stream of three transactions, and the statuses that its server will have got."""
    statuses: list[Any] = []
    with ScriptedServer(decoded(THREE, lambda peer: statuses.extend(until_hang_up(peer)))) as made:
        connection, stream = stream_of(connect, made)
        yield stream, statuses
        leave(connection, stream)


def test_what_is_kept_for_later_is_not_empty_but_an_error(three: Any) -> None:
    stream, statuses = three
    first, second, third = islice(stream.transactions(), 3)
    for each in (first, second):
        assert repr(each).endswith(", passed over>")
        for attempt in (lambda each=each: list(each), each.read):
            with pytest.raises(UsageError, match=r"read\(\) it .* transactions\(whole=True\)"):
                attempt()
        with pytest.raises(UsageError, match=r"read before it is acknowledged.*or skip\(\) it"):
            stream.ack(each)
        with pytest.raises(UsageError, match="expected a transaction that was read to its end"):
            stream.token(each)
    # The last one is still to be read; and says that it was, when it has been.
    assert ids(third) == [4]
    with pytest.raises(UsageError, match="all of them have been read"):
        list(third)
    assert first.xid == 700
    wire_of(stream).disconnect()
    assert max((flushed for _, flushed, _, _ in statuses), default=0) == 0


def test_skipping_says_that_it_was_meant(three: Any) -> None:
    stream, _ = three
    transactions = stream.transactions()
    first = next(transactions)
    stream.ack(first)  # explicit, of the one that is being read
    second = next(transactions)
    assert stream._session.positions.flushed == 0x2010
    stream.ack(first, applied=False)
    assert ids(islice(second, 1)) == [2]
    second.skip()
    with pytest.raises(UsageError, match="it was skipped"):
        list(second)
    stream.ack(second)
    third = next(transactions)
    assert stream._session.positions.flushed == 0x3010
    assert int(stream.token(second).end_lsn) == 0x3010
    assert ids(third) == [4]
    third.skip()  # of what was read nothing is left to skip
    with pytest.raises(UsageError, match="all of them have been read"):
        list(third)


def test_one_that_was_passed_over_can_be_skipped_afterwards(three: Any) -> None:
    stream, _ = three
    first, second, _ = islice(stream.transactions(), 3)
    first.skip()
    assert int(stream.token(first).end_lsn) == 0x2010
    stream.ack(first)
    assert stream._session.positions.flushed == 0x2010
    with pytest.raises(UsageError, match="passed over"):
        stream.ack(second)
    with pytest.raises(UsageError, match="it was skipped"):
        list(first)


def test_reading_goes_on_where_it_stood_until_the_next_is_asked_for(three: Any) -> None:
    stream, _ = three
    transactions = stream.transactions()
    next(transactions)
    second = next(transactions)
    for change in second:
        assert change.new["id"] == 2
        break
    assert ids(islice(second, 1)) == [3]
    # Its end was not read, but nothing is passed over.
    third = next(transactions)
    stream.ack(second)
    assert stream._session.positions.flushed == 0x3010
    with pytest.raises(UsageError, match="all of them have been read"):
        list(second)
    assert ids(third) == [4]


def test_a_transaction_that_was_read_into_a_list_owns_it(three: Any) -> None:
    stream, _ = three
    transactions = stream.transactions()
    assert ids(next(transactions).read()) == [1]
    second = next(transactions)
    assert ids(islice(second, 1)) == [2]
    rest = second.read()
    rest.clear()  # the caller's own
    third = next(transactions)
    assert ids(second) == ids(second) == ids(second.read()) == [3]
    stream.ack(second)
    assert stream._session.positions.flushed == 0x3010
    second.skip()
    with pytest.raises(UsageError, match="it was skipped"):
        list(second)
    third.read()
    wire_of(stream).disconnect()
    stream.stop()
    assert ids(third) == [4]


def test_a_worker_that_reads_what_the_reader_passes_over_is_told(connect: Connect) -> None:
    """Whether the rest has come or not."""
    goes_on = threading.Event()

    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(said(ITEM) + said(begin(0x2000), 0x1FF8) + said(insert(1), 0x1FF8))
        assert goes_on.wait(PATIENCE)
        peer.send(said(insert(2), 0x1FF8) + said(commit(0x2000), 0x2010))
        peer.send(transaction(0x3000, 3))
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server)
        transactions = stream.transactions()
        first = next(transactions)
        changes = iter(first)
        assert next(changes).new["id"] == 1
        reader = threading.Thread(target=lambda: ids(next(transactions)))
        reader.start()
        while first._received.unreadable is None:
            time.sleep(0.001)
        with pytest.raises(UsageError, match="before the next one is asked for"):
            iter(first)
        with pytest.raises(UsageError, match="read before it is acknowledged"):
            stream.ack(first)
        goes_on.set()
        reader.join(PATIENCE)
        with pytest.raises(UsageError, match="before the next one is asked for"):
            next(changes)
        assert not connection.closed
        leave(connection, stream)


def test_what_failed_or_was_stopped_in_the_middle_says_so(connect: Connect) -> None:
    head = said(ITEM) + said(begin(0x2000), 0x1FF8) + said(insert(1), 0x1FF8)
    with ScriptedServer(
        decoded(head + said(begin(0x3000)), until_hang_up), decoded(head, until_hang_up)
    ) as server:
        connection, stream = stream_of(connect, server)
        transaction = next(stream.transactions())
        assert ids(islice(transaction, 1)) == [1]
        with pytest.raises(DecodeError):
            list(transaction)
        with pytest.raises(UsageError, match="the stream has failed in the middle of it"):
            list(transaction)
        assert not transaction.is_whole
        leave(connection, stream)
        connection, stream = stream_of(connect, server)
        transaction = next(stream.transactions())
        connection.disconnect()
        stream.stop()
        with pytest.raises(UsageError, match="stopped in the middle"):
            transaction.read()
        assert not transaction.is_whole


def test_other_kinds(connect: Connect) -> None:
    """A message alone, one that was streamed, and one that never has changes."""
    message = Message(False, begin(0x1800).final_lsn, "prefix", b"")
    streamed = (StreamStart(700, True), ITEM, insert(1), StreamStop())
    bytes_ = said(message, 0x1800) + b"".join(said(each) for each in _within(streamed, 700))
    bytes_ += said(StreamCommit(700, commit(0x2000).commit_lsn, commit(0x2000).end_lsn, 0))
    bytes_ += (
        said(CommitPrepared(commit(0x3000).commit_lsn, commit(0x3000).end_lsn, 0, 701, "gid"))
        + said(ITEM)
        + transaction(0x4000, 4)
    )
    with ScriptedServer(decoded(bytes_, until_hang_up)) as server:
        connection, stream = stream_of(
            connect, server, messages=True, streaming="on", two_phase=True
        )
        alone, first, outcome, last = islice(stream.transactions(), 4)
        kinds = [each.kind for each in (alone, first, outcome, last)]
        assert kinds == ["message", "commit", "commit prepared", "commit"]
        for each in (alone, first):
            with pytest.raises(UsageError, match="before the next one is asked for"):
                list(each)
            with pytest.raises(UsageError, match="read before it is acknowledged"):
                stream.ack(each)
        assert list(outcome) == list(outcome) == outcome.read() == []
        stream.ack(outcome)
        assert ids(last) == [4]
        leave(connection, stream)


def _within(messages: tuple[Any, ...], xid: int) -> list[Any]:
    """Messages as they stand in a block of a streamed transaction."""
    return [replace(each, xid=xid) if hasattr(each, "xid") else each for each in messages]


def test_whole_transactions_are_for_later(three: Any) -> None:
    """Even acknowledged unread: they are in the hands of whoever has them."""
    stream, _ = three
    kept = list(islice(stream.transactions(whole=True), 3))
    assert all(each.is_whole for each in kept)
    stream.ack(kept[0])
    assert stream._session.positions.flushed == 0x2010
    assert int(stream.token(kept[1]).end_lsn) == 0x3010
    for _ in range(2):
        assert [ids(each) for each in kept] == [[1], [2, 3], [4]]
    assert ids(kept[1].read()) == [2, 3]
    kept[0].skip()
    with pytest.raises(UsageError, match="it was skipped"):
        list(kept[0])
    wire_of(stream).disconnect()
    stream.stop()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(ids(kept[1])))
    thread.start()
    thread.join()
    assert found == [2, 3]


def test_from_whole_ones_to_others_and_back(three: Any) -> None:
    stream, _ = three
    assert ids(next(stream.transactions(whole=True))) == [1]
    second = next(stream.transactions())
    second.skip()
    assert ids(next(stream.transactions(whole=True))) == [4]


def test_stopping_by_another_thread_ends_the_loop(connect: Connect) -> None:
    """In the middle of a block, which is no fault of the server's, nor of the stream's."""
    messages = _within((StreamStart(700, True), ITEM, insert(1), StreamStop()), 700)
    bytes_ = b"".join(said(each) for each in messages)
    bytes_ += b"".join(said(each) for each in _within((StreamStart(700, False), insert(2)), 700))
    with ScriptedServer(decoded(bytes_, until_hang_up)) as server:
        connection, stream = stream_of(connect, server, streaming="on")
        original = stream._decoded.spool.begin

        class Stopped:
            """Is stopped when a block goes on."""

            def __getattr__(self, name: str) -> Any:
                return getattr(spool, name)

            def begin(self, xid: int, first_segment: bool) -> Any:
                if not first_segment:
                    connection.disconnect()
                    thread = threading.Thread(target=stream.stop)
                    thread.start()
                    thread.join()
                return original(xid, first_segment)

            def __contains__(self, xid: int) -> bool:
                return xid in spool

        spool, stream._decoded.spool = stream._decoded.spool, Stopped()
        assert list(stream.transactions()) == []
