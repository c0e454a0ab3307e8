"""What libpq makes of a conninfo: the one that comes with psycopg, asked without a server.

Law: nothing here uses pgrepl. Connections are to sockets that do not exist, to a port where nothing
listens, and to a socket of our own that never answers.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

__all__ = ["VERSION", "Opinion", "defaults", "opinion", "parsed", "startup_parameters"]

VERSION = pq.version()
"""As in 180006."""


def parsed(conninfo: str) -> dict[str, str] | None:
    """What a conninfo says, None where it is refused."""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        return None


def defaults() -> dict[str, tuple[str | None, str | None]]:
    """Each keyword's variable and the default that is built in."""
    return {
        option.keyword.decode(): (
            option.envvar.decode() if option.envvar else None,
            None if option.compiled is None else option.compiled.decode(),
        )
        for option in pq.Conninfo.get_defaults()
    }


@dataclass(frozen=True)
class Opinion:
    """What became of an attempt to connect: the reason for which the conninfo was refused, or
    None, the values of its keywords by then, and the password for the last server tried."""

    refused: str | None
    values: Mapping[str, str]
    password: str


def opinion(conninfo: str, *, waits: bool = False) -> Opinion:
    """Have libpq connect with a conninfo, where nothing listens.

    Some values are looked at only by who `waits` for a connection.
    """
    connect = pq.PGconn.connect if waits else pq.PGconn.connect_start
    connection = connect(conninfo.encode("utf-8", "surrogateescape"))
    try:
        message = connection.error_message.decode("utf-8", "replace").strip()
        is_refused = connection.status == pq.ConnStatus.BAD and (
            not message.startswith("connection to server") or "invalid" in message
        )
        values = {
            option.keyword.decode(): option.val.decode("utf-8", "surrogateescape")
            for option in connection.info
            if option.val is not None
        }
        password = connection.password.decode("utf-8", "surrogateescape")
        return Opinion(message if is_refused else None, values, password)
    finally:
        connection.finish()


def startup_parameters(conninfo: str, folder: Path) -> dict[str, str]:
    """What a server whose Unix socket is in this folder would be told at first."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / ".s.PGSQL.1"))
        listening.listen()
        try:
            connection = pq.PGconn.connect_start(f"host={folder} port=1 {conninfo}".encode())
            with listening.accept()[0] as accepted:
                while not select.select([accepted], [], [], 0)[0]:
                    assert connection.connect_poll() != pq.PollingStatus.FAILED, connection
                said = accepted.recv(20_000)
            connection.finish()
        finally:
            (folder / ".s.PGSQL.1").unlink()
    length, _version = struct.unpack_from("!ii", said)
    assert length == len(said)
    words = [each.decode("utf-8", "surrogateescape") for each in said[8:].split(b"\0")[:-2]]
    return dict(zip(words[::2], words[1::2], strict=True))
