"""The clients that drain with asyncio: ``python -m benchmarks.live.async_drains WHO TASK``.

The loops are those of `drains`, awaited.
Each is there twice, for the standard library's event loop and for uvloop's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .gauge import Gauge, run_client
from .task import BATCH_ROWS, ClientFailed, DrainTask, check

if TYPE_CHECKING:
    from pgrepl import AsyncConnection, AsyncStream

_BUFFER_SIZE: Final = 65536

_Client: TypeAlias = Callable[[DrainTask, Gauge], Awaitable[None]]
_Drain: TypeAlias = Callable[["AsyncStream", DrainTask], Awaitable[tuple[int, Any]]]


class _Floor(asyncio.BufferedProtocol):
    """Takes what comes into one buffer and looks at nothing but the end."""

    def __init__(self, task: DrainTask) -> None:
        self._last_commit = bytes.fromhex(task.last_commit)
        self._size = task.size
        self._buffer = bytearray(_BUFFER_SIZE)
        self._end = b""
        self.received = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        # Keepalives come on top of the size, so that the bytes alone do not tell the end.
        if self.received > self._size - _BUFFER_SIZE and not self.done.done():
            self._end += self._buffer[:nbytes]
            if self._last_commit in self._end:
                self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(
                exc or ClientFailed("expected the last commit, the server hung up")
            )


async def _bare(task: DrainTask, gauge: Gauge) -> None:
    with task.session() as frontend:
        if not task.slot:
            return
        connection = frontend.start_streaming(task.command)
        gauge.start()
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        is_unix = connection.family == socket.AF_UNIX
        connect = loop.create_unix_connection if is_unix else loop.create_connection
        transport, protocol = await connect(lambda: _Floor(task), sock=connection)
        await protocol.done
        gauge.stop()
        transport.abort()
    if protocol.received < task.size:
        raise ClientFailed(f"expected at least {task.size} bytes, got {protocol.received}")


def _connecting(task: DrainTask) -> Any:
    from pgrepl import AsyncConnection

    return AsyncConnection.connect(**task.keywords)


def _stream(drain: _Drain, unit: str) -> _Client:
    """Return the client that drains a stream in this way, which counts units; see `DrainTask`."""

    async def client(task: DrainTask, gauge: Gauge) -> None:
        connection: AsyncConnection
        for _ in range(task.passes):
            async with _connecting(task) as connection:
                if not task.slot:
                    return
                async with connection.stream(task.slot, publications=[task.publication]) as stream:
                    gauge.start()
                    count, row = await drain(stream, task)
                    gauge.stop()
            check(unit, getattr(task, unit), count)
            check("as the last id", task.last_id, row[0])

    return client


async def _unread(stream: AsyncStream, task: DrainTask) -> tuple[int, Any]:
    transactions = 0
    change: Any = None
    async for transaction in stream.transactions():
        async for change in transaction:  # noqa: B007
            pass
        transactions += 1
        stream.ack(transaction)
        if transaction.end_lsn == task.end_lsn:
            break
    return transactions, change.new


async def _typed(stream: AsyncStream, task: DrainTask) -> tuple[int, Any]:
    transactions = 0
    change: Any
    row = None
    async for transaction in stream.transactions():
        async for change in transaction:
            row = change.new.astuple()
        transactions += 1
        stream.ack(transaction)
        if transaction.end_lsn == task.end_lsn:
            break
    return transactions, row


async def _batches(stream: AsyncStream, task: DrainTask) -> tuple[int, Any]:
    rows = 0
    row: Any = None
    async for batch in stream.batches(BATCH_ROWS):
        for change in batch.changes:
            row = change.new.astuple()  # type: ignore[union-attr]
        rows += len(batch)
        stream.ack(batch)
        if rows >= task.rows:
            break
    return rows, row


async def _headers(task: DrainTask, gauge: Gauge) -> None:
    from pgrepl import XLogData

    connection: AsyncConnection
    for _ in range(task.passes):
        async with _connecting(task) as connection:
            if not task.slot:
                return
            await connection.start_streaming(task.command)
            gauge.start()
            received = 0
            while batch := await connection.receive_wal_messages():
                for message in batch:
                    if isinstance(message, XLogData):
                        _ = message.wal_start
                        _ = message.wal_end
                        _ = message.server_time
                received += len(batch.wal_start)
            gauge.stop()
        check("messages", task.messages, received)


def _asyncio(client: _Client, task: DrainTask, gauge: Gauge) -> None:
    async def main() -> None:
        await client(task, gauge)

    asyncio.run(main())


def _uvloop(client: _Client, task: DrainTask, gauge: Gauge) -> None:
    import uvloop

    async def main() -> None:
        await client(task, gauge)

    uvloop.run(main())


DRAINS: Final[dict[str, Callable[[DrainTask, Gauge], None]]] = {
    f"{loop}-{who}": partial(run, client)
    for loop, run in (("asyncio", _asyncio), ("uvloop", _uvloop))
    for who, client in (
        ("bare", _bare),
        ("unread", _stream(_unread, "transactions")),
        ("typed", _stream(_typed, "transactions")),
        ("batches", _stream(_batches, "rows")),
        ("headers", _headers),
    )
}


if __name__ == "__main__":
    run_client(DRAINS)
