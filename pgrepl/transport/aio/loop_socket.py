"""A connected socket that the event loop reads and writes: what has come is in the reader at once.

Who waits, waits for a future: True that there is more, or room to send; False that it is in vain.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Final, cast

from ...codec.abc import FrameReader
from ...errors import ProtocolError
from ...ownership import Owner, Uncopied
from ..tls_filter import TLSFilter
from .loops import is_running

__all__ = ["LoopSocket"]

# Half a chunk. Bytes that nobody takes and that are fewer do no harm, and pausing costs two system
# calls.
_ENOUGH: Final = 65536


class LoopSocket(Uncopied, asyncio.BufferedProtocol):
    """The protocol of the loop's transport, which `attach` makes."""

    def __init__(
        self, connected: socket.socket, reader: FrameReader, tls: TLSFilter | None
    ) -> None:
        self.owner: Final = Owner()
        """The process that made it; what a child may do, see there."""
        self.reader = reader
        self._loop = asyncio.get_running_loop()
        self._socket = connected
        self._tls = tls
        self._sink = reader if tls is None else tls
        self._transport: asyncio.Transport | None = None
        self.closed = False
        """Whether the connection is closed, by this side or after a failure."""
        self._eof = False
        self._error: Exception | None = None
        self._socket_closed = asyncio.Event()  # by the loop
        self._paused = False
        # Whether the loop reads again before whoever waited has had a turn, as uvloop does.
        self._reads_on = False
        self._waiter: asyncio.Future[bool] | None = None
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
        if not self._note_read(nbytes):
            return
        waiter = self._waiter
        if waiter is None:
            pass
        elif not waiter.done():
            waiter.set_result(True)
            if not self._reads_on:
                # The task that waited takes all of it before the loop reads again.
                return
        elif not waiter.cancelled() and waiter.result():
            self._reads_on = True
        if self.reader.pending >= _ENOUGH:
            self._pause()

    def _note_read(self, nbytes: int) -> bool:
        """Take note of what was read; False: it broke the rules of TLS."""
        try:
            self._sink.buffer_updated(nbytes)
        except (ssl.SSLError, ProtocolError) as error:
            self._abort(error)
            return False
        if self._tls is not None:
            self._eof = self._eof or self._tls.ended
            self._write_to_socket(self._tls.take_outgoing())
        return True

    def eof_received(self) -> bool:
        """The server has no more to say. The connection stays open to this side: what is sent into
        it shows how it ended."""
        self._note_end()
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
        if exc is not None and not self.closed:
            self._abort(exc)
            # Where sending failed, what the server said before it closed may still be there.
            with contextlib.suppress(OSError):
                while received := self._socket.recv_into(self._sink.get_buffer()):
                    self._sink.buffer_updated(received)
        self._socket_closed.set()
        self._note_end()
        self._wake_writers()

    def _note_end(self) -> None:
        self._eof = True
        if self._tls is not None:
            self._tls.end_of_file()
        self._wake_reader()

    def _abort(self, error: Exception) -> None:
        if self._error is None:
            # The traceback's functions have what was sent in their local variables.
            self._error = error.with_traceback(None)
        self._note_end()
        if self._transport is not None:
            self._transport.abort()

    def _wake_reader(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

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
    def has_tls(self) -> bool:
        """Whether everything is sent and received by TLS."""
        return self._tls is not None

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once the connection is closed."""
        return -1 if self.closed else self._socket.fileno()

    def close(self) -> None:
        """Close the connection at once; safe to call again, while a task waits, and anywhere."""
        self.closed = True
        if self._transport is None or self.owner.is_parent:
            self._socket.close()
        elif is_running(self._loop):
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
            await self._socket_closed.wait()

    # Sending

    def _write(self, data: bytes) -> None:
        if self._error is not None:
            return
        if self._tls is not None:
            try:
                data = self._tls.encrypt(data)
            except ssl.SSLError as error:
                self._abort(error)
                return
        self._write_to_socket(data)

    def _write_to_socket(self, data: bytes) -> None:
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
