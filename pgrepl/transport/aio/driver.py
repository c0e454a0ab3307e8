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
import contextlib
import socket
import ssl
from typing import Final, TypeVar, cast

from ...codec.abc import MAX_FRAME_LENGTH, FrameReader, WalBatch
from ...errors import ConnectionFailed, Error, ProtocolError, TLSError, UsageError
from ...ownership import Owner, Uncopied
from ...protocol.conversation import Compute, Exchange, Frame, PeerCertificate, Receive, Send
from ...session.wal_stream import WalStream
from ..clock import Deadline, Pace
from ..tls_filter import TLSFilter

__all__ = ["AsyncTransport"]

_Result = TypeVar("_Result")
# Half a chunk. Bytes that nobody takes and that are fewer do no harm, and pausing costs two system
# calls.
_ENOUGH: Final = 65536
# A turn of the loop costs as much as hundreds of messages, so a server that never pauses is read
# without, as often as this before other tasks have their turn.
_MOST_READS: Final = 8
# They come at a place where something waited, or were made by us: nothing was lost on the way.
_ORDERLY: Final = (Error, TimeoutError, asyncio.CancelledError, GeneratorExit)


class AsyncTransport(Uncopied, asyncio.BufferedProtocol):
    """Drives conversations and streams over a connected socket, in the running event loop.

    The protocol of the loop's transport, which `attach` makes.
    """

    def __init__(
        self,
        connected: socket.socket,
        reader: FrameReader,
        tls: TLSFilter | None = None,
        *,
        is_local: bool = False,
    ) -> None:
        self.owner: Final = Owner()
        """The process that made it; what a child may do, see there."""
        self.reader = reader
        self.is_local: Final = is_local
        """Whether the server is on this machine."""
        self._loop = asyncio.get_running_loop()
        self._socket = connected
        self._tls = tls
        self._sink = reader if tls is None else tls
        self._transport: asyncio.Transport | None = None
        self._closed = False
        self._busy = False
        self._eof = False
        self._error: Exception | None = None
        self._gone = asyncio.Event()  # the loop has let go of the socket
        self._has_read = False
        self._pace: Pace | None = Pace()
        self._paused = False
        # Whether the loop reads again before whoever waited has had a turn, as uvloop does.
        self._reads_on = False
        self._reads = 0  # without a turn of the loop
        self._most_reads = _MOST_READS if _reads_when_ready(self._loop) else 0
        self._waiter: asyncio.Future[bool] | None = None
        self._is_streaming = False  # what is waited for is a stream's, and can be asked to end
        self._writing_paused = False
        self._writers: set[asyncio.Future[bool]] = set()

    async def attach(self) -> None:
        """Let the event loop read and write the socket; from here on this owns it."""
        making = asyncio.ensure_future(
            self._loop.create_connection(lambda: self, sock=self._socket)
        )
        try:
            await asyncio.shield(making)
        except BaseException:
            # A transport that is made by half is nobody's to close. It takes one turn of the loop.
            await asyncio.wait([making])
            self.close()
            raise

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop's transport is ready."""
        self._transport = cast(asyncio.Transport, transport)
        # Whoever sends waits until the system has taken all of it, as on a blocking socket.
        self._transport.set_write_buffer_limits(high=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The loop is going to read, and gives the view back right after it: see `FrameReader`."""
        return self._sink.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """The loop has read."""
        if not self._take_in(nbytes):
            return
        waiter = self._waiter
        if waiter is None:
            pass
        elif not waiter.done():
            waiter.set_result(True)
            if not self._reads_on:
                # Who waits takes all of it before the loop reads again.
                return
        elif not waiter.cancelled() and waiter.result():
            self._reads_on = True
        if self.reader.pending >= _ENOUGH:
            self._pause()

    def _take_in(self, nbytes: int) -> bool:
        """Take note of what was read; False: it broke the rules of TLS."""
        try:
            self._sink.buffer_updated(nbytes)
        except (ssl.SSLError, ProtocolError) as error:
            self._fail(error)
            return False
        if self._tls is not None:
            self._eof = self._eof or self._tls.ended
            self._put(self._tls.take_outgoing())
        return True

    def eof_received(self) -> bool:
        """The server has no more to say. The connection stays open to this side: what is sent into
        it shows how it ended."""
        self._ended()
        return True

    def pause_writing(self) -> None:
        """The system takes no more."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The system has taken everything."""
        self._writing_paused = False
        self._wake_writers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The loop closes the socket after this."""
        if exc is not None and not self._closed:
            self._fail(exc)
            # Where sending failed, what the server said before it closed may still be there.
            with contextlib.suppress(OSError):
                while received := self._socket.recv_into(self._sink.get_buffer()):
                    self._sink.buffer_updated(received)
        self._gone.set()
        self._ended()
        self._wake_writers()

    def _ended(self) -> None:
        self._eof = True
        if self._tls is not None:
            self._tls.end_of_file()
        self._wake()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            # The traceback's functions have what was sent in their local variables.
            self._error = error.with_traceback(None)
        self._ended()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def end_wait(self) -> None:
        """End a wait for a stream, as if its time were up."""
        if self._is_streaming and self._waiter is not None:
            _give_up(self._waiter)

    def _wake_writers(self) -> None:
        for writer in self._writers:
            if not writer.done():
                writer.set_result(True)

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._transport.pause_reading()
            self._paused = True

    def _resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()
            self._paused = False

    # The end

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by this side or after a failure."""
        return self._closed

    @property
    def has_tls(self) -> bool:
        """Whether everything is sent and received by TLS."""
        return self._tls is not None

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once the connection is closed."""
        return -1 if self._closed else self._socket.fileno()

    def close(self) -> None:
        """Close the connection at once; safe to call again, while a task waits, and anywhere."""
        self._closed = True
        if self._transport is None or self.owner.is_parent:
            self._socket.close()
        elif asyncio._get_running_loop() is self._loop:
            self._transport.abort()
        else:
            # By the garbage collector, in any thread and at any time.
            try:
                self._loop.call_soon_threadsafe(self._transport.abort)
            except RuntimeError:  # the loop is closed
                self._socket.close()

    async def wait_closed(self) -> None:
        """Wait until the loop has closed the socket of a closed connection: no I/O, but a turn."""
        if self._transport is not None and not self.owner.is_parent:
            await self._gone.wait()

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
        if self._closed:
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
                    self._write_unseen(request)
                    exchange.answer(None)
                    if self._unsent >= _ENOUGH:
                        await self._drain(deadline)
                elif isinstance(request, Receive):
                    exchange.answer(await self._next_frame(deadline))
                elif isinstance(request, Compute):
                    exchange.answer_by((await self._computed(request, deadline)).result)
                elif isinstance(request, PeerCertificate):
                    exchange.answer(self._tls and self._tls.peer_certificate())
                else:
                    raise AssertionError("what precedes TLS is dealt with before this is made")
            await self._drain(deadline)
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
                await self._fill(deadline)
            return batch
        except ConnectionFailed as error:
            raise stream.connection_lost(error) from None
        finally:
            self._busy = self._is_streaming = False

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        """Return the stream's next batch if it is whole already, else None."""
        self.expect_no_reader()
        self._expect_open()
        return stream.next_batch(self.reader)

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
                self._put(tls.take_outgoing())
            if done:
                self._take_in(0)
                return
            try:
                await self._fill(Deadline.after(None))
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
        await self._drain(deadline)
        if self._error is not None:
            raise self._failed("sending")

    def post(self, data: bytes) -> None:
        """Send bytes without waiting; not at all while the server takes no more."""
        if not self._closed and not self._writing_paused and not self.owner.is_parent:
            self._write(data)

    def send_last(self, data: bytes) -> None:
        """Send bytes before closing, if that takes no waiting and nothing is queued before them."""
        transport = self._transport
        if transport is None or self.owner.is_parent:
            return
        if not transport.get_write_buffer_size():
            self._write(data)

    def _write_unseen(self, request: Send) -> None:
        try:
            self._write(request.data)
        except BaseException as error:
            # Ctrl-C, above all: it may be a password, and what is called has it in local variables.
            raise error.with_traceback(None) from None

    def _write(self, data: bytes) -> None:
        if self._error is not None:
            return
        if self._tls is not None:
            try:
                data = self._tls.encrypt(data)
            except ssl.SSLError as error:
                self._fail(error)
                return
        self._put(data)

    def _put(self, data: bytes) -> None:
        """Hand bytes to the system, and to the loop's transport what it does not take.

        At once, as asyncio would: uvloop puts it off to the end of its turn, and whoever sends
        would have to wait for that.
        """
        transport = self._transport
        if not data or transport is None or transport.is_closing():
            return
        sent = 0
        if not transport.get_write_buffer_size():
            # Where it fails the transport will, and tells why.
            with contextlib.suppress(OSError):
                sent = self._socket.send(data)
        if sent < len(data):
            transport.write(data[sent:])

    @property
    def _unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    async def _drain(self, deadline: Deadline) -> None:
        while self._writing_paused and not self._gone.is_set():
            writer: asyncio.Future[bool] = self._loop.create_future()
            timer = self._timer(writer, deadline)
            self._writers.add(writer)
            try:
                in_time = await writer
            finally:
                self._writers.discard(writer)
                if timer is not None:
                    timer.cancel()
            if not in_time:
                raise _time_is_up(deadline)

    async def _next_frame(self, deadline: Deadline) -> Frame:
        while (frame := self.reader.next_frame()) is None:
            await self._fill(deadline)
        return frame

    async def _computed(self, request: Compute, deadline: Deadline) -> asyncio.Future[object]:
        """Return what has come of a call in another thread, which goes on if nobody waits for it
        any more."""
        future: asyncio.Future[object] = self._loop.run_in_executor(None, request.call)
        try:
            await asyncio.wait([future], timeout=deadline.left())
            if not future.done():
                raise _time_is_up(deadline)
        finally:
            future.cancel()
        return future

    async def _fill(self, deadline: Deadline) -> None:
        """Wait until there is more in the reader."""
        if self._closed or self._eof:
            raise self._failed("receiving")
        # The loop is always given one turn; a server that never pauses must not outlast the limit
        # by more.
        if self._has_read and deadline.left() == 0.0:
            raise _time_is_up(deadline)
        if self._pace is not None and (pause := self._pace.pause()):
            self._pause()
            await asyncio.sleep(pause)
        if self._reads < self._most_reads and self._read():
            return
        self._reads = 0
        if self._paused:
            self._resume()
        self._waiter = waiter = self._loop.create_future()
        timer = self._timer(waiter, deadline)
        try:
            in_time = await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        if not in_time:
            raise _time_is_up(deadline)
        self._has_read = True

    def _read(self) -> bool:
        """Read the socket without the loop; False: nothing is there, or its end."""
        try:
            received = self._socket.recv_into(self._sink.get_buffer())
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error)
            raise self._failed("receiving") from error
        if received == 0:
            return False  # the loop will find the same
        self._reads += 1
        self._has_read = True
        # What came before a record that breaks the rules of TLS is for the caller first.
        self._take_in(received)
        return True

    def _timer(
        self, waiter: asyncio.Future[bool], deadline: Deadline
    ) -> asyncio.TimerHandle | None:
        left = deadline.left()
        return None if left is None else self._loop.call_later(left, _give_up, waiter)

    def _failed(self, doing: str) -> ConnectionFailed | TLSError | ProtocolError:
        if self._closed:
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


def _give_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


def _time_is_up(deadline: Deadline) -> TimeoutError:
    return TimeoutError(
        f"what was asked for did not come within {deadline.timeout} s; what had arrived before is "
        "kept and the connection can be used on"
    )


def _reads_when_ready(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop reads when a socket is ready, and not ahead, so that others may read too."""
    if isinstance(loop, asyncio.SelectorEventLoop):
        return True
    return type(loop).__module__.partition(".")[0] == "uvloop"
