"""`receive_wal`, blocking and for asyncio: the connection is asked here, files are written in a
thread.

The thread works on one thing at a time, and the connection waits for it; meanwhile statuses go out
as they are due, so that a disk that takes its time does not cost the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypedDict, Unpack, overload

from ..aio.connection import AsyncConnection
from ..blocking.connection import Connection
from ..lsn import Lsn
from ..ownership import Owner
from ..protocol.conversation import Steps
from ..public import imported_from
from ..transport.clock import monotonic
from .compression import Compression
from .directory import WalDirectory
from .receiving import Ask, Options, ReceivedWal, Receiver, Store
from .writer import ReceivedSegment

__all__ = ["receive_wal"]


class Event(Protocol):
    """`threading.Event`, `asyncio.Event` and their like."""

    def is_set(self) -> bool: ...


Stop: TypeAlias = Event | Callable[[], bool]


class _Keywords(TypedDict, total=False):
    """The keywords of `receive_wal`, which has their meanings and defaults."""

    slot: str | None
    start: int | None
    end: int | None
    timeline: int | None
    synchronous: bool
    status_interval: float
    receive_timeout: float | None
    compress: str | None
    fsync: bool
    stop: Stop | None
    on_start: Callable[[int, Lsn], object] | None
    on_segment: Callable[[ReceivedSegment], object] | None


@overload
def receive_wal(
    connection: Connection, directory: str | Path, **keywords: Unpack[_Keywords]
) -> ReceivedWal: ...
@overload
def receive_wal(
    connection: AsyncConnection, directory: str | Path, **keywords: Unpack[_Keywords]
) -> Coroutine[Any, Any, ReceivedWal]: ...
@imported_from("pgrepl.physical")
def receive_wal(
    connection: Connection | AsyncConnection,
    directory: str | Path,
    *,
    slot: str | None = None,
    start: int | None = None,
    end: int | None = None,
    timeline: int | None = None,
    synchronous: bool = False,
    status_interval: float = 10.0,
    receive_timeout: float | None = 60.0,
    compress: str | None = None,
    fsync: bool = True,
    stop: Stop | None = None,
    on_start: Callable[[int, Lsn], object] | None = None,
    on_segment: Callable[[ReceivedSegment], object] | None = None,
) -> ReceivedWal | Coroutine[Any, Any, ReceivedWal]:
    """Receive WAL into a directory, as pg_receivewal does, until it is stopped.

    With an `AsyncConnection` it is awaited. It goes on from what is in the directory; if that has
    no WAL yet, from `start` on `timeline`, or from where the physical `slot` begins (PostgreSQL
    15), or from the server's position; always at the beginning of a segment. Timelines are
    followed, and their history files fetched.

    `end`: stop when WAL beyond that position has come. `stop`: an event, or something to be called,
    that says when to stop; it is looked at several times a second. `compress`: ``gzip``,
    ``lz4`` or ``zstd``, with a level as in ``gzip:5`` or without, for complete segments.
    `synchronous`: make durable, and report, all that a read brought, not only whole segments.
    `fsync` False: leave it to the system when things become durable. `on_start` is called with
    timeline and position when a stream has begun, that of each timeline. `on_segment` is called for
    each complete segment, in another thread, when it is durable and before the server is told.

    The server hears from this side at once, so that a slot that is new keeps WAL from there on, and
    then every `status_interval` seconds, or a third of its wal_sender_timeout where that is less,
    also while the disk takes its time. After `receive_timeout` seconds of silence, None for any
    time, the connection has failed.

    The connection can be used on after a stop. An error in the stream closes it; a new one goes on
    with the same directory. Raises `UsageError`, `WalStorageError`, `SystemMismatch` for a
    directory with the WAL of another system, and what `Connection.start_physical` and
    `Connection.receive_wal_messages` raise.
    """
    options = Options(
        slot=slot,
        start=start,
        end=end,
        timeline=timeline,
        synchronous=synchronous,
        fsync=fsync,
        status_interval=status_interval,
        receive_timeout=receive_timeout,
        compression=None if compress is None else Compression.parse(compress),
        stop=_condition(stop),
        on_start=on_start,
        on_segment=on_segment,
    )
    opener = partial(WalDirectory, directory, fsync=fsync)
    if isinstance(connection, AsyncConnection):
        return _receive_async(connection, options, opener)
    return _Blocking(connection, Receiver(options, opener, monotonic)).run()


def _condition(stop: Stop | None) -> Callable[[], bool] | None:
    if stop is None or callable(stop):
        return stop
    return stop.is_set


class _Blocking:
    """Drives a conversation with a `Connection`."""

    def __init__(self, connection: Connection, receiver: Receiver) -> None:
        self._connection = connection
        self._receiver = receiver

    def run(self) -> ReceivedWal:
        receiver = self._receiver
        owner = Owner()
        with ThreadPoolExecutor(1, "pgrepl receive_wal") as self._disk:
            try:
                return Steps(receiver.run(self._connection.server_version)).run(self._carry_out)
            except BaseException:
                if receiver.streaming:
                    self._connection.disconnect()
                raise
            finally:
                if not owner.is_parent:
                    self._disk.submit(receiver.release).result()
                else:
                    # A child that was forked by a callback: the thread is not there.
                    receiver.release()

    def _carry_out(self, request: Ask | Store) -> Any:
        if isinstance(request, Ask):
            return request.call(self._connection)
        work = self._disk.submit(request.work)
        while not wait([work], self._receiver.status_due_in).done:
            with contextlib.suppress(TimeoutError):
                self._receiver.heartbeat().call(self._connection)
        return work.result()


async def _receive_async(
    connection: AsyncConnection, options: Options, opener: partial[WalDirectory]
) -> ReceivedWal:
    receiver = Receiver(options, opener, asyncio.get_running_loop().time)
    return await _Async(connection, receiver).run()


class _Async:
    """Drives a conversation with an `AsyncConnection`."""

    def __init__(self, connection: AsyncConnection, receiver: Receiver) -> None:
        self._connection = connection
        self._receiver = receiver
        self._disk = ThreadPoolExecutor(1, "pgrepl receive_wal")

    async def run(self) -> ReceivedWal:
        receiver = self._receiver
        owner = Owner()
        try:
            steps = Steps(receiver.run(self._connection.server_version))
            return await steps.run_async(self._carry_out)
        except BaseException:
            if receiver.streaming:
                await self._connection.disconnect()
            raise
        finally:
            if not owner.is_parent:
                # Behind what the thread is doing; and that it does, even if nobody waits for it.
                release = self._disk.submit(receiver.release)
                self._disk.shutdown(wait=False)
                await asyncio.shield(asyncio.wrap_future(release))
            else:
                receiver.release()

    async def _carry_out(self, request: Ask | Store) -> Any:
        if isinstance(request, Ask):
            return await request.call(self._connection)
        work: Future[Any] = self._disk.submit(request.work)
        waiting = asyncio.wrap_future(work)
        waiting.add_done_callback(_retrieve_error)
        while not (await asyncio.wait([waiting], timeout=self._receiver.status_due_in))[0]:
            with contextlib.suppress(TimeoutError):
                await self._receiver.heartbeat().call(self._connection)
        return waiting.result()


def _retrieve_error(future: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more, after a cancellation."""
    if not future.cancelled():
        future.exception()
