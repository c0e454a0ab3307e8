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

from .. import loops
from .gauge import Gauge, run_client
from .task import ClientFailed, DrainTask, check

if TYPE_CHECKING:
    from pgrepl import AsyncConnection, AsyncStream

_BUFFER_SIZE: Final = 65536

_Client: TypeAlias = Callable[[DrainTask, Gauge], Awaitable[None]]
_Loop: TypeAlias = Callable[["AsyncStream", int, int], Awaitable[loops.Found]]


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


def _stream(loop: _Loop, unit: str) -> _Client:
    """Return the client that drains a stream by a loop, which counts units; see `DrainTask`."""

    async def client(task: DrainTask, gauge: Gauge) -> None:
        connection: AsyncConnection
        for _ in range(task.passes):
            async with _connecting(task) as connection:
                if not task.slot:
                    return
                async with connection.stream(task.slot, publications=[task.publication]) as stream:
                    gauge.start()
                    count, row = await loop(stream, task.rows, task.end_lsn)
                    gauge.stop()
            check(unit, getattr(task, unit), count)
            check("as the last id", task.last_id, row[0])

    return client


async def _headers(task: DrainTask, gauge: Gauge) -> None:
    connection: AsyncConnection
    for _ in range(task.passes):
        async with _connecting(task) as connection:
            if not task.slot:
                return
            await connection.start_streaming(task.command)
            gauge.start()
            received = 0
            while batch := await connection.receive_wal_messages():
                received += len(batch.wal_start)
                loops.read_headers(loops.xlogdata_of(batch))
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
        ("unread", _stream(loops.by_transaction_async(loops.unread_async), "transactions")),
        ("typed", _stream(loops.by_transaction_async(loops.typed_async), "transactions")),
        ("batches", _stream(loops.batches_async, "rows")),
        ("headers", _headers),
    )
}


if __name__ == "__main__":
    run_client(DRAINS)
