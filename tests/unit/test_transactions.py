"""Transactions of decoded batches, on both twins: kinds, ends, and what counts as delivered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest

from pgrepl.codec.spool import Spool
from pgrepl.errors import DecodeError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    RollbackPrepared,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
)
from pgrepl.session.received import ReceivedTransaction
from pgrepl.session.transactions import Transactions
from tests.support.pgoutput_encoder import encode
from tests.support.spooling import ITEM, TIME, XID, batch_of, described, insert, read_on

STREAMED: tuple[LogicalMessage, ...] = (
    StreamStart(XID, True),
    described(ITEM, XID),
    *(insert(ITEM, number, XID) for number in range(3)),
    StreamStop(),
)


class Reader:
    """A driver's part: a decoder, a spool, and what assembles transactions."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.decoder = codec.Decoder(3, "on", typed=False, ordered=True)
        self.spool = Spool()
        self.transactions = Transactions()

    def feed(self, *messages: LogicalMessage) -> None:
        batch = batch_of(self.codec, messages)
        self.transactions.feed(self.decoder.decode_batch(batch, self.spool))

    def next(self, *messages: LogicalMessage) -> ReceivedTransaction:
        if messages:
            self.feed(*messages)
        transaction = self.transactions.next()
        assert transaction is not None
        return transaction

    def numbers(self) -> list[str]:
        return [change.new["id"] for change in read_on(self.transactions)]


@pytest.fixture
def reader(codec: Any) -> Reader:
    return Reader(codec)


def outline(made: ReceivedTransaction) -> Sequence[object]:
    return made.kind, made.xid, made.commit_lsn, made.commit_time, made.end_lsn, made.gid


class TestWhole:
    def test_one_in_several_batches(self, reader: Reader) -> None:
        made = reader.next(Begin(Lsn(10), TIME, 1))
        assert outline(made) == ("commit", 1, 10, TIME, None, None)
        assert not reader.decoder.is_between
        reader.feed(Origin(Lsn(5), "elsewhere"), ITEM, insert(ITEM, 1))
        assert reader.numbers() == ["1"]
        assert not made.is_whole
        assert not reader.transactions.at_end
        reader.feed(Commit(Lsn(10), Lsn(20), TIME))
        assert reader.transactions.at_end
        assert reader.numbers() == []
        assert made.is_whole
        assert made.end_lsn == reader.decoder.delivered == 20
        assert made.origin == Origin(Lsn(5), "elsewhere")
        assert reader.decoder.is_between

    def test_every_other_kind(self, reader: Reader) -> None:
        message = Message(False, Lsn(5), "prefix", b"")
        reader.feed(
            message,
            *(
                BeginPrepare(Lsn(10), Lsn(20), TIME, 2, "a"),
                Prepare(Lsn(10), Lsn(20), TIME, 2, "a"),
            ),
            CommitPrepared(Lsn(30), Lsn(40), TIME, 2, "a"),
            RollbackPrepared(Lsn(20), Lsn(50), TIME, TIME, 3, "b"),
        )
        found = []
        while (made := reader.transactions.next()) is not None:
            found.append((*outline(made), list(read_on(reader.transactions)), made.is_whole))
        assert found == [
            ("message", None, None, None, 5, None, [message], True),
            ("prepare", 2, 10, TIME, None, "a", [], True),
            ("commit prepared", 2, 30, TIME, 40, "a", [], True),
            ("rollback prepared", 3, None, TIME, 50, "b", [], True),
        ]

    def test_an_end_that_is_not_its_own(self, reader: Reader) -> None:
        reader.next(Begin(Lsn(10), TIME, 1), Commit(Lsn(11), Lsn(20), TIME))
        with pytest.raises(DecodeError, match="was to end at 0/A to do so, got its end at 0/B"):
            list(read_on(reader.transactions))


ENDS = (
    (StreamCommit(XID, Lsn(30), Lsn(40), TIME), ("commit", XID, 30, TIME, 40, None)),
    (StreamPrepare(Lsn(30), Lsn(40), TIME, XID, "gid"), ("prepare", XID, 30, TIME, 40, "gid")),
)


