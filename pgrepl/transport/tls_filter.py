"""TLS in memory, between the bytes that a driver reads and writes and those of the session.

Not by `ssl.SSLSocket`: OpenSSL reads on within one call, which no time limit and no Ctrl-C ends, as
long as a server has nothing to say but new session tickets or keys. Here each call has what one
read has brought, and what TLS itself takes is counted.

Not by `loop.start_tls`, which has an implementation in asyncio and another in uvloop: it takes over
what was read before the handshake, drops what it has decrypted where an error follows at once, and
lets closing wait for the peer. Here every loop carries plain bytes and runs the same code; and as
everything is decrypted as it comes, nobody waits for bytes that are here already.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, Final, cast

from ..codec.abc import FrameReader
from ..errors import ProtocolError, TLSError
from ..ownership import Uncopied
from .tls import TLSClient

__all__ = ["TLSFilter"]

# What a read can bring; decrypted it fits into the half of a chunk that is always free.
_ROOM: Final = 65536
# Bytes of TLS's own, before the session begins: OpenSSL takes certificates of 100 KiB.
_MOST_OVERHEAD: Final = 128 << 10


class TLSFilter(Uncopied):
    """Stands where the reader would: takes what is read, and passes on what it holds."""

    def __init__(self, client: TLSClient, reader: FrameReader) -> None:
        """Raises `TLSError` where TLS cannot be set up."""
        self._client = client
        self._reader = reader
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = client.wrap_bio(self._incoming, self._outgoing)
        self._room = memoryview(bytearray(_ROOM))
        self._overhead: int | None = 0
        self.is_established = False
        self.ended = False
        """Whether the peer has said that no more will come."""

    def session_has_begun(self) -> None:
        """Lift the bound on what TLS may take for itself."""
        self._overhead = None

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return room for encrypted bytes, to be filled from its start."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Take encrypted bytes; all that they hold goes on to the reader. Raises `ssl.SSLError`,
        when everything before the fault has been passed on, or `ProtocolError`."""
        self._incoming.write(self._room[:nbytes])
        if self._overhead is not None:
            self._overhead += nbytes
        if self.is_established:
            self._decrypt()
        self._expect_little_overhead()

    def shake_hands(self) -> bool:
        """Go on with the handshake; False: the peer has to answer first. Raises `TLSError`, or
        `ProtocolError` where there is no end of it. After it, what has come behind it is to be
        decrypted by `buffer_updated`, of no more bytes."""
        self._expect_little_overhead()
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._client.failure(error) from error
        self._client.check(self._session)
        self.is_established = True
        return True

    def _expect_little_overhead(self) -> None:
        """Raise `ProtocolError` where TLS has taken more than any honest server has it take."""
        if self._overhead is not None and self._overhead > _MOST_OVERHEAD:
            raise ProtocolError(
                f"expected TLS to take at most {_MOST_OVERHEAD} bytes for itself before the server "
                "is ready, got more"
            )

    def failure(self, error: OSError) -> TLSError:
        """Return what to say of a connection that failed in the handshake."""
        return self._client.failure(error)

    def refusal(self, error: Exception) -> TLSError | None:
        """Return what to say where the server has refused what was shown in the handshake."""
        return self._client.refusal(error)

    def peer_certificate(self) -> bytes | None:
        """Return the certificate that the peer has shown, in DER form."""
        return self._session.getpeercert(binary_form=True)

    def end_of_file(self) -> None:
        """Take note that the connection has ended."""
        self._incoming.write_eof()

    def encrypt(self, data: bytes) -> bytes:
        """Return what is to be sent in place of `data`. Raises `ssl.SSLError`."""
        at = 0
        while at < len(data):
            at += self._session.write(data[at:])
        return self.take_outgoing()

    def take_outgoing(self) -> bytes:
        """Return what TLS itself has to send."""
        return self._outgoing.read()

    def _decrypt(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                room = self._reader.get_buffer()
                # The annotation of ssl has it that this returns bytes; with a buffer it does not.
                count = cast(int, self._session.read(len(room), cast(Any, room)))
                # The reader may use a chunk again only when nobody looks into it.
                del room
                if not count:
                    self.ended = True
                    return
                if self._overhead is not None:
                    self._overhead -= count
                self._reader.buffer_updated(count)
