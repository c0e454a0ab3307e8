"""The clients that are measured: ``python -m benchmarks.clients NAME MESSAGES HOST PORT SIZE``.

A client connects to the replay server, asks for MESSAGES, which are SIZE bytes, does one
kind of work with each, and sees to it that all of them came. What does not cost a turn of its
loop, to import and to connect, it does for 0 messages as well, and whoever measures takes it off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import loops
from .replay import END_OF_STREAM, SLOT_PREFIX
from .wire import Frontend, frame

if TYPE_CHECKING:
    from pgrepl.codec.abc import XLogData

_BUFFER_SIZE: Final = 65536


class Server(NamedTuple):
    """The replay server's address, or the folder of its Unix socket, and its port."""

    host: str
    port: int


class ClientError(Exception):
    """Not every message came, so that what was measured means nothing."""


def _command(messages: int) -> str:
    options = "proto_version '1', publication_names 'reference'"
    return f'START_REPLICATION SLOT "{SLOT_PREFIX}{messages}" LOGICAL 0/0 ({options})'


def _check(what: str, expected: int, got: int) -> None:
    if got != expected:
        raise ClientError(f"expected {expected} {what}, got {got}")


# The floor: what the kernel takes for bringing the bytes.


def bare_recv(server: Server, messages: int, size: int) -> None:
    """Read everything into one buffer and look at nothing."""
    parameters = {"user": "postgres", "database": "postgres", "replication": "database"}
    with Frontend(server.host, server.port, **parameters) as frontend:
        connection = frontend.start_streaming(_command(messages))
        # Said beforehand, so that the server hangs up as soon as it has sent everything.
        connection.sendall(frame(b"c") + frame(b"X"))
        buffer = bytearray(_BUFFER_SIZE)
        received = 0
        while count := connection.recv_into(buffer):
            received += count
    if received < size:
        raise ClientError(f"expected at least {size} bytes, got {received}")


# pgrepl


def _connect(server: Server, messages: int) -> Any:
    import pgrepl

    connection = pgrepl.connect(
        host=server.host, port=server.port, user="postgres", dbname="postgres", sslmode="disable"
    )
    connection.start_streaming(_command(messages))
    return connection


def _per_batch(work: Callable[[Iterable[XLogData]], None]) -> Callable[[Server, int, int], None]:
    """Return the client that does this work with the XLogData of each batch."""

    def client(server: Server, messages: int, size: int) -> None:
        connection = _connect(server, messages)
        received = 0
        while batch := connection.receive_wal_messages():
            received += len(batch.wal_start)
            work(loops.xlogdata_of(batch))
        connection.disconnect()
        _check("messages", messages, received)

    return client


def columns(server: Server, messages: int, size: int) -> None:
    """Look at each batch's columns, and at none of its messages."""
    connection = _connect(server, messages)
    received = 0
    while batch := connection.receive_wal_messages():
        _ = batch.wal_end
        _ = batch.server_time
        received += len(batch.wal_start)
    connection.disconnect()
    _check("messages", messages, received)


def headers_checked(server: Server, messages: int, size: int) -> None:
    """Read the headers, asking of each message whether it is a keepalive."""
    from pgrepl import XLogData

    connection = _connect(server, messages)
    received = 0
    while batch := connection.receive_wal_messages():
        for message in batch:
            if isinstance(message, XLogData):
                _ = message.wal_start
                _ = message.wal_end
                _ = message.server_time
        received += len(batch.wal_start)
    connection.disconnect()
    _check("messages", messages, received)


def one_at_a_time(server: Server, messages: int, size: int) -> None:
    """Ask for one message after the other."""
    connection = _connect(server, messages)
    last = message = None
    while (message := connection.receive_wal_message()) is not None:
        last = message
    connection.disconnect()
    _check("as the last position", END_OF_STREAM, -1 if last is None else last.wal_end)


# psycopg2. Its loop does not end where the stream does, but when the server hangs up.


def _consume(callback: Callable[[Any], object]) -> Callable[[Server, int, int], None]:
    def client(server: Server, messages: int, size: int) -> None:
        import psycopg2
        from psycopg2.extras import LogicalReplicationConnection

        connection = psycopg2.connect(
            host=server.host,
            port=server.port,
            user="postgres",
            dbname="postgres",
            sslmode="disable",
            connection_factory=LogicalReplicationConnection,
        )
        cursor = connection.cursor()
        cursor.start_replication_expert(_command(messages), decode=False)
        try:
            cursor.consume_stream(callback)
        except psycopg2.Error as error:
            # The position tells this end from one in the middle.
            if cursor.wal_end != END_OF_STREAM:
                raise ClientError(f"expected a whole stream, psycopg2 says: {error}") from error
        connection.close()

    return client


def _nothing(message: Any) -> None:
    pass


def _psycopg2_positions(message: Any) -> None:
    _ = message.data_start
    _ = message.wal_end


def _psycopg2_headers(message: Any) -> None:
    _ = message.data_start
    _ = message.wal_end
    _ = message.send_time


def _psycopg2_everything(message: Any) -> None:
    _ = message.data_start
    _ = message.wal_end
    _ = message.send_time
    _ = message.payload


def _psycopg2_payload(message: Any) -> None:
    _ = message.payload


CLIENTS: Final[dict[str, Callable[[Server, int, int], None]]] = {
    "bare-recv": bare_recv,
    "pgrepl-columns": columns,
    "pgrepl-iterate": _per_batch(loops.iterate),
    "pgrepl-positions": _per_batch(loops.read_positions),
    "pgrepl-headers": _per_batch(loops.read_headers),
    "pgrepl-headers-checked": headers_checked,
    "pgrepl-everything": _per_batch(loops.read_everything),
    "pgrepl-payload": _per_batch(loops.read_payload),
    "pgrepl-payload-bytes": _per_batch(loops.copy_payload),
    "pgrepl-one": one_at_a_time,
    "psycopg2-iterate": _consume(_nothing),
    "psycopg2-positions": _consume(_psycopg2_positions),
    "psycopg2-headers": _consume(_psycopg2_headers),
    "psycopg2-everything": _consume(_psycopg2_everything),
    "psycopg2-payload": _consume(_psycopg2_payload),
}


def main() -> None:
    name, messages, host, port, size = sys.argv[1:]
    CLIENTS[name](Server(host, int(port)), int(messages), int(size))


if __name__ == "__main__":
    main()
