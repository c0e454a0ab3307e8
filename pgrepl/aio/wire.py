"""A connection of an event loop from inside: what waits of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from ..client.connection_state import Step, Use
from ..client.wire import BaseStreamWire, BaseWire
from ..codec.abc import Codec
from ..errors import Error
from ..protocol.backup_stream import BackupEvent, BackupStream
from ..protocol.conversation import Conversation, Exchange
from ..protocol.frontend import TERMINATE
from ..protocol.query import Result
from ..protocol.timelines import EndOfTimeline
from ..session.session import Session
from ..session.wal_stream import WalStream
from ..transport.aio.cancelling import cancel_async
from ..transport.aio.driver import AsyncTransport
from ..transport.aio.feedback import AsyncFeedback
from ..transport.attempts import Opened
from ..transport.clock import Deadline

__all__ = ["AsyncStreamWire", "AsyncWire"]

_Result = TypeVar("_Result")


class AsyncStreamWire(BaseStreamWire, Protocol):
    """What a stream of an event loop needs of its connection."""

    def feedback(
        self, session: Session, tell_health: Callable[[float, int], None]
    ) -> AsyncFeedback:
        """Begin to send what a session owes the server."""

    async def next_batch(self, timeout: float | None) -> Any:
        """Wait for the stream's next batch, empty when it has ended."""

    def end_wait(self) -> None:
        """End a wait for a stream, as if its time were up."""

    async def stop_streaming(self, timeout: float | None) -> list[Result]:
        """End the stream and return to commands."""

    def close(self) -> None:
        """Close the connection at once."""

    async def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting."""


class AsyncWire(BaseWire):
    """A connection of an event loop from inside; see `client.wire`."""

    connection_name: ClassVar[str] = "AsyncConnection"

    def __init__(self, opened: Opened[AsyncTransport], codec: Codec) -> None:
        super().__init__(opened.state, codec, opened.way)
        # At last: what is made by half has nothing to close.
        self.transport: AsyncTransport = opened.transport

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once it is closed."""
        return self.transport.fileno()

    # Conversations, and what is left of them after a time limit or a cancellation

    async def run(self, conversation: Conversation[_Result], timeout: float | None) -> _Result:
        """Run a command's conversation to its end, after what went before; see `Wire.run`."""
        deadline = Deadline.after(timeout)
        await self._make_ready(Use.COMMAND, deadline)
        return await self._drive(self._begin_conversation(conversation), deadline)

    async def next_event(self, backup: BackupStream, timeout: float | None) -> BackupEvent | None:
        """Wait for a base backup's next event; None behind the last one."""
        deadline = Deadline.after(timeout)
        if backup.ended:
            return None
        if self._is_reading_backup(backup):
            self.transport.expect_own_loop()
        else:
            await self._make_ready(Use.COMMAND, deadline)
        return await self._drive(self._begin_backup_event(backup), deadline)

    async def _make_ready(self, use: Use, deadline: Deadline) -> None:
        """End what went before. Raises `UsageError` for a use that is not allowed now."""
        self.transport.expect_own_loop()
        while (step := self._step_before(use)) is not Step.NOTHING:
            if step is Step.FINISH:
                await self._finish_cut_off_answer(deadline)
            else:
                await self.stop_streaming(deadline.left())
        # While this one waited for what was cut off, another task may have begun something.
        self.transport.expect_no_reader()

    async def _finish_cut_off_answer(self, deadline: Deadline) -> None:
        """Read the answer that was cut off to its end, whatever it says: what a command came to
        that nobody waits for is of no interest to the next one."""
        exchange = self._exchange
        if exchange is None:
            return
        try:
            await self._drive(exchange, deadline)
        except Error:
            if self.closed or exchange.request is not None:
                raise

    async def _drive(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        """Run a conversation to its end, or until the time is up."""
        try:
            return await self.transport.run(exchange, deadline)
        except Error as error:
            self.close_if_broken_by(error)
            raise
        except BaseException as error:
            self.transport.after_interruption(error)
            raise
        finally:
            self._forget_if_finished(exchange)

    # The stream

    def feedback(
        self, session: Session, tell_health: Callable[[float, int], None]
    ) -> AsyncFeedback:
        """Begin to send what a session owes the server."""
        return AsyncFeedback(session, self.transport, tell_health)

    def _stream_in_use(self) -> WalStream:
        self.transport.expect_own_loop()
        return super()._stream_in_use()

    async def next_batch(self, timeout: float | None) -> Any:
        """Wait for the stream's next batch, empty when it has ended."""
        deadline = Deadline.after(timeout)
        if not self._is_streaming:
            await self._make_ready(Use.READ, deadline)
        stream = self._stream_in_use()
        try:
            return await self.transport.next_batch(stream, deadline)
        except Error as error:
            self._leave_stream_after(error)
            raise

    def end_wait(self) -> None:
        """End a wait for a stream, as if its time were up."""
        self.transport.end_wait()

    async def send(self, data: bytes, timeout: float | None) -> None:
        """Send a message of the stream; what does not go out in time stays queued."""
        # After a failure the connection is left open for receiving: what the server said before it
        # closed, and why it did, may still be there to be read.
        await self.transport.send(data, Deadline.after(timeout))

    async def stop_streaming(self, timeout: float | None) -> list[Result]:
        """End the stream and return to commands; go on with that where it was cut off."""
        deadline = Deadline.after(timeout)
        exchange = self._stop_under_way()
        if exchange is None:
            await self._make_ready(Use.READ, deadline)
            exchange = self._begin_to_stop()
        return await self._drive(exchange, deadline)

    async def stop_physical(self, timeout: float | None) -> EndOfTimeline | None:
        """End a physical stream; say whether its timeline has ended."""
        if self._stop_under_way() is None:
            self._expect_physical()
        return self._end_of_timeline(await self.stop_streaming(timeout))

    # Its end

    async def cancel(self, timeout: float | None) -> None:
        """Ask the server, by a connection of its own, to cancel what is under way."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        await cancel_async(self.attempt, self.server, self.codec, timeout)

    async def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting."""
        if self.transport.loop_is_closed or self.owner.is_parent:
            self.transport.close()
            return
        self.transport.expect_own_loop()
        if not self.closed:
            self.transport.send_last(TERMINATE)
            self.transport.close()
        await self.transport.wait_closed()
