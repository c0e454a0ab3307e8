"""Whole transactions that wait for a reader, on both twins: what they give, and what they take."""

from __future__ import annotations

import gc
import io
import sys
import tempfile
import threading
import tracemalloc
from collections import deque
from collections.abc import Iterable
from typing import Any, TypeAlias

import pytest

from pgrepl.codec import Row
from pgrepl.codec import spool_file as spool_file_module
from pgrepl.codec.spool import Spool
from pgrepl.errors import DecodeError, SpoolError, UsageError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    StreamAbort,
    StreamCommit,
    Truncate,
    Type,
    Update,
)
from pgrepl.session.received import ReceivedTransaction
from pgrepl.session.transactions import Transactions
from tests.support.spooling import ITEM, SUBXID, TIME, WIDE, XID, batch_of, block_of, insert
from tests.unit.test_transactions import STREAMED

MEBIBYTE = 1 << 20
Whole: TypeAlias = tuple[ReceivedTransaction, Iterable[Any]]


class Reader:
    """A driver's part: puts messages in, takes whole transactions out."""

    def __init__(self, codec: Any, limit: int = MEBIBYTE, spool: Spool | None = None) -> None:
        self.codec = codec
        self.decoder = codec.Decoder(3, "on", typed=False, ordered=True)
        self.spool = spool or Spool(limit)
        self.transactions = Transactions()
        self.lsn = 1

    def take(
        self, *messages: LogicalMessage | bytes
    ) -> list[tuple[ReceivedTransaction, Iterable[Any]]]:
        batch = batch_of(self.codec, messages, self.lsn)
        self.lsn += len(messages)
        self.transactions.feed(self.decoder.decode_batch(batch, self.spool))
        found: list[tuple[ReceivedTransaction, Iterable[Any]]] = []
        while True:
            transaction = self.transactions.open
            if transaction is None or transaction.has_ended:
                transaction = self.transactions.next()
                if transaction is None:
                    return found
            gathered = self.transactions.gather(self.spool)
            if gathered is None:
                return found
            found.append((transaction, gathered))


def transaction(number: int, *changes: LogicalMessage) -> list[LogicalMessage]:
    lsn = 1000 * number
    return [Begin(Lsn(lsn), TIME, number), *changes, Commit(Lsn(lsn), Lsn(lsn + 10), TIME)]


def ids(changes: Iterable[Any]) -> list[str]:
    return [change.new["id"] for change in changes]


def wide(number: int, size: int) -> Insert:
    return Insert(WIDE, Row(WIDE, (str(number), "x" * size)))


