"""Transactions that a batch has as a whole, on both twins: which are, and that nothing differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

import pytest

from pgrepl.codec.outlines import outlines_of
from pgrepl.codec.spool import Spool
from pgrepl.errors import DecodeError, UsageError
from pgrepl.lsn import Lsn
from pgrepl.messages import Begin, Commit, LogicalMessage, Message, Origin
from pgrepl.session.received import READ, ReceivedTransaction
from pgrepl.session.transactions import Transactions
from tests.support.pgoutput_encoder import encode
from tests.support.spooling import ITEM, TIME, XID, batch_of, block_of, commit, insert

BEGIN, END = Begin(Lsn(10), TIME, 7), Commit(Lsn(10), Lsn(20), TIME)
NEXT = (Begin(Lsn(30), TIME + 1, 8), insert(ITEM, 3), Commit(Lsn(30), Lsn(40), TIME + 1))
ORDINARY: tuple[LogicalMessage, ...] = (BEGIN, ITEM, insert(ITEM, 1), insert(ITEM, 2), END)


class Given:
    __slots__ = ("_received", "other")

    def __init__(self) -> None:
        self._received: Any = None
        self.other = "kept"


class Reading:
    """What a mould calls."""

    def __init__(self, codec: Any) -> None:
        self.decoder = codec.Decoder(3, "on", typed=False, ordered=True)
        self.codec, self.spool = codec, Spool()
        self.ended: list[Any] = []
        self.errors: list[BaseException] = []
        self.assembled = Transactions()
        template = ReceivedTransaction("commit", None, None, None)
        self.mould = codec.Mould(template, Given(), self, READ, self.rest)

    def feed(self, *messages: LogicalMessage | bytes) -> Any:
        changes = self.decoder.decode_batch(batch_of(self.codec, messages), self.spool)
        self.assembled.feed(changes)
        return changes

    def begin(self, *messages: LogicalMessage | bytes) -> Any:
        if messages:
            self.feed(*messages)
        given = self.assembled.begin(self.mould)
        return None if given is None else given._received

    def end(self, received: Any) -> None:
        self.ended.append(received)

    def has_failed(self, error: BaseException) -> None:
        self.errors.append(error)

    @staticmethod
    def rest(received: Any, reading: Any) -> Any:
        return Rest()


class Rest:
    def __next__(self) -> Any:
        raise UsageError("the rest")

    async def __anext__(self) -> Any:
        raise UsageError("the rest")


@pytest.fixture
def reading(codec: Any) -> Reading:
    return Reading(codec)


def numbers(changes: Any) -> list[str]:
    return [change.new["id"] for change in changes]


class TestBegin:
    def test_is_what_the_general_way_makes(self, reading: Reading) -> None:
        received = reading.begin(*ORDINARY, *NEXT)
        assert received is reading.mould.received is reading.assembled.open
        assert type(received.commit_lsn) is Lsn
        run, received.run = received.run, None
        expected = ReceivedTransaction("commit", 7, Lsn(10), TIME)
        for name in ReceivedTransaction.__slots__:
            assert getattr(received, name) == getattr(expected, name), name
        received.run = run
        assert not reading.decoder.is_between
        assert reading.begin() is None  # the one before has not ended
        assert numbers(run) == ["1", "2"]
        assert (received.end_lsn, received.has_ended, received.unreadable) == (20, True, READ)
        assert received.run is None and list(run) == []
        assert type(received.end_lsn) is Lsn
        assert reading.decoder.delivered == 20 and reading.decoder.is_between
        assert reading.decoder.totals == (2, 1, TIME)
        assert numbers(reading.begin().run) == ["3"]
        assert reading.begin() is None
        assert not reading.ended and not reading.errors

    def test_users_get_a_copy(self, reading: Reading) -> None:
        reading.feed(*ORDINARY)
        given = reading.assembled.begin(reading.mould)
        assert type(given) is Given and given.other == "kept"

    def test_an_end_after_its_acknowledgement_is_told(self, reading: Reading) -> None:
        received = reading.begin(*ORDINARY)
        received.acknowledged = (True, True, True)
        assert len(list(received.run)) == 2
        assert reading.ended == [received]

    @pytest.mark.parametrize(
        "messages",
        [
            ORDINARY[:-1],
            ORDINARY[1:],
            (ITEM, *ORDINARY),
            (BEGIN, Origin(Lsn(5), "elsewhere"), *ORDINARY[1:]),
            (BEGIN, Commit(Lsn(11), Lsn(20), TIME)),
            (BEGIN, Commit(Lsn(10), Lsn(9), TIME)),
            (BEGIN, b"", END),
            (BEGIN, encode(END)[:-1]),
            (encode(BEGIN) + b"x", END),
            (Message(False, Lsn(5), "prefix", b""), *ORDINARY),
            (Message(False, Lsn(5), "prefix", b""),),
            tuple(block_of(1)),
            (),
        ],
    )
    def test_all_else_is_left_where_it_is(self, reading: Reading, messages: Any) -> None:
        changes = reading.feed(*messages)
        before = changes.peek()
        assert reading.begin() is None
        assert reading.assembled.gather_whole([], [], 10) is False
        assert changes.peek() == before and reading.decoder.delivered == 0

    def test_one_out_of_order_is_told_by_the_general_way(self, reading: Reading) -> None:
        assert len(list(reading.begin(*ORDINARY).run)) == 2
        early = Begin(Lsn(15), TIME, 9), Commit(Lsn(15), Lsn(18), TIME)
        assert reading.begin(*early) is None
        assert reading.assembled.next() is not None
        list(reading.assembled.run())
        with pytest.raises(DecodeError, match="one at 0/F after one that ended at 0/14"):
            reading.assembled.run_ends()

    def test_not_while_what_was_streamed_is_read(self, reading: Reading) -> None:
        changes = reading.feed(*block_of(1), commit(XID))
        list(changes)
        assert not reading.decoder.is_between
        assert reading.begin(*ORDINARY) is None

    def test_a_fault_in_the_middle_is_the_decoders(self, reading: Reading) -> None:
        received = reading.begin(BEGIN, ITEM, insert(ITEM, 1), b"Ix", END)
        assert len(list(islice(received.run, 1))) == 1
        with pytest.raises(DecodeError) as raised:
            next(received.run)
        assert reading.errors == [raised.value]
        assert not received.has_ended


class TestRun:
    def test_goes_on_as_the_mould_says(self, reading: Reading) -> None:
        received = reading.begin(*ORDINARY)
        run = received.run
        assert len(list(islice(run, 1))) == 1
        received.skip()
        with pytest.raises(UsageError, match="the rest"):
            next(run)
        # And what comes next is still there.
        assert reading.assembled.pass_over() == (True, True)
        assert received.end_lsn == 20

    def test_awaited(self, reading: Reading) -> None:
        received = reading.begin(*ORDINARY, *NEXT)

        async def read(run: AsyncIterator[Any]) -> list[str]:
            assert aiter(run) is run
            first = await run.__anext__()
            return [first.new["id"], *[change.new["id"] async for change in run]]

        run = received.run
        assert asyncio.run(read(run)) == ["1", "2"]
        assert received.has_ended
        assert asyncio.run(drained(run))
        other = reading.begin()
        run, other.run = other.run, None
        with pytest.raises(UsageError, match="the rest"):
            asyncio.run(drained(run))


async def drained(run: AsyncIterator[Any]) -> bool:
    async for _ in run:
        return False
    return True


class TestReady:
    def test_has_its_result(self, codec: Any) -> None:
        async def wait(awaitable: Any) -> Any:
            return await awaitable

        value = (1, 2)
        for make in (codec.ready, lambda result: asyncio.wait_for(codec.ready(result), 5)):
            assert asyncio.run(wait(make(value))) is value
        with pytest.raises(StopAsyncIteration):
            asyncio.run(wait(codec.ready(None)))

    def test_by_way_of_an_iterator(self, codec: Any) -> None:
        steps: Any = codec.ready("result").__await__()
        with pytest.raises(StopIteration) as raised:
            next(steps)
        assert raised.value.value == "result"


class TestGather:
    def test_many_in_one_list(self, reading: Reading) -> None:
        empty = Begin(Lsn(50), TIME, 9), Commit(Lsn(50), Lsn(60), TIME)
        reading.feed(*ORDINARY, *NEXT, *empty, BEGIN)
        changes: list[Any] = ["before"]
        parts: list[Any] = []
        assert reading.assembled.gather_whole(changes, parts, 100)
        assert numbers(changes[1:]) == ["1", "2", "3"]
        ((packed, first, before),) = parts
        assert (first, before) == (1, 0)
        assert [tuple(each) for each in outlines_of(packed)] == [
            (10, 20, TIME, 2, 7),
            (30, 40, TIME + 1, 1, 8),
            (50, 60, TIME, 0, 9),
        ]
        assert reading.decoder.delivered == reading.assembled.last_end == 60
        assert not reading.assembled.gather_whole(changes, parts, 100)

    def test_none_is_given_in_part(self, reading: Reading) -> None:
        reading.feed(*NEXT[:1], ITEM, *NEXT[1:], Begin(Lsn(50), TIME, 9), *ORDINARY[2:4])
        reading.feed(*ORDINARY, *NEXT)
        changes: list[Any] = []
        assert not reading.assembled.gather_whole(changes, [], 1)
        assert reading.assembled.gather_whole(changes, [], 2)
        assert len(changes) == 2
        assert not reading.assembled.gather_whole(changes, [], 2)
        assert reading.assembled.gather_whole(changes, [], 3)

    def test_a_fault_in_the_middle(self, reading: Reading) -> None:
        reading.feed(*ORDINARY, NEXT[0], b"Ix", NEXT[2])
        changes: list[Any] = []
        with pytest.raises(DecodeError):
            reading.assembled.gather_whole(changes, [], 100)
        assert numbers(changes) == ["1", "2"]
