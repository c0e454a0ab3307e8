"""The blocking driver: one socket, TLS or not, and the conversations and streams over it.

The socket never blocks by itself: an operation is tried, and where it would block the driver waits
outside of the lock until the socket is ready or the time is up. So a time limit, or a Ctrl-C in a
wait, finds things in order: what has arrived is in the reader, what was not sent yet in `_unsent`.
One thread reads at a time; sending and closing are safe from any other. In a forked child closing
closes the descriptor, and nothing else goes: see `ownership`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Final, TypeVar

from ...codec.abc import MAX_FRAME_LENGTH, FrameReader, WalBatch
from ...errors import ConnectionFailed, TLSError, UsageError
from ...ownership import Owner, Uncopied
from ...protocol.conversation import (
    Compute,
    Exchange,
    Frame,
    PeerCertificate,
    Receive,
    ReceiveByte,
    Send,
)
from ...session.wal_stream import WalStream
from ..clock import Deadline, Pace, monotonic
from ..coalescing import Coalescing
from ..sockets import expect_silence
from ..tls import TLSClient
from ..tls_filter import TLSFilter
from .readiness import Readiness, wait_until_writable
from .signals import Signals

__all__ = ["BlockingTransport"]

_Result = TypeVar("_Result")
# Bytes of a conversation that are collected before they go out, where it sends much at a time.
_MOST_UNSENT: Final = 65536


class _ThisThread(threading.local):
    """Whether the thread that looks at it waits, or waited at last: see `has_lost_nothing`."""

    is_waiting = False


class BlockingTransport(Uncopied):
    """Drives conversations and streams over a connected socket."""

    def __init__(
        self,
        connected: socket.socket,
        reader: FrameReader,
        tls: TLSClient | None = None,
    ) -> None:
        connected.setblocking(False)
        self.owner: Final = Owner()
        """The process that made it; what a child may do, see there."""
        self.reader = reader
        self._socket = connected
        self._client = tls
        self._tls: TLSFilter | None = None  # from the handshake on
        self._pace: Pace | None = Pace()
        self._unsent = bytearray()
        self.closed = False
        """Whether the connection is closed, by this side or after a failure."""
        self._late_error: OSError | None = None  # of a read that had brought something as well
        self._has_read = False
        # Whether a read will find something for certain, the end of the connection perhaps.
        self._has_more = False
        self._this_thread = _ThisThread()
        self._io_lock = threading.Lock()  # a TLS object must not be used by two threads at once
        self._reading = threading.Lock()
        self._readable = Readiness(connected.fileno())
        self._signals: Signals | None = None
        self._is_streaming = False  # what is waited for is a stream's, and can be asked to end
        self._coalescing = Coalescing()

    @property
    def socket(self) -> socket.socket:
        """The socket, which with TLS carries what is encrypted."""
        return self._socket

    @property
    def has_tls(self) -> bool:
        """Whether everything is sent and received by TLS."""
        return self._tls is not None

    def session_has_begun(self) -> None:
        """Lift the bounds on what an unknown server may cost."""
        self._pace = None
        self.reader.limit = MAX_FRAME_LENGTH
        if self._tls is not None:
            self._tls.session_has_begun()

    def close(self) -> None:
        """Close the connection at once; safe to call again, and while another thread reads."""
        self.closed = True
        if self.owner.is_parent:
            # No shutdown, which would be the parent's as well, and no lock: see `ownership`.
            self._socket.close()
            return
        # Wakes a thread that waits, which then closes the descriptor when it is done with it.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._reading.acquire(blocking=False):
            try:
                self._socket.close()
            finally:
                self._reading.release()

    def end_waits_on(self, signals: Signals | None) -> None:
        """Have waits for a stream end, as if their time were up, when a signal comes."""
        if self.closed:
            return
        if self._signals is not None:
            self._readable.remove(self._signals.fileno())
        if signals is not None:
            self._readable.add(signals.fileno())
        self._signals = signals

    def coalesce(self, max_delay: float) -> None:
        """Have the reads of the stream that begins wait for company, for so many seconds at most;
        see `Coalescing`."""
        self._coalescing = Coalescing(max_delay)

    def expect_no_reader(self) -> None:
        """Raise `UsageError` while another thread is reading, and in a forked child."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        if self._reading.locked():
            raise UsageError(
                "another thread is using this connection; one may read at a time, others may send "
                "a status or close it"
            )

    def _expect_open(self) -> None:
        if self.closed:
            raise UsageError("expected an open connection, this one is closed")

    @property
    def has_lost_nothing(self) -> bool:
        """Whether an exception from outside, Ctrl-C above all, found everything in order.

        It did if it came while the driver waited; anywhere else it may have come between taking a
        message and handing it on.
        """
        return self._this_thread.is_waiting

    # The lock of the reader is taken by `with`: nothing can interrupt that between taking it and
    # seeing to its release. In a race two threads can both find it free; then the second one waits.

    def run(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        """Drive a conversation to its end.

        Raises what the conversation raises, `ConnectionFailed`, or `TimeoutError`; after the last
        one the same exchange can be run again and goes on where it stood.
        """
        self._this_thread.is_waiting = False
        self.expect_no_reader()
        with self._reading:
            self._is_streaming = False
            try:
                return self._converse(exchange, deadline)
            finally:
                if self.closed:
                    self._socket.close()

    def next_batch(self, stream: WalStream, deadline: Deadline) -> WalBatch:
        """Return the stream's next batch, empty when it has ended.

        Raises what the stream raises, `ConnectionFailed` or `TimeoutError`.
        """
        self._this_thread.is_waiting = False
        self.expect_no_reader()
        with self._reading:
            self._is_streaming = True
            try:
                self._expect_open()
                self._has_read = False
                while (batch := stream.next_batch(self.reader)) is None:
                    if pause := self._coalescing.pause(monotonic()):
                        self._pause(pause, deadline)
                    self._receive_more(deadline)
                self._coalescing.took(len(batch), batch.nbytes, monotonic())
                return batch
            except ConnectionFailed as error:
                raise stream.connection_lost(error) from None
            finally:
                if self.closed:
                    self._socket.close()

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        """Return the stream's next batch if it has come already, else None. Reads once at most.

        Raises what `next_batch` raises, but for `TimeoutError`.
        """
        self._this_thread.is_waiting = False
        self.expect_no_reader()
        with self._reading:
            try:
                self._expect_open()
                batch = stream.next_batch(self.reader)
                if batch is None:
                    if self._coalescing.pause(monotonic()) or not self._receive_at_hand():
                        return None
                    batch = stream.next_batch(self.reader)
                if batch is not None:
                    self._coalescing.took(len(batch), batch.nbytes, monotonic())
                return batch
            except ConnectionFailed as error:
                raise stream.connection_lost(error) from None
            finally:
                if self.closed:
                    self._socket.close()

    def _receive_at_hand(self) -> bool:
        """Receive what is there; False: nothing is."""
        try:
            with self._io_lock:
                received = self._read_socket()
        except BlockingIOError:
            self._has_more = False
            return False
        except OSError as error:
            raise self._failure("receiving", error) from error
        if not received:
            raise self._failure("receiving", None)
        return True

    def _converse(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        self._expect_open()
        self._has_read = False
        while (request := exchange.request) is not None:
            if isinstance(request, Send):
                self._queue_hidden_from_tracebacks(request)
                exchange.answer(None)
                if len(self._unsent) >= _MOST_UNSENT:
                    self._flush(deadline)
                continue
            if isinstance(request, Receive):
                exchange.answer(self._next_reply(deadline))
                continue
            if isinstance(request, Compute):
                exchange.answer_by(request.call)
                continue
            if isinstance(request, PeerCertificate):
                exchange.answer(self._tls and self._tls.peer_certificate())
                continue
            self._flush(deadline)
            if isinstance(request, ReceiveByte):
                exchange.answer(self._receive_byte(deadline))
            else:
                self._begin_tls(deadline)
                exchange.answer(None)
        self._flush(deadline)
        return exchange.result

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send bytes; what does not go out in time stays queued, in order, and goes out first."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        self._expect_open()
        self._this_thread.is_waiting = False
        try:
            self._queue(data)
            self._flush(deadline)
        except Exception:
            raise
        except BaseException:
            # Ctrl-C; and where it did not come in a wait, bytes may have gone out that are still
            # queued.
            if not self.has_lost_nothing:
                self.close()
            raise

    def send_last(self, data: bytes) -> None:
        """Send bytes before closing, if that takes no waiting and nothing is queued before them."""
        if self.owner.is_parent:
            return
        with self._io_lock, contextlib.suppress(OSError):
            if not self._unsent and not self.closed:
                self._socket.send(self._encrypted(data))

    def _next_reply(self, deadline: Deadline) -> Frame:
        failure: ConnectionFailed | None = None
        try:
            self._flush(deadline)
        except ConnectionFailed as error:
            failure = error
        if failure is None:
            return self._next_frame(deadline)
        # Before it closed the connection the server may have said why.
        self._has_read = False
        with contextlib.suppress(ConnectionFailed, TimeoutError):
            return self._next_frame(Deadline(0.0))
        raise failure from None

    def _next_frame(self, deadline: Deadline) -> Frame:
        while (frame := self.reader.next_frame()) is None:
            self._receive_more(deadline)
        return frame

    def _receive_more(self, deadline: Deadline) -> None:
        """Receive what is there, waiting until there is something."""
        # One read is always tried; a server that never pauses must not outlast the limit by more.
        if self._has_read and deadline.left() == 0.0 and self._late_error is None:
            raise self._timeout_error(deadline)
        if self._pace is not None:
            self._pace.wait(deadline)
        # Not in a handler: Ctrl-C would carry the handled error along.
        while not (self._has_more and self._receive_at_hand()):
            self._wait_until_readable(deadline)
        self._has_read = True

    def _pause(self, seconds: float, deadline: Deadline) -> None:
        """Let more come before the next read, which is tried before there is a wait for it."""
        left = deadline.left()
        self._this_thread.is_waiting = True
        time.sleep(seconds if left is None else min(seconds, left))
        self._this_thread.is_waiting = False
        self._has_more = True

    def _read_socket(self) -> int:
        """Read once, however much there is, and have it decrypted."""
        if self._late_error is not None:
            raise self._late_error
        tls = self._tls
        if tls is not None and tls.ended:
            return 0
        room = self.reader.get_buffer() if tls is None else tls.get_buffer()
        received = self._socket.recv_into(room)
        # Where there was room left the socket is empty now, and a wait is due before the next read.
        self._has_more = received == len(room)
        del room  # the reader may use a chunk again only when nobody looks into it
        if self.closed:
            return 0
        if tls is None:
            self.reader.buffer_updated(received)
            return received
        if not received:
            tls.end_of_file()
            # What the handshake makes of it is for the handshake to say.
            return 0 if tls.is_established else 1
        self._decrypt(tls, received)
        return received

    def _decrypt(self, tls: TLSFilter, received: int) -> None:
        try:
            tls.buffer_updated(received)
        except ssl.SSLError as error:
            # After what has arrived is dealt with; OpenSSL itself tells of it only once, and of an
            # orderly end from then on.
            self._late_error = error.with_traceback(None)
        if tls.ended or self._late_error is not None:
            self._has_more = True
        self._send_tls_records(tls)

    def _send_tls_records(self, tls: TLSFilter) -> None:
        """Send what TLS itself has to say, an alert for one, as far as that takes no waiting."""
        self._unsent += tls.take_outgoing()
        with contextlib.suppress(OSError):
            self._send_unsent()

    def _queue_hidden_from_tracebacks(self, request: Send) -> None:
        try:
            self._queue(request.data)
        except BaseException as error:
            # Ctrl-C, above all: it may be a password, and what is called has it in local variables.
            raise error.with_traceback(None) from None

    def _queue(self, data: bytes) -> None:
        """Put bytes behind those that are to be sent: whatever interrupts that, none goes out
        twice."""
        try:
            with self._io_lock:
                self._unsent += self._encrypted(data)
        except OSError as error:
            # What came and broke the rules, if something did: OpenSSL has told of that already.
            cause = (self._late_error or error).with_traceback(None)
            raise self._failure("sending", cause) from cause

    def _encrypted(self, data: bytes) -> bytes:
        return data if self._tls is None else self._tls.encrypt(data)

    def _flush(self, deadline: Deadline) -> None:
        """Send what is queued. It may hold a password, so no bytes in local variables."""
        while self._unsent:
            try:
                with self._io_lock:
                    self._send_unsent()
                break
            except BlockingIOError:
                pass
            except OSError as error:
                raise self._failure("sending", error) from error
            # Not in a handler: a TimeoutError would carry the handled error along.
            self._wait_until_writable(deadline)

    def _send_unsent(self) -> None:
        while self._unsent:
            del self._unsent[: self._socket.send(self._unsent)]

    def _wait_until_readable(self, deadline: Deadline) -> None:
        left = deadline.left()
        self._this_thread.is_waiting = True
        ready = self._readable.wait(left)
        signals = self._signals
        if signals is not None and any(each == signals.fileno() for each, _ in ready):
            signals.drain()
            if self._is_streaming:
                raise self._timeout_error(deadline)
        if not ready and left is not None and not deadline.left():
            raise self._timeout_error(deadline)
        self._this_thread.is_waiting = False
        self._has_more = True

    def _wait_until_writable(self, deadline: Deadline) -> None:
        left = deadline.left()
        self._this_thread.is_waiting = True
        ready = wait_until_writable(self._socket.fileno(), left)
        if not ready and left is not None and not deadline.left():
            raise self._timeout_error(deadline)
        self._this_thread.is_waiting = False

    def _timeout_error(self, deadline: Deadline) -> TimeoutError:
        self._this_thread.is_waiting = True
        return deadline.error()

    def _receive_byte(self, deadline: Deadline) -> bytes:
        while (answer := self._byte_at_hand()) is None:
            self._wait_until_readable(deadline)
        return answer

    def _byte_at_hand(self) -> bytes | None:
        try:
            answer = self._socket.recv(1)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._failure("receiving", error) from error
        if not answer:
            raise self._failure("receiving", None)
        return answer

    def _begin_tls(self, deadline: Deadline) -> None:
        client = self._client
        if client is None:
            raise TLSError("expected a connection that was set up for TLS")
        try:
            expect_silence(self._socket)
        except OSError as error:
            raise self._failure("receiving", error) from error
        self._tls = tls = TLSFilter(client, self.reader)
        while True:
            try:
                done = tls.shake_hands()
            finally:
                # What this side finds wrong, it also tells the server.
                self._send_tls_records(tls)
            if done:
                self._decrypt(tls, 0)
                return
            self._flush(deadline)
            self._receive_more(deadline)

    def _failure(self, doing: str, error: OSError | None) -> ConnectionFailed | TLSError:
        if self.closed:
            return ConnectionFailed("the connection was closed while another thread was using it")
        if error is not None:
            if self._tls is not None:
                is_late = self._tls.is_established
                refusal = self._tls.refusal(error) if is_late else self._tls.failure(error)
                if refusal is not None:
                    return refusal
            return ConnectionFailed(f"the connection to the server failed while {doing}: {error}")
        left = self.reader.pending
        rest = f", in the middle of a message of which {left} bytes had come" if left else ""
        return ConnectionFailed(f"the server closed the connection{rest}; its log may say why")
