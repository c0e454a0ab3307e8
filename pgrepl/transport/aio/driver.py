"""The asyncio driver: one transport of the event loop, and the conversations and streams over it.

The loop fills the reader's room in place, whether anybody waits for it or not; a coroutine that has
found nothing whole there waits for one future, and then takes all that came. Between two waits
nothing is suspended: so a cancellation, or a time limit, always finds things in order. What has
arrived is in the reader, what was not sent yet in the loop's transport, and a message that was
taken is on its way to the caller.

Reading pauses where nobody takes what is there, so that unread bytes stay below two chunks and the
server feels it. One task receives at a time; sending and closing are safe from any other.

In a forked child closing closes the descriptor, and leaves the event loop alone, whose selector and
whose socket that wakes it are the parent's as well.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, TypeVar

from ...codec.abc import MAX_FRAME_LENGTH, FrameReader, WalBatch
from ...errors import ConnectionFailed, Error, ProtocolError, TLSError, UsageError
from ...protocol.conversation import Compute, Exchange, Frame, PeerCertificate, Receive, Send
from ...session.wal_stream import WalStream
from ..clock import Deadline, Pace, monotonic
from ..coalescing import Coalescing
from ..tls_filter import TLSFilter
from .loop_socket import LoopSocket
from .loops import end_wait, reads_when_ready

__all__ = ["AsyncTransport"]

_Result = TypeVar("_Result")
# Bytes of a conversation that may wait to be sent, where it sends much at a time.
_MOST_UNSENT: Final = 65536
# A turn of the loop costs as much as hundreds of messages, so a server that never pauses is read
# without, as often as this before other tasks have their turn.
_MOST_READS: Final = 8
# Event loops count in milliseconds: what is less would be no time, or more of it.
_TICK: Final = 0.001
# Exceptions of a place where a task waited, or of our own making: no message was lost on the way.
_ORDERLY: Final = (Error, TimeoutError, asyncio.CancelledError, GeneratorExit)


class AsyncTransport(LoopSocket):
    """Drives conversations and streams over a connected socket, in the running event loop."""

    def __init__(
        self,
        connected: socket.socket,
        reader: FrameReader,
        tls: TLSFilter | None = None,
        *,
        is_local: bool = False,
    ) -> None:
        super().__init__(connected, reader, tls)
        self.is_local: Final = is_local
        """Whether the server is on this machine."""
        self._busy = False
        self._has_read = False
        self._pace: Pace | None = Pace()
        self._reads = 0  # without a turn of the loop
        self._most_reads = _MOST_READS if reads_when_ready(self._loop) else 0
        self._is_streaming = False  # what is waited for is a stream's, and can be asked to end
        self._coalescing = Coalescing()
        self._is_unix = connected.family not in (socket.AF_INET, socket.AF_INET6)

    def end_wait(self) -> None:
        """End a wait for a stream, as if its time were up."""
        if self._is_streaming and self._waiter is not None:
            end_wait(self._waiter)

    def after_interruption(self, error: BaseException) -> None:
        """Close the connection if an exception from outside, Ctrl-C above all, may have cost a
        message."""
        if not isinstance(error, _ORDERLY):
            self.close()

    def session_has_begun(self) -> None:
        """Lift the bounds on what an unknown server may cost."""
        self._pace = None
        self.reader.limit = MAX_FRAME_LENGTH
        if self._tls is not None:
            self._tls.session_has_begun()

    def coalesce(self, max_delay: float) -> None:
        """Have the reads of the stream that begins wait for company; see `Coalescing`.

        For `max_delay` seconds at most, but for a tick of the loop's clock where that is less. Not
        on a Unix socket, whose buffer is full before.
        """
        if self._is_unix:
            max_delay = 0.0
        self._coalescing = Coalescing(max_delay and max(max_delay, _TICK))

    # Who may use it

    @property
    def loop_is_closed(self) -> bool:
        """Whether the event loop that this belongs to was closed."""
        return self._loop.is_closed()

    def time(self) -> float:
        """Return the time of the event loop's clock, in seconds."""
        return self._loop.time()

    def expect_own_loop(self) -> None:
        """Raise `UsageError` in any other event loop, thus in any other thread or process."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError(
                "expected the event loop that this connection was made in, got another one; make "
                "a connection in each loop, and none for several threads"
            )

    def expect_no_reader(self) -> None:
        """Raise `UsageError` while another task is receiving, and in a forked child."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        if self._busy:
            raise UsageError(
                "another task is using this connection; one may read at a time, others may send a "
                "status or close it"
            )

    def _expect_open(self) -> None:
        if self.closed:
            raise UsageError("expected an open connection, this one is closed")

    # Conversations and streams

    async def run(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        """Drive a conversation to its end.

        Raises what the conversation raises, `ConnectionFailed`, or `TimeoutError`; after the last
        one, or a cancellation, the same exchange can be run again and goes on where it stood.
        """
        self.expect_no_reader()
        self._expect_open()
        self._busy, self._has_read = True, False
        try:
            while (request := exchange.request) is not None:
                if isinstance(request, Send):
                    self._write_hidden_from_tracebacks(request)
                    exchange.answer(None)
                    if self._unsent >= _MOST_UNSENT:
                        await self._wait_until_sent(deadline)
                elif isinstance(request, Receive):
                    exchange.answer(await self._next_frame(deadline))
                elif isinstance(request, Compute):
                    exchange.answer_by((await self._compute_in_thread(request, deadline)).result)
                elif isinstance(request, PeerCertificate):
                    exchange.answer(self._tls and self._tls.peer_certificate())
                else:
                    raise AssertionError("what precedes TLS is dealt with before this is made")
            await self._wait_until_sent(deadline)
            return exchange.result
        finally:
            self._busy = False

    async def next_batch(self, stream: WalStream, deadline: Deadline) -> WalBatch:
        """Return the stream's next batch, empty when it has ended.

        Raises what the stream raises, `ConnectionFailed` or `TimeoutError`.
        """
        self.expect_no_reader()
        self._expect_open()
        self._busy, self._has_read = True, False
        try:
            self._is_streaming = True
            while (batch := stream.next_batch(self.reader)) is None:
                if pause := self._coalescing.pause(monotonic()):
                    await self._let_more_come(pause, deadline)
                await self._receive_more(deadline)
            self._coalescing.took(len(batch), batch.nbytes, monotonic())
            return batch
        except ConnectionFailed as error:
            raise stream.connection_lost(error) from None
        finally:
            self._busy = self._is_streaming = False

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        """Return the stream's next batch if it is whole already, else None."""
        self.expect_no_reader()
        self._expect_open()
        batch = stream.next_batch(self.reader)
        if batch is not None:
            self._coalescing.took(len(batch), batch.nbytes, monotonic())
        return batch

    async def shake_hands(self) -> None:
        """Set up TLS. Raises `TLSError`."""
        tls = self._tls
        if tls is None:
            raise TLSError("expected a connection that was set up for TLS")
        while True:
            try:
                done = tls.shake_hands()
            finally:
                # What this side finds wrong, it also tells the server.
                self._write_to_socket(tls.take_outgoing())
            if done:
                self._note_read(0)
                return
            try:
                await self._receive_more(Deadline.after(None))
            except ConnectionFailed:
                if isinstance(self._error, OSError):
                    raise tls.failure(self._error) from self._error
                raise

    async def send(self, data: bytes, deadline: Deadline) -> None:
        """Send bytes; what does not go out in time stays queued, in order, and goes out first."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        self._expect_open()
        self._write(data)
        await self._wait_until_sent(deadline)
        if self._error is not None:
            raise self._failure("sending")

    def post(self, data: bytes) -> None:
        """Send bytes without waiting; not at all while the server takes no more."""
        if not self.closed and not self._writing_paused and not self.owner.is_parent:
            self._write(data)

    def send_last(self, data: bytes) -> None:
        """Send bytes before closing, if that takes no waiting and nothing is queued before them."""
        transport = self._transport
        if transport is None or self.owner.is_parent:
            return
        if not transport.get_write_buffer_size():
            self._write(data)

    def _write_hidden_from_tracebacks(self, request: Send) -> None:
        try:
            self._write(request.data)
        except BaseException as error:
            # Ctrl-C, above all: it may be a password, and what is called has it in local variables.
            raise error.with_traceback(None) from None

    async def _wait_until_sent(self, deadline: Deadline) -> None:
        while self._writing_paused and not self._socket_closed.is_set():
            writer: asyncio.Future[bool] = self._loop.create_future()
            timer = self._end_wait_after(writer, deadline)
            self._writers.add(writer)
            try:
                in_time = await writer
            finally:
                self._writers.discard(writer)
                if timer is not None:
                    timer.cancel()
            if not in_time:
                raise deadline.error()

    async def _next_frame(self, deadline: Deadline) -> Frame:
        while (frame := self.reader.next_frame()) is None:
            await self._receive_more(deadline)
        return frame

    async def _compute_in_thread(
        self, request: Compute, deadline: Deadline
    ) -> asyncio.Future[object]:
        """Return what has come of a call in another thread, which goes on if nobody waits for it
        any more."""
        future: asyncio.Future[object] = self._loop.run_in_executor(None, request.call)
        try:
            await asyncio.wait([future], timeout=deadline.left())
            if not future.done():
                raise deadline.error()
        finally:
            future.cancel()
        return future

    async def _receive_more(self, deadline: Deadline) -> None:
        """Wait until there is more in the reader."""
        if self.closed or self._eof:
            raise self._failure("receiving")
        # The loop is always given one turn; a server that never pauses must not outlast the limit
        # by more.
        if self._has_read and deadline.left() == 0.0:
            raise deadline.error()
        if self._pace is not None and (pause := self._pace.pause()):
            self._pause()
            await asyncio.sleep(pause)
        if self._reads < self._most_reads and self._read_socket():
            return
        self._reads = 0
        if self._paused:
            self._resume()
        if not await self._wait(deadline.left(), goes_on=False):
            raise deadline.error()
        self._has_read = True

    async def _let_more_come(self, seconds: float, deadline: Deadline) -> None:
        """Read nothing for so long; other tasks have their turn."""
        left = deadline.left()
        self._pause()
        if not await self._wait(seconds if left is None else min(seconds, left), goes_on=True):
            raise deadline.error()
        self._reads = 0

    async def _wait(self, seconds: float | None, goes_on: bool) -> bool:
        """Wait until there is a reason to go on; False: it was in vain. `goes_on`: what it is when
        the time is up."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter, timer = waiter, None
        if seconds is not None:
            timer = self._loop.call_later(seconds, end_wait, waiter, goes_on)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _read_socket(self) -> bool:
        """Read the socket without the loop; False: nothing is there, or its end."""
        try:
            received = self._socket.recv_into(self._sink.get_buffer())
        except BlockingIOError:
            return False
        except OSError as error:
            self._abort(error)
            raise self._failure("receiving") from error
        if received == 0:
            return False  # the loop will find the same
        self._reads += 1
        self._has_read = True
        # What came before a record that breaks the rules of TLS is for the caller first.
        self._note_read(received)
        return True

    def _end_wait_after(
        self, waiter: asyncio.Future[bool], deadline: Deadline
    ) -> asyncio.TimerHandle | None:
        left = deadline.left()
        return None if left is None else self._loop.call_later(left, end_wait, waiter)

    def _failure(self, doing: str) -> ConnectionFailed | TLSError | ProtocolError:
        if self.closed:
            return ConnectionFailed("the connection was closed while another task was using it")
        if isinstance(self._error, ProtocolError):
            return self._error
        if self._error is not None:
            failure = (self._tls and self._tls.refusal(self._error)) or ConnectionFailed(
                f"the connection to the server failed while {doing}: {self._error}"
            )
            failure.__cause__ = self._error
            return failure
        left = self.reader.pending
        rest = f", in the middle of a message of which {left} bytes had come" if left else ""
        return ConnectionFailed(f"the server closed the connection{rest}; its log may say why")