class TestWhatTheyGive:
    def test_every_kind_of_change_again_and_again(self, codec: Any) -> None:
        row, key = Row(ITEM, ("1",)), Row(ITEM, ("1",), key_only=True)
        changes: list[LogicalMessage] = [
            *(insert(ITEM, 1), Update(ITEM, None, None, row), Update(ITEM, key, None, row)),
            *(Delete(ITEM, None, row), Truncate((ITEM, WIDE), True, False)),
            Message(True, Lsn(5), "prefix", b"content"),
        ]
        reader = Reader(codec)
        [(made, gathered)] = reader.take(
            ITEM,
            WIDE,
            Begin(Lsn(1000), TIME, 1),
            Origin(Lsn(5), "there"),
            *changes,
            Commit(Lsn(1000), Lsn(1010), TIME),
        )
        assert made.origin == Origin(Lsn(5), "there")
        assert (made.end_lsn, reader.decoder.delivered) == (1010, 1010)
        assert list(gathered) == changes
        assert [change.lsn for change in gathered if not isinstance(change, Message)] == [
            *range(5, 10)
        ]
        first, second = iter(gathered), iter(gathered)
        assert [next(first), next(second), next(second), next(first)] == [
            *(changes[0], changes[0], changes[1], changes[1])
        ]
        assert reader.decoder.is_between

    def test_one_that_comes_in_pieces_is_given_at_its_end(self, codec: Any) -> None:
        reader, [begin, first, second, commit] = (
            Reader(codec),
            transaction(1, insert(ITEM, 1), insert(ITEM, 2)),
        )
        assert reader.take(ITEM, begin) == reader.take(first) == []
        assert not reader.decoder.is_between
        # What is described in between is for what comes behind it.
        altered = Relation(ITEM.oid, "public", "altered", "d", ITEM.columns)
        assert reader.take(altered, second) == []
        [(_, gathered)] = reader.take(commit)
        reader.take(Relation(ITEM.oid, "public", "later", "d", ITEM.columns))
        assert [change.relation.name for change in gathered] == ["item", "altered"]
        assert ids(gathered) == ["1", "2"]

    def test_one_that_was_streamed(self, codec: Any) -> None:
        """Without what was rolled back; a message that belongs to none is one of its own."""
        message = Message(False, Lsn(5), "prefix", b"", XID)
        reader = Reader(codec)
        found = reader.take(
            *STREAMED[:-1],
            insert(ITEM, 7, SUBXID),
            message,
            STREAMED[-1],
            StreamAbort(XID, SUBXID),
            StreamCommit(XID, Lsn(30), Lsn(40), TIME),
        )
        [(alone, [given]), (made, gathered)] = found
        assert (alone.kind, given, made.xid) == ("message", message, XID)
        for _ in range(2):
            assert ids(gathered) == ["0", "1", "2"]
            assert {change.xid for change in gathered} == {XID}
        assert (made.end_lsn, reader.decoder.delivered) == (40, 40)

    def test_what_is_wrong_is_found_when_it_comes(self, codec: Any) -> None:
        reader = Reader(codec)
        reader.take(ITEM, Begin(Lsn(1000), TIME, 1))
        with pytest.raises(DecodeError, match="expected a relation that was described"):
            reader.take(insert(WIDE, 1))
        reader = Reader(codec)
        bad = b"I" + ITEM.oid.to_bytes(4, "big") + b"N\0\2nn"
        with pytest.raises(DecodeError, match="got 2"):
            reader.take(ITEM, Begin(Lsn(1000), TIME, 1), bad)

    def test_the_twins_count_the_same(self, codec: Any) -> None:
        reader = Reader(codec)
        reader.take(ITEM, *transaction(1, insert(ITEM, 1), Truncate((ITEM,), False, False)))
        assert reader.decoder.totals == (2, 1, TIME)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The temporary files that were made."""
    made: list[Any] = []
    original = tempfile.TemporaryFile

    def make(**keywords: Any) -> Any:
        made.append(original(**keywords))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    return made


class TestWhatTheyTake:
    def test_a_queue_of_many_small_ones(self, codec: Any, files: list[Any]) -> None:
        reader = Reader(codec)
        queue: deque[Any] = deque()
        reader.take(WIDE)
        tracemalloc.start()
        for number in range(1, 601):
            queue += reader.take(*transaction(number, wide(number, 10_000)))
            assert reader.spool.memory <= MEBIBYTE
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < MEBIBYTE + 600 * 1500  # 6 MB of texts, and their objects
        assert 1 <= len(files) <= 3  # not one for each
        for number, (_, gathered) in enumerate(queue, 1):
            assert ids(gathered) == [str(number)] * 1
        # The oldest stayed in memory. In any order: all of it goes with the last of each file.
        assert reader.spool.memory > 0
        del gathered
        queue.clear()
        gc.collect()
        assert (reader.spool.memory, [file.closed for file in files]) == (0, [True] * len(files))
        assert reader.spool._kept == reader.spool._waiting_count == 0

    def test_one_that_is_larger_than_the_limit(self, codec: Any, files: list[Any]) -> None:
        reader = Reader(codec)
        reader.take(WIDE, Begin(Lsn(1000), TIME, 1))
        batch = [wide(number, 20_000) for number in range(20)]
        for _ in range(10):
            assert reader.take(*batch) == []
            assert reader.spool.memory <= MEBIBYTE
        [(_, gathered)] = reader.take(Commit(Lsn(1000), Lsn(1010), TIME))
        for _ in range(2):
            assert ids(gathered) == [str(number) for number in range(20)] * 10
        assert len(files) == 1
        del gathered, _
        assert files[0].closed
        assert reader.spool.memory == 0

    def test_they_make_room_for_what_is_streamed(self, codec: Any, files: list[Any]) -> None:
        reader = Reader(codec, 2 * MEBIBYTE)
        reader.take(WIDE)
        found = [reader.take(*transaction(n, *[wide(n, 900)] * 1000))[0] for n in (1, 2)]
        found += reader.take(*block_of(1000), StreamCommit(XID, Lsn(9000), Lsn(9010), TIME))
        assert reader.spool.memory <= 2 * MEBIBYTE
        assert [len(ids(gathered)) for _, gathered in found] == [1000] * 3
        del found
        assert (reader.spool.memory, {file.closed for file in files}) == (0, {True})

    def test_what_nobody_has_goes_unread(self, codec: Any) -> None:
        reader = Reader(codec)
        reader.take(WIDE)
        for number in range(1, 200):
            reader.take(*transaction(number, wide(number, 100_000)))
        assert reader.spool.memory == reader.spool._waiting_count == 0

    def test_small_ones_take_little(self, codec: Any) -> None:
        reader = Reader(codec, 64 * MEBIBYTE)
        reader.take(ITEM)
        found = reader.take(*transaction(1, insert(ITEM, 1)))
        tracemalloc.start()
        for number in range(2, 502):
            found += reader.take(*transaction(number, insert(ITEM, 1)))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held / 500 < 1600  # what _WAITING counts, and the transaction itself
        assert len(found) == 501

    def test_they_can_be_read_when_the_spool_is_closed(self, codec: Any, files: list[Any]) -> None:
        reader = Reader(codec)
        reader.take(WIDE)
        found = [reader.take(*transaction(n, wide(n, 500_000)))[0] for n in range(1, 9)]
        reader.spool.close()
        assert [ids(gathered) for _, gathered in found] == [[str(n)] for n in range(1, 9)]
        changes = iter(found[-1][1])
        del found
        assert ids(changes) == ["8"]
        del changes
        assert {file.closed for file in files} == {True}

    def test_a_file_that_is_damaged_is_an_error_and_the_stream_goes_on(
        self, codec: Any, files: list[Any]
    ) -> None:
        reader = Reader(codec)
        reader.take(WIDE)
        found = [reader.take(*transaction(n, wide(n, 500_000)))[0] for n in range(1, 9)]
        files[0].truncate(0)
        failed = 0
        for _, gathered in found:
            try:
                ids(gathered)
            except SpoolError as error:
                assert "damaged" in str(error)
                failed += 1
        assert failed
        [(_, gathered)] = reader.take(*transaction(9, insert(WIDE, 9)))
        assert ids(gathered) == ["9"]

    @pytest.mark.parametrize("has_pread", [True, False])
    def test_read_by_threads_while_the_reader_goes_on(
        self, codec: Any, has_pread: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While those that they read move to the file."""
        monkeypatch.setattr(spool_file_module, "_HAS_PREAD", has_pread)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        reader = Reader(codec)
        queue: deque[Any] = deque()
        wrong: list[Any] = []
        done = threading.Event()

        def work() -> None:
            try:
                while queue or not done.is_set():
                    try:
                        number, gathered = queue.popleft()
                    except IndexError:
                        continue
                    for _ in range(2):
                        if ids(gathered) != [str(number)] * 40:
                            wrong.append(number)
                    del gathered
            except BaseException as error:
                wrong.append(error)
                raise

        threads = [threading.Thread(target=work) for _ in range(3)]
        try:
            for thread in threads:
                thread.start()
            reader.take(WIDE)
            for number in range(1, 101):
                # Another description each, which goes with the transactions that use it.
                reader.take(Type(99999, "public", f"t{number}"), WIDE)
                for _, gathered in reader.take(*transaction(number, *[wide(number, 5000)] * 40)):
                    queue.append((number, gathered))
                del gathered
        finally:
            done.set()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        assert wrong == []
        gc.collect()
        assert (reader.spool.memory, reader.spool._waiting_count) == (0, 0)