class TestStreamed:
    @pytest.mark.parametrize(("end", "expected"), ENDS)
    def test_is_delivered_when_it_was_read(self, reader: Reader, end: Any, expected: Any) -> None:
        reader.feed(*STREAMED)
        assert reader.transactions.next() is None
        assert reader.decoder.is_between
        made = reader.next(end)
        assert outline(made) == expected
        some = read_on(reader.transactions)
        assert [change.new["id"] for change in islice(some, 2)] == ["0", "1"]
        del some
        # Whoever acknowledged 40 now could lose the third row.
        assert not made.is_whole
        assert not reader.transactions.at_end
        assert reader.decoder.delivered == 0
        assert not reader.decoder.is_between
        assert reader.numbers() == ["2"]
        assert made.is_whole
        assert reader.decoder.delivered == 40
        assert reader.decoder.is_between
        assert reader.spool.memory == 0

    def test_is_at_its_end_behind_the_last_change(self, reader: Reader) -> None:
        reader.feed(*STREAMED)
        assert reader.transactions.next() is None
        made = reader.next(ENDS[0][0], Begin(Lsn(50), TIME, 1))
        assert len(list(islice(read_on(reader.transactions), 3))) == 3
        assert reader.transactions.at_end
        assert not made.is_whole
        assert reader.numbers() == []
        assert made.is_whole
        assert not reader.transactions.at_end
        assert reader.next().xid == 1

    def test_the_rest_can_be_passed_over(self, reader: Reader) -> None:
        reader.feed(*STREAMED)
        assert reader.transactions.next() is None
        made = reader.next(ENDS[0][0])
        assert len(list(islice(read_on(reader.transactions), 1))) == 1
        assert reader.transactions.pass_over() == (True, True)
        assert reader.spool.memory == 0
        assert reader.numbers() == []
        assert made.is_whole
        assert reader.decoder.delivered == 40

    def test_one_without_changes(self, reader: Reader) -> None:
        reader.feed(StreamStart(XID, True), StreamStop())
        assert reader.transactions.next() is None
        made = reader.next(ENDS[0][0])
        assert not made.is_whole
        assert reader.numbers() == []
        assert made.is_whole

    def test_only_what_is_sent_whole_in_between_is_passed_over(self, reader: Reader) -> None:
        made = reader.next(
            *(*STREAMED, Begin(Lsn(10), TIME, 1), ITEM, insert(ITEM, 7)),
            *(Commit(Lsn(10), Lsn(20), TIME), ENDS[0][0]),
        )
        assert reader.transactions.pass_over() == (True, True)
        assert (made.xid, reader.decoder.delivered) == (1, 20)
        assert (reader.next().xid, reader.numbers()) == (XID, ["0", "1", "2"])

    def test_comes_in_the_order_of_its_end(self, reader: Reader) -> None:
        reader.next(*STREAMED, Begin(Lsn(40), TIME, 1), Commit(Lsn(40), Lsn(50), TIME), ENDS[0][0])
        assert reader.numbers() == []
        with pytest.raises(DecodeError, match="one at 0/1E after one that ended at 0/32"):
            reader.transactions.next()
        assert reader.decoder.delivered == 50

    def test_one_that_was_prepared_long_ago(self, reader: Reader) -> None:
        """Only the commits are in order: see `_in_order`."""
        reader.next(*STREAMED, Begin(Lsn(40), TIME, 1), Commit(Lsn(40), Lsn(50), TIME), ENDS[1][0])
        assert reader.numbers() == []
        assert outline(reader.next()) == ENDS[1][1]
        assert reader.numbers() == ["0", "1", "2"]
        assert reader.decoder.delivered == 50


