"""Batches: where they end, what they have of which transaction, and their tokens."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from pgrepl import Lsn, ResumeToken, TransactionPart
from pgrepl.errors import UsageError
from pgrepl.messages import Commit, Message, Origin
from tests.hostile.decoded import START, decoded, leave, said, stream_of, until_hang_up
from tests.hostile.test_decoded_stream import ITEM, begin, commit, insert, transaction
from tests.hostile.test_passed_over import ids
from tests.support.scripted import ScriptedServer

Connect = Callable[..., Any]


def alone(position: int) -> bytes:
    """A message that belongs to no transaction."""
    return said(Message(False, Lsn(position), "prefix", b""), position)


ORIGINATED = (
    said(begin(0x3000), 0x2FF8)
    + said(Origin(Lsn(5), "there"), 0x2FF8)
    + b"".join(said(insert(number), 0x2FF8) for number in (2, 3, 4, 5, 6))
    + said(commit(0x3000), 0x3010)
)
CHANGES = said(ITEM) + alone(0x1800) + transaction(0x2000, 1) + ORIGINATED + transaction(0x4000, 7)


@pytest.fixture
def open_stream(connect: Connect) -> Iterator[Callable[..., Any]]:
    """Begins a stream of these bytes, on a connection of its own."""
    opened: list[Any] = []

    def begin_stream(bytes_: bytes = CHANGES, **options: Any) -> Any:
        server = ScriptedServer(decoded(bytes_, until_hang_up))
        server.__enter__()
        connection, stream = stream_of(connect, server, messages=True, **options)
        opened.append((server, connection, stream))
        return stream

    yield begin_stream
    for server, connection, stream in opened:
        leave(connection, stream)
        server.__exit__(None, None, None)


def numbers(changes: Any) -> list[int | None]:
    return [None if isinstance(each, Message) else each.new["id"] for each in changes]


def test_a_batch_ends_where_a_token_goes_on(open_stream: Any) -> None:
    stream = open_stream()
    found = [
        (numbers(batch), int(batch.end_lsn), batch.index)
        for batch in islice(stream.batches(max_rows=2, max_wait=0.01), 4)
    ]
    assert found == [
        ([None, 1], 0x2010, 0),
        ([2, 3], 0x2010, 2),
        ([4, 5], 0x2010, 4),
        ([6, 7], 0x4010, 0),
    ]


def test_a_token_is_never_before_the_start(open_stream: Any) -> None:
    stream = open_stream(said(ITEM) + said(begin(0x2000)) + said(insert(1)) + said(insert(2)))
    batch = next(stream.batches(max_rows=1))
    token = stream.token(batch)
    assert (batch.end_lsn, token.end_lsn, token.index) == (START, START, 1)
    stream.ack(batch)
    assert stream._session.positions.flushed == 0
    for upto in (None, Lsn(5), 0, Commit(Lsn(5), Lsn(6), 0), token, stream.start):
        expected = 1 if upto is token else 0
        made = stream.token() if upto is None else stream.token(upto)
        assert (made.end_lsn, made.index) == (START, expected), upto
    assert stream.token(batch, index=7).index == 7
    # Nor beyond what was delivered, which would be lost.
    assert stream.token(Lsn(0x9000)).end_lsn == START
    with pytest.raises(UsageError, match="a token of the system 7291, got one of 1, whose"):
        stream.token(ResumeToken("1", 1, Lsn(0x2000)))
    with pytest.raises(UsageError, match="a token of the system 7291"):
        stream.ack(ResumeToken("1", 1, Lsn(0x2000)))


@pytest.mark.parametrize("handled", range(1, 6))
@pytest.mark.parametrize("way", ["batches", "transactions", "whole"])
def test_what_was_handled_is_counted_on(open_stream: Any, handled: int, way: str) -> None:
    """From a token in the middle of a transaction, before which a message stands that came too."""
    start = ResumeToken("7291", 1, Lsn(0x2010), handled)
    stream = open_stream(
        said(ITEM)
        + alone(0x2010)
        + alone(0x2100)
        + transaction(0x2200)
        + ORIGINATED
        + transaction(0x4000, 7),
        start=start,
    )
    # The first one is still to come.
    assert stream.token() == start
    rest = [2, 3, 4, 5, 6][handled:]
    if way == "batches":
        made = list(islice(stream.batches(max_rows=1, max_wait=0.01), len(rest) + 2))
        assert [numbers(each) for each in made] == [[None], *([each] for each in rest), [7]]
        tokens = [stream.token(each) for each in made]
        counted = [handled, *range(handled + 1, 5), *([0] if rest else []), 0]
        assert [each.index for each in tokens] == counted
        parts = [each.transactions[0] for each in made]
        assert [part.index for part in parts] == [0, *range(handled, 5), 0]
        assert int(tokens[0].end_lsn) == 0x2100
    else:
        given = stream.transactions(whole=way == "whole")
        message, empty = islice(given, 2)
        assert (message.kind, list(empty)) == ("message", [])
        first = next(given)
        assert numbers(first) == rest
        last = next(given)
        assert numbers(last) == [7]
    assert stream.token(Lsn(0x2100)).index == handled
    assert stream.token(Lsn(0x3010)).index == 0


def test_transactions_of_a_batch(open_stream: Any) -> None:
    stream = open_stream()
    batches = stream.batches(max_rows=4, max_wait=0.01)
    first, second = next(batches), next(batches)
    origin = Origin(Lsn(5), "there")
    expected = (
        TransactionPart("message", None, None, None, None, None, Lsn(0x1800), 0, slice(0, 1)),
        TransactionPart("commit", 700, None, Lsn(0x2000), 0, None, Lsn(0x2010), 0, slice(1, 2)),
        TransactionPart("commit", 700, None, Lsn(0x3000), 0, origin, None, 0, slice(2, 4)),
    )
    copy = pickle.loads(pickle.dumps(first))
    assert first.transactions == copy.transactions == expected
    assert [numbers(first.changes[part.changes]) for part in expected] == [[None], [1], [2, 3]]
    [rest, last] = second.transactions
    assert (rest.index, rest.origin, rest.end_lsn) == (2, origin, Lsn(0x3010))
    assert numbers(second.changes[rest.changes]) == [4, 5, 6]
    assert (last.end_lsn, last.changes) == (Lsn(0x4010), slice(3, 4))


def test_batches_are_gone_on_with(open_stream: Any) -> None:
    """In the middle of a transaction, and with what had come when the loop was interrupted."""
    stream = open_stream()
    assert numbers(next(stream.batches(max_rows=3))) == [None, 1, 2]
    with pytest.raises(UsageError, match="left in the middle: read on in it in the same way"):
        next(stream.transactions())
    assert numbers(next(stream.batches(max_rows=2))) == [3, 4]
    fetch = stream._fetch
    stream._fetch = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        next(stream.batches(max_rows=9))
    stream._fetch = fetch
    with pytest.raises(UsageError, match="read on in it in the same way"):
        next(stream.transactions())
    assert numbers(next(stream.batches(max_rows=9, max_wait=0.01))) == [5, 6, 7]
    assert ids([]) == []


def test_what_another_slot_gave_is_not_acknowledged(open_stream: Any) -> None:
    """Its positions say nothing of what this stream was given, and would discard that."""
    ours, theirs, batches = open_stream(), open_stream(), open_stream()
    # The scripted server has one slot alone.
    for stream in (theirs, batches):
        stream._acknowledging.source = ("other", "7291")
    transaction, batch = next(theirs.transactions(whole=True)), next(batches.batches())
    for given in (transaction, batch, pickle.loads(pickle.dumps(batch))):
        with pytest.raises(UsageError, match="slot 's' of system 7291 gave, .* of 'other' of 7291"):
            ours.ack(given)
    theirs.ack(transaction)
    batches.ack(batch)
