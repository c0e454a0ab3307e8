"""Level 1 of the API for asyncio: one replication connection, awaited.

The names, parameters and errors are those of `connection`, and so is what they do; this page says
what is different. Everything below the driver is the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Literal, Self, Unpack

from ..codec import PrimaryKeepalive, WalBatch, XLogData
from ..codec import codec as default_codec
from ..codec.abc import Codec
from ..conninfo import ConnectionParameters, ConninfoKeywords, resolve
from ..protocol.preflight import OnMissing
from ..protocol.query import Result
from ..protocol.timelines import EndOfTimeline
from ..public import imported_from
from ..resume import ResumeToken
from ..session.opening import Opening, Overrides, RawOpening
from ..session.options import Origin, Streaming
from ..transport.aio.connecting import open_async_connection
from ..transport.attempts import SEARCH_ERRORS
from ..transport.coalescing import MAX_DELAY, expect_delay
from .commands import AsyncCommands
from .making import Making
from .raw_stream import AsyncRawStream
from .stream import AsyncStream
from .wire import AsyncWire

__all__ = ["AsyncConnection", "connect"]


@imported_from("pgrepl.aio")
def connect(
    conninfo: str = "",
    *,
    replication: Literal["database", "physical"] | None = None,
    _codec: Codec = default_codec,
    **keywords: Unpack[ConninfoKeywords],
) -> Making[AsyncConnection]:
    """Connect to a server for replication: `pgrepl.connect` for asyncio.

    ``connection = await connect(...)``, or ``async with connect(...) as connection``, which closes
    it. Takes and raises what `pgrepl.connect` does. When it is cancelled, nothing is left open.
    """
    refused: BaseException | None = None
    try:
        parameters = resolve(conninfo, keywords, replication=replication)
    except BaseException as error:
        refused = error.with_traceback(None)
    # Both may hold a password, which a traceback that shows locals would print. Not deleted, since
    # tools that print arguments look for them.
    conninfo, keywords = "", {}
    if refused is not None:
        raise refused
    return Making(_connect(parameters, _codec), "connect")


async def _connect(parameters: ConnectionParameters, codec: Codec) -> AsyncConnection:
    try:
        opened = await open_async_connection(parameters, codec)
    except SEARCH_ERRORS as error:
        # The inside is of no use to who is turned away.
        raise error.with_traceback(None)  # noqa: B904 (the same error: it keeps its own cause)
    try:
        return AsyncConnection(AsyncWire(opened, codec))
    except BaseException:
        opened.transport.close()
        raise


@imported_from("pgrepl")
class AsyncConnection(AsyncCommands):
    """A replication connection of an event loop, made by `connect`; closes itself in `async with`.

    It belongs to the event loop that it was made in; elsewhere its methods raise `UsageError`. One
    task at a time may receive or run a command, any other may send a status or disconnect.

    Every method that waits takes `timeout` in seconds, None for no limit. When it runs out,
    `TimeoutError` is raised and the connection stays usable: nothing that had arrived is lost. So
    it is with a cancellation, by `asyncio.timeout` for instance: a message that was waited for
    comes with the next call. A command that was cut off in either way goes on at the server; its
    answer is awaited and dropped before the next command runs.

    Where a message is there already nothing is waited for, and no other task runs.
    """

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire
        self._in_hand = wire.in_hand

    # Not by a function that calls it, whose arguments a traceback that shows locals would print.
    connect = staticmethod(connect)

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once it is closed. The event loop reads it."""
        return self._wire.fileno()

    # The stream

    async def start_streaming(
        self, sql: str, timeout: float | None = None, *, max_delay: float = MAX_DELAY
    ) -> None:
        """Run a START_REPLICATION command; see `Connection.start_streaming`."""
        await self._wire.run(self._wire.start(sql, expect_delay(max_delay)), timeout)

    async def start_physical(
        self,
        slot: str | None = None,
        *,
        start: int,
        timeline: int | None = None,
        max_delay: float = MAX_DELAY,
        timeout: float | None = None,
    ) -> None:
        """Stream raw WAL; see `Connection.start_physical`."""
        conversation = self._wire.start_physical(slot, start, timeline, expect_delay(max_delay))
        await self._wire.run(conversation, timeout)

    def stream(
        self,
        slot: str,
        *,
        publications: Iterable[str],
        start: int | ResumeToken | None = None,
        proto_version: int | None = None,
        streaming: Streaming = "off",
        two_phase: bool = False,
        binary: bool = False,
        messages: bool = False,
        origin: Origin = "any",
        on_missing_publication: OnMissing = "raise",
        types: Overrides | None = None,
        typed: bool = True,
        status_interval: float = 10.0,
        receive_timeout: float | None = 60.0,
        max_delay: float = MAX_DELAY,
        memory_limit: int = 64 << 20,
        until: int | Literal["now"] | None = None,
        timeout: float | None = None,
    ) -> Making[AsyncStream]:
        """Stream the decoded changes of a slot that uses pgoutput; see `Connection.stream`.

        ``async with connection.stream(...) as stream``, which stops it at the end, or ``stream =
        await connection.stream(...)``.
        """
        expect_delay(max_delay)
        opening = Opening.of(
            slot,
            publications,
            start,
            types,
            memory_limit,
            typed,
            on_missing_publication,
            until,
            proto_version=proto_version,
            streaming=streaming,
            two_phase=two_phase,
            binary=binary,
            messages=messages,
            origin=origin,
        )

        async def begin() -> AsyncStream:
            wire = self._wire
            opened = await wire.run(wire.open(opening, max_delay), timeout)
            checked, now = opened.checked, wire.transport.time()
            session = wire.session(opening, checked, status_interval, receive_timeout, now)
            return AsyncStream(wire, session, opened)

        return Making(begin(), "stream")

    def stream_raw(
        self,
        slot: str,
        *,
        options: Mapping[str, str | None] | None = None,
        start: int | ResumeToken | None = None,
        status_interval: float = 10.0,
        receive_timeout: float | None = 60.0,
        max_delay: float = MAX_DELAY,
        timeout: float | None = None,
    ) -> Making[AsyncRawStream]:
        """Stream a logical slot undecoded, whatever its plugin; see `Connection.stream_raw`.

        ``async with`` or ``await``, as for `stream`.
        """
        expect_delay(max_delay)
        opening = RawOpening.of(slot, options, start)

        async def begin() -> AsyncRawStream:
            wire = self._wire
            checked = await wire.run(wire.open_raw(opening, max_delay), timeout)
            now = wire.transport.time()
            session = wire.session(opening, checked, status_interval, receive_timeout, now)
            return AsyncRawStream(wire, session, checked)

        return Making(begin(), "stream_raw")

    async def receive_wal_message(
        self, timeout: float | None = None
    ) -> XLogData | PrimaryKeepalive | None:
        """Return the next message of the stream; None: streaming has ended.

        See `Connection.receive_wal_message`.
        """
        self._wire.transport.expect_own_loop()
        try:
            message: XLogData | PrimaryKeepalive | None = next(self._in_hand.messages, None)
            if message is None:
                message = self._in_hand.begin(await self._wire.next_batch(timeout))
            return message
        except BaseException as error:
            self._wire.transport.after_interruption(error)
            raise

    async def receive_wal_messages(self, timeout: float | None = None) -> WalBatch:
        """Return all messages that one read brought, in order; empty: streaming has ended.

        See `Connection.receive_wal_messages`.
        """
        self._wire.transport.expect_own_loop()
        try:
            rest: WalBatch | None = self._in_hand.take_rest()
            return await self._wire.next_batch(timeout) if rest is None else rest
        except BaseException as error:
            self._wire.transport.after_interruption(error)
            raise

    async def send_standby_status(
        self,
        written: int,
        flushed: int,
        applied: int,
        timestamp: int | None = None,
        reply_requested: bool = False,
        *,
        timeout: float | None = None,
    ) -> None:
        """Tell the server which positions were written, flushed and applied. From any task.

        See `Connection.send_standby_status`. It is with the operating system when this returns.
        """
        status = self._wire.status(written, flushed, applied, timestamp, reply_requested)
        await self._wire.send(status, timeout)

    async def send_hot_standby_feedback(
        self,
        xmin: int,
        catalog_xmin: int = 0,
        timestamp: int | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Tell the server which rows a standby still needs. From any task.

        See `Connection.send_hot_standby_feedback`.
        """
        feedback = self._wire.hot_standby_feedback(xmin, catalog_xmin, timestamp)
        await self._wire.send(feedback, timeout)

    async def stop_streaming(self, timeout: float | None = None) -> list[Result]:
        """End the stream and return to commands; see `Connection.stop_streaming`.

        After a `TimeoutError` or a cancellation, call it again to go on, or `disconnect`.
        """
        self._wire.transport.expect_own_loop()
        self._wire.expect_stream_by_hand()
        return await self._wire.stop_streaming(timeout)

    async def stop_physical(self, timeout: float | None = None) -> EndOfTimeline | None:
        """End a physical stream; see `Connection.stop_physical`."""
        return await self._wire.stop_physical(timeout)

    async def cancel(self, timeout: float | None = None) -> None:
        """Ask the server to cancel the command or the stream that is under way. From any task, and
        in any event loop; see `Connection.cancel`."""
        await self._wire.cancel(timeout)

    async def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting. Safe to call again,
        and from any task."""
        await self._wire.disconnect()

    close = disconnect

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.disconnect()
