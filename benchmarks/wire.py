"""As much of the frontend/backend protocol as the capture, the floor and the replay need.

It is a second implementation on purpose: what is compared with pgrepl must not run pgrepl's code.
Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Iterator
from typing import Final

PROTOCOL_VERSION: Final = 0x00030000

FRAME_HEADER: Final = 5
XLOGDATA_HEADER: Final = 25

_LENGTH = struct.Struct("!i")


class WireError(Exception):
    """The peer did not send what this little client or server understands."""


def frame(tag: bytes, body: bytes = b"") -> bytes:
    """Return a message: tag, a length that counts itself, body."""
    return tag + _LENGTH.pack(len(body) + 4) + body


def cstring(text: str) -> bytes:
    return text.encode() + b"\0"


def frames(stream: bytes | bytearray, start: int = 0) -> Iterator[tuple[int, int]]:
    """Give (start, end) of each whole message in a piece of a stream."""
    size = len(stream)
    while start + FRAME_HEADER <= size:
        end = start + 1 + _LENGTH.unpack_from(stream, start + 1)[0]
        if end > size:
            return
        yield start, end
        start = end


def frame_ends(stream: bytes) -> array[int]:
    """Return the offset behind each message of a stream."""
    return array("Q", (end for _, end in frames(stream)))


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Read so much and not a byte more. Raises `WireError` when the peer has hung up."""
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise WireError(f"expected {size} bytes, got {len(received)}: the peer has hung up")
        received += piece
    return bytes(received)


def receive_frame(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read one message as (tag, body), leaving all that follows it in the socket."""
    header = receive_exactly(connection, FRAME_HEADER)
    return header[:1], receive_exactly(connection, _LENGTH.unpack_from(header, 1)[0] - 4)


class Frontend:
    """A client for servers that trust it. It never reads ahead, so its socket can be taken over."""

    def __init__(self, host: str, port: int, **parameters: str) -> None:
        self.socket = _connected(host, port)
        self.parameters: dict[str, str] = {}
        pairs = b"".join(cstring(name) + cstring(value) for name, value in parameters.items())
        body = _LENGTH.pack(PROTOCOL_VERSION) + pairs + b"\0"
        self.socket.sendall(_LENGTH.pack(len(body) + 4) + body)
        self._read_until(b"Z")

    def __enter__(self) -> Frontend:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def query(self, sql: str) -> None:
        """Run a statement whose rows nobody wants. Raises `WireError` with the server's message."""
        self.socket.sendall(frame(b"Q", cstring(sql)))
        self._read_until(b"Z")

    def start_streaming(self, command: str) -> socket.socket:
        """Send START_REPLICATION; the socket returned is in CopyBoth mode, nothing of it read."""
        self.socket.sendall(frame(b"Q", cstring(command)))
        self._read_until(b"W")
        return self.socket

    def _read_until(self, last: bytes) -> None:
        failure = ""
        while True:
            tag, body = receive_frame(self.socket)
            if tag == b"S":
                name, value = body.decode().split("\0")[:2]
                self.parameters[name] = value
            elif tag == b"R" and body != bytes(4):
                raise WireError("expected a server that trusts us, this one asks for a password")
            elif tag == b"E":
                failure = _message(body)
            if tag == last or (failure and tag in b"ZE" and last != b"Z"):
                break
        if failure:
            raise WireError(f"the server refused: {failure}")


def socket_path(directory: str, port: int) -> str:
    """Return where libpq looks for a server's Unix socket."""
    return f"{directory}/.s.PGSQL.{port}"


def _connected(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(socket_path(host, port))
    return connection


def _message(body: bytes) -> str:
    fields = {field[:1]: field[1:] for field in body.decode(errors="replace").split("\0") if field}
    return f"{fields.get('C', '?????')} {fields.get('M', '')}"