class TestClosedByAnotherThread:
    """`stop()` is for any thread: whoever reads comes to an end, and gives back what it has."""

    def test_while_blocks_are_put_aside_and_read(self, codec: Any, files: list[Any]) -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for delay in range(0, 40):
                self.close_in_between(codec, delay)
        finally:
            sys.setswitchinterval(interval)
        gc.collect()
        assert {file.closed for file in files} <= {True}

    def close_in_between(self, codec: Any, delay: int) -> None:
        spool, decoder = Spool(MEBIBYTE), codec.Decoder(3, "on")
        begun = threading.Event()
        found: list[BaseException] = []
        block = [*block_of(300, XID, 6000), StreamCommit(XID, Lsn(30), Lsn(40), TIME)]
        batch = batch_of(codec, block)

        def read() -> None:
            try:
                for _ in range(100):
                    changes = decoder.decode_batch(batch, spool)
                    begun.set()
                    list(changes)
                    for _ in changes.streamed(XID):
                        pass
                    changes.settle()
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        begun.wait()
        for _ in range(delay * 500):
            pass
        spool.close()
        thread.join()
        [error] = found
        assert isinstance(error, UsageError), error
        assert "stopped in the middle of this transaction" in str(error)

    @pytest.mark.parametrize("moment", ["write", "read"])
    def test_while_a_piece_moves(
        self, codec: Any, files: list[Any], moment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the middle of what is done with the file."""
        spool, decoder = Spool(MEBIBYTE), codec.Decoder(3, "on")
        name = "append" if moment == "write" else "_read_some"
        original = getattr(spool_file_module.SpoolFile, name)

        def close_first(*arguments: Any) -> Any:
            thread = threading.Thread(target=spool.close)
            thread.start()
            thread.join()
            return original(*arguments)

        monkeypatch.setattr(spool_file_module.SpoolFile, name, close_first)
        block = [*block_of(2000), StreamCommit(XID, Lsn(30), Lsn(40), TIME)]
        changes = decoder.decode_batch(batch_of(codec, block), spool)
        with pytest.raises(UsageError, match="stopped in the middle of this transaction"):
            list(changes)
            for _ in changes.streamed(XID):
                pass
        del decoder, changes
        gc.collect()
        assert [file.closed for file in files] == [True]


def test_files_are_what_they_are_for() -> None:
    """Read by position, whoever moved the file's own."""
    file = spool_file_module.SpoolFile(None)
    file.append(memoryview(b"abcdef"))
    file._file.seek(0)
    room = bytearray(3)
    file.read(2, memoryview(room))
    assert (bytes(room), file.size) == (b"cde", 6)
    assert isinstance(file._file, io.RawIOBase)
