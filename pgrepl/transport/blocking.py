"""The blocking driver: one socket, TLS or not, and the conversations and streams over it.

The socket never blocks by itself: an operation is tried, and where it would block the driver waits
outside of the lock until the socket is ready or the time is up. So a time limit, or a Ctrl-C in a
wait, finds things in order: what has arrived is in the reader, what was not sent yet in `_unsent`.
One thread reads at a time; sending and closing are safe from any other.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from typing import Any, Final, TypeVar

from ..codec.abc import FrameReader, WalBatch
from ..errors import ConnectionFailed, TLSError, UsageError
from ..protocol.conversation import (
    Compute,
    Exchange,
    Frame,
    PeerCertificate,
    Receive,
    ReceiveByte,
    Send,
)
from ..session.wal_stream import WalStream
from .clock import Deadline
from .tls import TLSClient

__all__ = ["BlockingTransport"]

_Result = TypeVar("_Result")
_WAIT_READ: Final = (BlockingIOError, ssl.SSLWantReadError)
# poll() where there is one: select() fails for descriptors above 1023.
_Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)
# A TLS read gives one record, which PostgreSQL makes of 8 KiB: so many reads, or bytes, at a time.
_TLS_READS: Final = 16
_TLS_ENOUGH: Final = 65536
# Bytes of a conversation that are collected before they go out, where it sends much at a time.
_MOST_UNSENT: Final = 65536


class _Here(threading.local):
    """What is known of the thread that looks at it."""

    waits = False


class BlockingTransport:
    """Drives conversations and streams over a connected socket."""

    def __init__(
        self,
        connected: socket.socket,
        reader: FrameReader,
        tls: TLSClient | None = None,
    ) -> None:
        connected.setblocking(False)
        self.reader = reader
        self._socket = connected
        self._tls = tls
        self._unsent = bytearray()
        self._closed = False
        self._late_error: OSError | None = None  # of a read that had brought something as well
        self._has_read = False
        self._here = _Here()
        self._io_lock = threading.Lock()  # a TLS object must not be used by two threads at once
        self._reading = threading.Lock()
        self._readable = _Selector()
        self._readable.register(connected.fileno(), selectors.EVENT_READ)

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by this side or after a failure."""
        return self._closed

    @property
    def socket(self) -> socket.socket:
        """The socket; an `ssl.SSLSocket` where TLS is on."""
        return self._socket

    def close(self) -> None:
        """Close the connection at once; safe to call again, and while another thread reads."""
        self._closed = True
        # Wakes a thread that waits, which then closes the descriptor when it is done with it. The
        # method of the plain socket: the one of SSLSocket would drop the TLS state under the
        # reader.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        if self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()

    def _release(self) -> None:
        self._readable.close()
        self._socket.close()

    def expect_no_reader(self) -> None:
        """Raise `UsageError` while another thread is reading."""
        if self._reading.locked():
            raise UsageError(
                "another thread is using this connection; one may read at a time, others may send "
                "a status or close it"
            )

    def _expect_open(self) -> None:
        if self._closed:
            raise UsageError("expected an open connection, this one is closed")

    @property
    def was_waiting(self) -> bool:
        """Whether an exception from outside, Ctrl-C above all, found everything in order.

        It did if it came while the driver waited; anywhere else it may have come between taking a
        message and handing it on.
        """
        return self._here.waits

    # Both take the lock by `with`: nothing can interrupt that between taking it and seeing to its
    # release. In a race two threads can both find it free; then the second one waits.

    def run(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        """Drive a conversation to its end.

        Raises what the conversation raises, `ConnectionFailed`, or `TimeoutError`; after the last
        one the same exchange can be run again and goes on where it stood.
        """
        self._here.waits = False
        self.expect_no_reader()
        with self._reading:
            try:
                return self._converse(exchange, deadline)
            finally:
                if self._closed:
                    self._release()

    def next_batch(self, stream: WalStream, deadline: Deadline) -> WalBatch:
        """Return the stream's next batch, empty when it has ended.

        Raises what the stream raises, `ConnectionFailed` or `TimeoutError`.
        """
        self._here.waits = False
        self.expect_no_reader()
        with self._reading:
            try:
                self._expect_open()
                self._has_read = False
                while (batch := stream.next_batch(self.reader)) is None:
                    self._fill(deadline)
                return batch
            except ConnectionFailed as error:
                raise stream.connection_lost(error) from None
            finally:
                if self._closed:
                    self._release()

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        """Return the stream's next batch if it has come already, else None.

        Raises what `next_batch` raises, but for `TimeoutError`.
        """
        self._here.waits = False
        self.expect_no_reader()
        with self._reading:
            try:
                self._expect_open()
                while (batch := stream.next_batch(self.reader)) is None:
                    if not self._take_in():
                        return None
                return batch
            except ConnectionFailed as error:
                raise stream.connection_lost(error) from None
            finally:
                if self._closed:
                    self._release()

    def _take_in(self) -> bool:
        """Receive what is there; False: nothing is."""
        try:
            with self._io_lock:
                received = self._receive()
        except (*_WAIT_READ, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            raise self._failed("receiving", error) from error
        if not received:
            raise self._failed("receiving", None)
        return True

    def _converse(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        self._expect_open()
        self._has_read = False
        while (request := exchange.request) is not None:
            if isinstance(request, Send):
                # To `_unsent` first: whatever interrupts the sending, it is not sent twice.
                with self._io_lock:
                    self._unsent += request.data
                exchange.answer(None)
                if len(self._unsent) >= _MOST_UNSENT:
                    self._flush(deadline)
                continue
            if isinstance(request, Receive):
                exchange.answer(self._reply(deadline))
                continue
            if isinstance(request, Compute):
                exchange.answer_by(request.call)
                continue
            if isinstance(request, PeerCertificate):
                exchange.answer(self._peer_certificate())
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
        self._expect_open()
        self._here.waits = False
        try:
            with self._io_lock:
                self._unsent += data
            self._flush(deadline)
        except Exception:
            raise
        except BaseException:
            # Ctrl-C; and where it did not come in a wait, bytes may have gone out that are still
            # queued.
            if not self.was_waiting:
                self.close()
            raise

    def send_last(self, data: bytes) -> None:
        """Send bytes before closing, if that takes no waiting and nothing is queued before them."""
        with self._io_lock, contextlib.suppress(OSError):
            if not self._unsent and not self._closed:
                self._socket.send(data)

    def _reply(self, deadline: Deadline) -> Frame:
        try:
            self._flush(deadline)
        except ConnectionFailed as failure:
            # Before it closed the connection the server may have said why.
            with contextlib.suppress(ConnectionFailed, TimeoutError):
                return self._next_frame(Deadline(0.0))
            raise failure from None
        return self._next_frame(deadline)

    def _next_frame(self, deadline: Deadline) -> Frame:
        while (frame := self.reader.next_frame()) is None:
            self._fill(deadline)
        return frame

    def _fill(self, deadline: Deadline) -> None:
        """Receive what is there, waiting until there is something."""
        # One read is always tried; a server that never pauses must not outlast the limit by more.
        if self._has_read and deadline.left() == 0.0:
            raise self._time_is_up(deadline)
        while True:
            try:
                with self._io_lock:
                    received = self._receive()
            except _WAIT_READ:
                self._wait(selectors.EVENT_READ, deadline)
            except ssl.SSLWantWriteError:
                self._wait(selectors.EVENT_WRITE, deadline)
            except OSError as error:
                raise self._failed("receiving", error) from error
            else:
                if received:
                    self._has_read = True
                    return
                raise self._failed("receiving", None)

    def _receive(self) -> int:
        if self._late_error is not None:
            raise self._late_error
        total = self._socket.recv_into(self.reader.get_buffer())
        if self._closed:
            return 0
        self.reader.buffer_updated(total)
        if total and isinstance(self._socket, ssl.SSLSocket):
            try:
                for _ in range(_TLS_READS - 1):
                    more = self._socket.recv_into(self.reader.get_buffer())
                    self.reader.buffer_updated(more)
                    total += more
                    if total >= _TLS_ENOUGH:
                        break
            except (*_WAIT_READ, ssl.SSLWantWriteError):
                pass
            except OSError as error:
                # After what has arrived is dealt with; OpenSSL itself tells of it only once, and
                # of an orderly end from then on.
                self._late_error = error.with_traceback(None)
        return total

    def _flush(self, deadline: Deadline) -> None:
        """Send what is queued. It may hold a password, so no bytes in local variables, and no
        traceback of `ssl`, whose functions have them in theirs."""
        while self._unsent:
            event = selectors.EVENT_WRITE
            try:
                with self._io_lock:
                    while self._unsent:
                        del self._unsent[: self._socket.send(self._unsent)]
                break
            except ssl.SSLWantReadError:
                event = selectors.EVENT_READ
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass
            except OSError as error:
                raise self._failed("sending", error) from error.with_traceback(None)
            # Not in a handler: a TimeoutError would carry the handled error along.
            self._wait(event, deadline)

    def _wait(self, event: int, deadline: Deadline) -> None:
        left = deadline.left()
        self._here.waits = True
        if event == selectors.EVENT_READ:
            ready = self._readable.select(left)
        else:
            with _Selector() as selector:
                selector.register(self._socket.fileno(), event)
                ready = selector.select(left)
        if not ready and (left is not None and not deadline.left()):
            raise self._time_is_up(deadline)
        self._here.waits = False

    def _time_is_up(self, deadline: Deadline) -> TimeoutError:
        self._here.waits = True
        return TimeoutError(
            f"what was asked for did not come within {deadline.timeout} s; what had arrived before "
            "is kept and the connection can be used on"
        )

    def _receive_byte(self, deadline: Deadline) -> bytes:
        while True:
            try:
                answer = self._socket.recv(1)
            except BlockingIOError:
                self._wait(selectors.EVENT_READ, deadline)
            except OSError as error:
                raise self._failed("receiving", error) from error
            else:
                if answer:
                    return answer
                raise self._failed("receiving", None)

    def _begin_tls(self, deadline: Deadline) -> None:
        tls = self._tls
        if tls is None:
            raise TLSError("expected a connection that was set up for TLS")
        try:
            # Bytes that came before the handshake would be taken as if they had come inside TLS.
            with contextlib.suppress(BlockingIOError):
                if self._socket.recv(1, socket.MSG_PEEK):
                    raise TLSError(
                        "expected nothing before the TLS handshake, got data: somebody on the way "
                        "may be trying to slip in unprotected answers"
                    )
            self._socket = session = tls.wrap_socket(self._socket)
        except OSError as error:
            raise self._failed("receiving", error) from error
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._wait(selectors.EVENT_READ, deadline)
            except ssl.SSLWantWriteError:
                self._wait(selectors.EVENT_WRITE, deadline)
            except (ssl.SSLError, ConnectionError) as error:
                raise tls.failure(error) from error
            except OSError as error:
                raise self._failed("receiving", error) from error
        tls.check(session)

    def _peer_certificate(self) -> bytes | None:
        if isinstance(self._socket, ssl.SSLSocket):
            return self._socket.getpeercert(binary_form=True)
        return None

    def _failed(self, doing: str, error: OSError | None) -> ConnectionFailed | TLSError:
        if self._closed:
            return ConnectionFailed("the connection was closed while another thread was using it")
        if error is not None:
            refusal = self._tls.refusal(error) if self._tls is not None else None
            if refusal is not None:
                return refusal
            return ConnectionFailed(f"the connection to the server failed while {doing}: {error}")
        left = self.reader.pending
        rest = f", in the middle of a message of which {left} bytes had come" if left else ""
        return ConnectionFailed(f"the server closed the connection{rest}; its log may say why")
