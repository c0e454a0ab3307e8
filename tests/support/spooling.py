"""Streamed transactions for tests of what puts them aside: batches of messages, how they are read,
and what a committed transaction consists of, worked out in the plainest way.

As a program it watches the memory that one large transaction takes:

    python -m tests.support.spooling <codec> <bytes of payload> <memory limit>

It prints the peak of its resident memory in bytes, before and behind the transaction, and how many
changes that had.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from pgrepl.codec import Row
from pgrepl.codec.spool import Spool
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
    Update,
)
from pgrepl.session.received import ReceivedTransaction
from pgrepl.session.transactions import Transactions
from tests.support import builders
from tests.support.pgoutput_encoder import encode

__all__ = [
    "END",
    "ITEM",
    "LSN",
    "SUBXID",
    "TIME",
    "WIDE",
    "XID",
    "Transaction",
    "batch_of",
    "block_of",
    "commit",
    "committed",
    "described",
    "insert",
    "peak_memory",
    "read_on",
    "read_transactions",
    "transactions",
]

LSN: Final = Lsn("1/F73E0220")
END: Final = Lsn("1/F73E0250")
TIME: Final = 848653377652022
XID: Final = 740
SUBXID: Final = 741

ITEM: Final = Relation(16389, "public", "item", "d", (Column("id", 23, -1, True),))
WIDE: Final = Relation(
    16390, "public", "wide", "d", (Column("id", 23, -1, True), Column("note", 25, -1, False))
)


class Transaction(NamedTuple):
    kind: str
    xid: int | None
    gid: str | None
    origin: Origin | None
    changes: list[Any]


def described(relation: Relation, xid: int) -> Relation:
    """A relation as it is described in a block, by a (sub)transaction."""
    return replace(relation, xid=xid)


def insert(relation: Relation, number: int, xid: int | None = None) -> Insert:
    """A row with a number in its first column, NULL in the others."""
    nulls = (None,) * (len(relation.columns) - 1)
    return Insert(relation, Row(relation, (str(number), *nulls)), xid)


def commit(xid: int, behind: int = 0) -> StreamCommit:
    """A commit, so many records of commits behind LSN."""
    distance = behind * (END - LSN)
    return StreamCommit(xid, Lsn(LSN + distance), Lsn(END + distance), TIME)


def block_of(count: int, xid: int = XID, size: int = 1000) -> list[LogicalMessage]:
    """A block of `count` rows with texts of `size` characters."""
    row = Insert(WIDE, Row(WIDE, ("1", "x" * size)), xid)
    return [StreamStart(xid, True), described(WIDE, xid), *[row] * count, StreamStop()]


def batch_of(codec: Any, messages: Sequence[LogicalMessage | bytes], first: int = 1) -> Any:
    """A WalBatch of these messages or payloads, whose LSNs count from `first` on."""
    reader = codec.FrameReader()
    for lsn, message in enumerate(messages, first):
        payload = message if isinstance(message, bytes) else encode(message)
        reader.feed(builders.copy_data(builders.xlog_data(lsn, lsn, TIME, payload)))
    batch = codec.next_batch(reader)
    return codec.WalBatch() if batch is None else batch


def read_on(assembled: Transactions) -> Iterator[Any]:
    """Read what is at hand of the open transaction, as a driver does."""
    yield from assembled.run()
    assembled.run_ends()


def read_transactions(
    decoder: Any, spool: Spool, batches: Iterable[Any]
) -> Iterable[tuple[ReceivedTransaction, list[Any]]]:
    """Read batches as a driver does, and give each transaction with its changes."""
    assembled = Transactions()
    changes: list[Any] = []
    for batch in batches:
        assembled.feed(decoder.decode_batch(batch, spool))
        while True:
            transaction = assembled.open
            if transaction is None or transaction.is_whole:
                changes = []
                if (transaction := assembled.next()) is None:
                    break
            changes += read_on(assembled)
            if not transaction.is_whole:
                break
            yield transaction, changes


def transactions(
    codec: Any,
    spool: Spool,
    messages: Sequence[LogicalMessage],
    cuts: Callable[[], int] = lambda: 1 << 30,
) -> list[Transaction]:
    """What a twin makes of these messages, in batches as long as `cuts` says; values as text."""
    decoder = codec.Decoder(3, "on", typed=False, ordered=True)

    def batches() -> Iterable[Any]:
        at = 0
        while at < len(messages):
            count = cuts()
            yield batch_of(codec, messages[at : at + count], at + 1)
            at += count

    return [
        Transaction(made.kind, made.xid, made.gid, made.origin, changes)
        for made, changes in read_transactions(decoder, spool, batches())
    ]


def committed(messages: Iterable[LogicalMessage]) -> list[Transaction]:
    """What these messages deliver: changes are as they were sent, with what they meant then."""
    model = _Model()
    for message in messages:
        model.take(message)
    return model.delivered


class _Model:
    def __init__(self) -> None:
        self.delivered: list[Transaction] = []
        self._streams: dict[int, Transaction] = {}
        self._current: Transaction | None = None

    def take(self, message: LogicalMessage) -> None:
        match message:
            case StreamStart(xid, first_segment):
                if first_segment:
                    self._streams[xid] = Transaction("commit", xid, None, None, [])
                self._current = self._streams[xid]
            case StreamAbort(xid, subxid):
                stream = self._streams.pop(xid, None)
                if stream is not None and xid != subxid:
                    kept = [change for change in stream.changes if change.xid != subxid]
                    self._streams[xid] = stream._replace(changes=kept)
            case StreamCommit(xid):
                self.delivered.append(self._streams.pop(xid))
            case StreamPrepare(xid=xid, gid=gid):
                stream = self._streams.pop(xid)
                self.delivered.append(stream._replace(kind="prepare", gid=gid))
            case _:
                self._take_whole(message)

    def _take_whole(self, message: LogicalMessage) -> None:
        match message:
            case Begin(xid=xid):
                self._current = Transaction("commit", xid, None, None, [])
            case BeginPrepare(xid=xid, gid=gid):
                self._current = Transaction("prepare", xid, gid, None, [])
            case Insert() | Update() | Delete() | Truncate() | Message():
                assert self._current is not None
                self._current.changes.append(message)
            case Commit() | Prepare():
                assert self._current is not None
                self.delivered.append(self._current)
                self._current = None
            case StreamStop():
                self._current = None
            case CommitPrepared(xid=xid, gid=gid):
                self.delivered.append(Transaction("commit prepared", xid, gid, None, []))
            case RollbackPrepared(xid=xid, gid=gid):
                self.delivered.append(Transaction("rollback prepared", xid, gid, None, []))


def peak_memory() -> int:
    """VmHWM: the peak of this program alone, which getrusage() would mix with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def main(name: str, size: int, limit: int) -> None:
    codec = importlib.import_module(name)
    row = Insert(WIDE, Row(WIDE, ("1", "x" * 1000)), XID)
    block: list[LogicalMessage] = [row] * 1000
    batch = batch_of(codec, block)
    decoder, spool = codec.Decoder(3, "on"), Spool(limit)
    head: list[LogicalMessage] = [StreamStart(XID, True), described(WIDE, XID)]
    list(decoder.decode_batch(batch_of(codec, head), spool))
    list(decoder.decode_batch(batch, spool))
    before, written = peak_memory(), 1000 * 1000
    while written < size:
        list(decoder.decode_batch(batch, spool))
        written += 1000 * 1000
    changes = decoder.decode_batch(batch_of(codec, [StreamStop(), commit(XID)]), spool)
    list(changes)
    count = sum(change.new["id"] == 1 for change in changes.streamed(XID))
    print(before, peak_memory(), count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