class TestTotals:
    def test_changes_when_they_come_and_transactions_when_they_end(self, reader: Reader) -> None:
        def read(*messages: LogicalMessage) -> tuple[int, int, int | None]:
            reader.feed(*messages)
            while reader.transactions.next() is not None:
                reader.numbers()
            return reader.decoder.totals

        assert reader.decoder.totals == (0, 0, None)
        begin, end = Begin(Lsn(10), TIME, 1), Commit(Lsn(10), Lsn(20), TIME + 1)
        assert read(begin, ITEM, insert(ITEM, 1), insert(ITEM, 2)) == (2, 0, None)
        reader.feed(end)
        assert (reader.numbers(), reader.decoder.totals) == ([], (2, 1, TIME + 1))
        # Put aside: its changes have come; it has not ended before they were read.
        assert read(*STREAMED) == (5, 1, TIME + 1)
        made = reader.next(StreamCommit(XID, Lsn(30), Lsn(40), TIME + 2))
        assert reader.decoder.totals == (5, 1, TIME + 2)
        assert len(reader.numbers()) == 3 and made.is_whole
        assert reader.decoder.totals == (5, 2, TIME + 2)
        # In one go.
        outcome = RollbackPrepared(Lsn(45), Lsn(50), TIME, TIME + 3, 3, "b")
        assert read(outcome) == (5, 3, TIME + 3)

    def test_what_belongs_to_no_transaction(self, reader: Reader) -> None:
        reader.next(Message(False, Lsn(5), "prefix", b""))
        assert len(list(read_on(reader.transactions))) == 1
        assert reader.decoder.totals == (1, 1, None)


def begun(end: Any) -> tuple[LogicalMessage, ...]:
    """What must come before the end of a transaction."""
    if isinstance(end, Commit):
        return (Begin(end.commit_lsn, TIME, 1),)
    if isinstance(end, Prepare):
        return (BeginPrepare(end.prepare_lsn, end.end_lsn, TIME, 1, "gid"),)
    return STREAMED if isinstance(end, StreamCommit | StreamPrepare) else ()


LATE = [
    Commit(Lsn(30), Lsn(60), TIME),
    StreamCommit(XID, Lsn(30), Lsn(60), TIME),
    CommitPrepared(Lsn(30), Lsn(60), TIME, 1, "gid"),
    RollbackPrepared(Lsn(20), Lsn(30), TIME, TIME, 1, "gid"),
]
INSIDE_OUT = [
    Commit(Lsn(70), Lsn(60), TIME),
    Prepare(Lsn(70), Lsn(60), TIME, 1, "gid"),
    StreamCommit(XID, Lsn(70), Lsn(60), TIME),
    StreamPrepare(Lsn(70), Lsn(60), TIME, XID, "gid"),
    CommitPrepared(Lsn(70), Lsn(60), TIME, 1, "gid"),
]


class TestOrder:
    def begin(self, reader: Reader, end: Any) -> None:
        """Read one transaction that ends at 50, and feed another one."""
        reader.next(Begin(Lsn(40), TIME, 1), Commit(Lsn(40), Lsn(50), TIME))
        list(read_on(reader.transactions))
        reader.feed(*begun(end), end)

    def read(self, reader: Reader) -> None:
        reader.transactions.next()
        list(read_on(reader.transactions))

    @pytest.mark.parametrize("end", LATE)
    def test_nothing_is_committed_before_the_one_before(self, reader: Reader, end: Any) -> None:
        self.begin(reader, end)
        with pytest.raises(DecodeError, match="one at 0/1E after one that ended at 0/32") as caught:
            self.read(reader)
        assert position_at(end, caught.value.offset) == 30

    @pytest.mark.parametrize("end", INSIDE_OUT)
    def test_an_end_is_behind_its_beginning(self, reader: Reader, end: Any) -> None:
        self.begin(reader, end)
        with pytest.raises(DecodeError, match="at 0/46 to end .*, got its end at 0/3C") as caught:
            self.read(reader)
        assert position_at(end, caught.value.offset) == 60


def position_at(message: LogicalMessage, offset: int | None) -> int:
    """The position that a message has there."""
    assert offset is not None
    return int.from_bytes(encode(message)[offset : offset + 8], "big")
