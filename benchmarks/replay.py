"""The replay server: pours a captured stream from memory, as fast as the socket takes it.

Run as ``python -m benchmarks.replay CAPTURE HOST``; HOST is an address, or a folder for a Unix
socket. It prints its port and serves one connection after the other until it is stopped. It speaks
as much of the backend's side as libpq, psycopg2, pg_recvlogical and pgrepl ask for, what pgrepl
looks up before a decoded stream included, lets everybody in, and takes the number of messages from
the slot's name: ``START_REPLICATION SLOT "messages_2000000" ...``.

The end of a stream is a keepalive at `END_OF_STREAM`, which stops a pg_recvlogical that was given
that ``--endpos``, and then the server's CopyDone. A client that answers with its own gets the two
CommandComplete and ReadyForQuery, and may go on; the connection of one that keeps silent is closed
after a moment.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Final, NamedTuple

from .capture import Capture, load
from .wire import FRAME_HEADER, WireError, cstring, frame, frames, receive_exactly, socket_path

END_OF_STREAM: Final = 0xFFFFFFFF_FFFFFFFF
SLOT_PREFIX: Final = "messages_"

_SSL_REQUEST: Final = 80877103
_GSSENC_REQUEST: Final = 80877104
_CANCEL_REQUEST: Final = 80877102

# One send call's share: large against the cost of the call, small against the memory of a machine.
_PIECE: Final = 4 << 20

# How long a client may take to answer the server's CopyDone; psycopg2 never does.
_PATIENCE: Final = 0.25

_TEXT_OID: Final = 25
_UNIX_PORT: Final = 5432
_READY: Final = frame(b"Z", b"I")

_SETTINGS: Final = {
    "application_name": "",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "default_transaction_read_only": "off",
    "in_hot_standby": "off",
    "integer_datetimes": "on",
    "IntervalStyle": "postgres",
    "is_superuser": "on",
    "server_encoding": "UTF8",
    "session_authorization": "postgres",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}

_END: Final = f"{END_OF_STREAM >> 32:X}/{END_OF_STREAM & 0xFFFFFFFF:X}"

# As pg_replication_slots shows it; what is not here is NULL.
_SLOT: Final = {
    "plugin": "pgoutput",
    "slot_type": "logical",
    "database": "postgres",
    "temporary": "f",
    "restart_lsn": "0/1",
    "confirmed_flush_lsn": "0/1",
    "wal_status": "reserved",
    "two_phase": "f",
    "conflicting": "f",
    "failover": "f",
    "synced": "f",
}

# How many columns the question for the database's own types has; there are none of those.
_TYPE_COLUMNS: Final = tuple(f"type {number}" for number in range(13))


class _Answer(NamedTuple):
    """What a statement gives: the row's columns, all of them text, and the command's tag.

    A query whose row nobody gets has columns all the same.
    """

    columns: dict[str, str | None]
    tag: str
    has_row: bool = True

    def encode(self) -> bytes:
        description = struct.pack("!h", len(self.columns)) + b"".join(
            cstring(name) + struct.pack("!ihihih", 0, 0, _TEXT_OID, -1, -1, 0)
            for name in self.columns
        )
        row = struct.pack("!h", len(self.columns)) + b"".join(
            struct.pack("!i", -1)
            if value is None
            else struct.pack("!i", len(value.encode())) + value.encode()
            for value in self.columns.values()
        )
        rows = frame(b"T", description) if self.columns else b""
        if self.columns and self.has_row:
            rows += frame(b"D", row)
        return rows + frame(b"C", cstring(self.tag))


class _Client:
    """One connection; what the client sends while we pour is collected, never waited for."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._inbox = bytearray()

    def send(self, data: bytes | memoryview) -> None:
        self.connection.sendall(data)

    def collect(self) -> None:
        """Take what has arrived, so that a client's status messages never fill its socket."""
        with contextlib.suppress(BlockingIOError):
            self._inbox += self.connection.recv(65536, socket.MSG_DONTWAIT)

    def receive(self, patience: float | None = None) -> tuple[bytes, bytes] | None:
        """Return the next message as (tag, body), or None when the client has gone or is silent."""
        self.connection.settimeout(patience)
        try:
            while not (whole := next(frames(self._inbox), None)):
                piece = self.connection.recv(65536)
                if not piece:
                    return None
                self._inbox += piece
        except TimeoutError:
            return None
        finally:
            self.connection.settimeout(None)
        start, end = whole
        message = bytes(self._inbox[:1]), bytes(self._inbox[start + FRAME_HEADER : end])
        del self._inbox[:end]
        return message


