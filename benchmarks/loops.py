"""What is done with a stream, written once: loops over messages, over changes in either flavour.

Each is the loop of somebody who uses pgrepl. What surrounds it - a connection, a clock, how it is
known that all has come - is the measured program's: `clients`, `fed`, and those of `live`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from pgrepl import AsyncStream, AsyncTransaction, Stream, Transaction
    from pgrepl.codec.abc import WalBatch, XLogData

# Messages. A keepalive comes with every stream, so a user's loop has to tell the two apart; the
# cheap way is once a batch: it has as many headers as messages unless there is one among them.


def xlogdata_of(batch: WalBatch) -> Sequence[XLogData]:
    """Return a batch's messages without keepalives: the batch itself where there is none."""
    from pgrepl import XLogData

    if len(batch.wal_start) == len(batch):
        return batch  # type: ignore[return-value]
    return [message for message in batch if isinstance(message, XLogData)]


def iterate(messages: Iterable[XLogData]) -> None:
    for _ in messages:
        pass


def read_positions(messages: Iterable[XLogData]) -> None:
    for message in messages:
        _ = message.wal_start
        _ = message.wal_end


def read_headers(messages: Iterable[XLogData]) -> None:
    for message in messages:
        _ = message.wal_start
        _ = message.wal_end
        _ = message.server_time


def read_everything(messages: Iterable[XLogData]) -> None:
    for message in messages:
        _ = message.wal_start
        _ = message.wal_end
        _ = message.server_time
        _ = message.data


def read_payload(messages: Iterable[XLogData]) -> None:
    for message in messages:
        _ = message.data


def copy_payload(messages: Iterable[XLogData]) -> None:
    for message in messages:
        _ = bytes(message)


# Changes. An application acknowledges, so each transaction or batch is acknowledged. A loop returns
# how many it took, of transactions or of rows, and what it made of the last row.

Found: TypeAlias = tuple[int, Any]


def unread(transaction: Transaction) -> Any:
    change: Any = None
    for change in transaction:  # noqa: B007
        pass
    return change.new if change else None


def typed(transaction: Transaction) -> Any:
    row = None
    change: Any
    for change in transaction:
        row = change.new.astuple()
    return row


async def unread_async(transaction: AsyncTransaction) -> Any:
    change: Any = None
    async for change in transaction:  # noqa: B007
        pass
    return change.new if change else None


async def typed_async(transaction: AsyncTransaction) -> Any:
    row = None
    change: Any
    async for change in transaction:
        row = change.new.astuple()
    return row


def by_transaction(work: Callable[[Transaction], Any]) -> Callable[[Stream, int, int], Found]:
    """Return the loop that does this work with each transaction, up to one that ends there."""

    def loop(stream: Stream, rows: int, end_lsn: int) -> Found:
        transactions = 0
        row = None
        for transaction in stream.transactions():
            row = work(transaction)
            transactions += 1
            stream.ack(transaction)
            if transaction.end_lsn == end_lsn:
                break
        return transactions, row

    return loop


def by_transaction_async(
    work: Callable[[AsyncTransaction], Awaitable[Any]],
) -> Callable[[AsyncStream, int, int], Awaitable[Found]]:
    """The same, awaited."""

    async def loop(stream: AsyncStream, rows: int, end_lsn: int) -> Found:
        transactions = 0
        row = None
        async for transaction in stream.transactions():
            row = await work(transaction)
            transactions += 1
            stream.ack(transaction)
            if transaction.end_lsn == end_lsn:
                break
        return transactions, row

    return loop


def batches(stream: Stream, rows: int, end_lsn: int) -> Found:
    """Take all columns of each change, batch by batch, until there were so many rows."""
    taken = 0
    row: Any = None
    change: Any
    for batch in stream.batches(BATCH_ROWS):
        for change in batch.changes:
            row = change.new.astuple()
        taken += len(batch)
        stream.ack(batch)
        if taken >= rows:
            break
    return taken, row


async def batches_async(stream: AsyncStream, rows: int, end_lsn: int) -> Found:
    """The same, awaited."""
    taken = 0
    row: Any = None
    change: Any
    async for batch in stream.batches(BATCH_ROWS):
        for change in batch.changes:
            row = change.new.astuple()
        taken += len(batch)
        stream.ack(batch)
        if taken >= rows:
            break
    return taken, row


BATCH_ROWS: Final = 500
"""Rows of a batch. A whole number of them is in every workload, so that nobody waits for a last
batch to be filled."""
