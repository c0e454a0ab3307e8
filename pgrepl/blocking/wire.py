"""A blocking connection from inside: what waits of it."""

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
from ..transport.attempts import Opened
from ..transport.blocking.cancelling import cancel
from ..transport.blocking.driver import BlockingTransport
from ..transport.blocking.feedback import Feedback
from ..transport.blocking.signals import Signals
from ..transport.clock import Deadline

__all__ = ["StreamWire", "Wire"]

_Result = TypeVar("_Result")


class StreamWire(BaseStreamWire, Protocol):
    """What a blocking stream needs of its connection."""

    @property
    def has_lost_nothing(self) -> bool:
        """Whether an exception from outside, Ctrl-C above all, found everything in order."""

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once it is closed."""

    def feedback(
        self, session: Session, slot: str, tell_health: Callable[[float, int], None]
    ) -> Feedback:
        """Begin to send what a session owes the server."""

    def next_batch(self, timeout: float | None) -> Any:
        """Wait for the stream's next batch, empty when it has ended."""

    def end_waits_on(self, signals: Signals | None) -> None:
        """Have waits for a stream end, as if their time were up, when a signal comes."""

    def stop_streaming(self, timeout: float | None) -> list[Result]:
        """End the stream and return to commands."""

    def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting."""


class Wire(BaseWire):
    """A blocking connection from inside; see `client.wire`."""

    connection_name: ClassVar[str] = "Connection"

    def __init__(self, opened: Opened[BlockingTransport], codec: Codec) -> None:
        super().__init__(opened.state, codec, opened.way)
        # At last: what is made by half has nothing to close.
        self.transport: BlockingTransport = opened.transport

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once it is closed."""
        return self.transport.socket.fileno()

    @property
    def has_lost_nothing(self) -> bool:
        """Whether an exception from outside, Ctrl-C above all, found everything in order."""
        return self.transport.has_lost_nothing

    def close_unless_nothing_was_lost(self) -> None:
        """Close the connection if an exception from outside may have cost a message."""
        if not self.transport.has_lost_nothing:
            self.transport.close()

    # Conversations, and what is left of them after a time limit

    def run(self, conversation: Conversation[_Result], timeout: float | None) -> _Result:
        """Run a command's conversation to its end, after what went before.

        Raises what the conversation raises, and `UsageError` for a command that cannot be run now.
        """
        deadline = Deadline.after(timeout)
        self._make_ready(Use.COMMAND, deadline)
        return self._drive(self._begin_conversation(conversation), deadline)

    def next_event(self, backup: BackupStream, timeout: float | None) -> BackupEvent | None:
        """Wait for a base backup's next event; None behind the last one."""
        deadline = Deadline.after(timeout)
        if backup.ended:
            return None
        if not self._is_reading_backup(backup):
            self._make_ready(Use.COMMAND, deadline)
        return self._drive(self._begin_backup_event(backup), deadline)

    def _make_ready(self, use: Use, deadline: Deadline) -> None:
        """End what went before. Raises `UsageError` for a use that is not allowed now."""
        while (step := self._step_before(use)) is not Step.NOTHING:
            if step is Step.FINISH:
                self._finish_cut_off_answer(deadline)
            else:
                self.stop_streaming(deadline.left())

    def _finish_cut_off_answer(self, deadline: Deadline) -> None:
        """Read the answer that was cut off to its end, whatever it says: what a command came to
        that nobody waits for is of no interest to the next one."""
        exchange = self._exchange
        if exchange is None:
            return
        try:
            self._drive(exchange, deadline)
        except Error:
            if self.closed or exchange.request is not None:
                raise

    def _drive(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        """Run a conversation to its end, or until the time is up."""
        try:
            return self.transport.run(exchange, deadline)
        except Error as error:
            self.close_if_broken_by(error)
            raise
        except BaseException:
            self.close_unless_nothing_was_lost()
            raise
        finally:
            self._forget_if_finished(exchange)

    # The stream

    def feedback(
        self, session: Session, slot: str, tell_health: Callable[[float, int], None]
    ) -> Feedback:
        """Begin to send what a session owes the server."""
        return Feedback(session, self.transport, slot, tell_health)

    def next_batch(self, timeout: float | None) -> Any:
        """Wait for the stream's next batch, empty when it has ended."""
        deadline = Deadline.after(timeout)
        if not self._is_streaming:
            self._make_ready(Use.READ, deadline)
        stream = self._stream_in_use()
        try:
            return self.transport.next_batch(stream, deadline)
        except Error as error:
            self._leave_stream_after(error)
            raise

    def end_waits_on(self, signals: Signals | None) -> None:
        """Have waits for a stream end, as if their time were up, when a signal comes."""
        self.transport.end_waits_on(signals)

    def send(self, data: bytes, timeout: float | None) -> None:
        """Send a message of the stream; what does not go out in time stays queued."""
        # After a failure the connection is left open for receiving: what the server said before it
        # closed, and why it did, may still be there to be read.
        self.transport.send(data, Deadline.after(timeout))

    def stop_streaming(self, timeout: float | None) -> list[Result]:
        """End the stream and return to commands; go on with that where it was cut off."""
        deadline = Deadline.after(timeout)
        exchange = self._stop_under_way()
        if exchange is None:
            self._make_ready(Use.READ, deadline)
            exchange = self._begin_to_stop()
        return self._drive(exchange, deadline)

    def stop_physical(self, timeout: float | None) -> EndOfTimeline | None:
        """End a physical stream; say whether its timeline has ended."""
        if self._stop_under_way() is None:
            self._expect_physical()
        return self._end_of_timeline(self.stop_streaming(timeout))

    # Its end

    def cancel(self, timeout: float | None) -> None:
        """Ask the server, by a connection of its own, to cancel what is under way."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        cancel(self.attempt, self.server, self.codec, timeout)

    def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting."""
        if not self.closed:
            self.transport.send_last(TERMINATE)
            self.transport.close()