class Replay:
    """Serves one capture."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._settings = _SETTINGS | {"server_version": capture.info.server_version}

    def serve(self, connection: socket.socket) -> None:
        """Hold one session, from the startup packet until either side hangs up."""
        if not _receive_startup(connection):
            return
        client = _Client(connection)
        client.send(
            frame(b"R", bytes(4))
            + b"".join(frame(b"S", cstring(n) + cstring(v)) for n, v in self._settings.items())
            + frame(b"K", bytes(8))
            + _READY
        )
        while (message := client.receive()) and message[0] != b"X":
            tag, body = message
            if tag != b"Q":
                continue
            sql = body[:-1].decode()
            if sql.startswith("START_REPLICATION"):
                if not self._stream_to(client, sql):
                    return
            else:
                answers = self._answers(sql)
                client.send(b"".join(answer.encode() for answer in answers) + _READY)

    def _answers(self, sql: str) -> list[_Answer]:
        if "pg_catalog.pg_replication_slots" in sql:
            return _before_stream(sql)
        if "pg_catalog.pg_type" in sql:
            return [_Answer(dict.fromkeys(_TYPE_COLUMNS), "SELECT 0", has_row=False)]
        return [self._answer(sql)]

    def _answer(self, sql: str) -> _Answer:
        command = sql.split(maxsplit=1)[0].rstrip(";")
        columns: dict[str, str | None] = {}
        if command == "IDENTIFY_SYSTEM":
            columns = {"systemid": "1", "timeline": "1", "xlogpos": _END, "dbname": "postgres"}
        elif command == "CREATE_REPLICATION_SLOT":
            columns = {
                "slot_name": sql.split()[1].strip('"'),
                "consistent_point": "0/1",
                "snapshot_name": None,
                "output_plugin": "pgoutput",
            }
        elif command == "SHOW":
            name = sql.split()[1].rstrip(";")
            columns = {name: self._settings.get(name, "0")}
        elif command == "SELECT":
            columns = {"set_config": ""}
        return _Answer(columns, command)

    def _stream_to(self, client: _Client, command: str) -> bool:
        """Pour so many messages as the slot's name says; False when the connection is over."""
        wanted = re.search(rf'SLOT "?{SLOT_PREFIX}(\d+)"?\s', command)
        if wanted is None:
            raise WireError(f"expected a slot named {SLOT_PREFIX}<number>: {command}")
        client.send(frame(b"W", b"\0\0\0"))
        for piece in self._capture.pieces(int(wanted[1]), _PIECE):
            client.send(piece)
            client.collect()
        keepalive = struct.pack("!cQqB", b"k", END_OF_STREAM, 0, 0)
        client.send(frame(b"d", keepalive) + frame(b"c"))
        while message := client.receive(_PATIENCE):
            if message[0] == b"c":
                tags = ("COPY 0", "START_REPLICATION")
                client.send(b"".join(frame(b"C", cstring(tag)) for tag in tags) + _READY)
                return True
        return False


def _before_stream(sql: str) -> list[_Answer]:
    """Answer what pgrepl asks before it streams, all in one: the slot, a publication if it is to be
    decoded, a setting.

    The slot is what a stream needs: it has everything from the beginning, and nobody holds it.
    """
    slots, _, _ = sql.partition(" FROM ")
    names = slots.removeprefix("SELECT ").split(", ")
    slot_name, publication = (
        re.search(pattern, sql) for pattern in (rf"'({SLOT_PREFIX}\d+)'", r"ARRAY\['(\w+)'\]")
    )
    if slot_name is None:
        raise WireError(f"expected to be asked for a slot: {sql}")
    known = {**_SLOT, "slot_name": slot_name[1]}
    slot = {f"{place} {name}": known.get(name) for place, name in enumerate(names)}
    return [
        _Answer(slot, "SELECT 1"),
        _Answer({"pubname": publication and publication[1]}, "SELECT", publication is not None),
        _Answer({"setting": "0"}, "SELECT 1"),
    ]


def _receive_startup(connection: socket.socket) -> bool:
    """Read up to the startup packet, declining encryption; False when there is none to come."""
    while True:
        size, code = struct.unpack("!ii", receive_exactly(connection, 8))
        if code == _CANCEL_REQUEST:
            return False
        if code not in (_SSL_REQUEST, _GSSENC_REQUEST):
            receive_exactly(connection, size - 8)
            return True
        connection.sendall(b"N")


def _listener(host: str) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_server((host, 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(socket_path(host, _UNIX_PORT))
    listener.listen()
    return listener


def main() -> None:
    path, host = sys.argv[1:]
    replay = Replay(load(Path(path)))
    with _listener(host) as listener:
        print(_UNIX_PORT if host.startswith("/") else listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            # A client that was cut off or that only looked in is no reason to stop serving.
            with connection, contextlib.suppress(OSError, WireError):
                replay.serve(connection)


if __name__ == "__main__":
    main()
