"""SQL over a replication connection: what a command asks a database, and names in what it prints.

Law: a question means the same in every session. Names are looked up in pg_catalog alone, whatever
the role's search_path, and every name and value that comes from elsewhere is quoted. What is quoted
here can be shown on a terminal and copied from it: a character that does not print is written by
its number, in the forms ``U&"..."`` and ``E'...'``.

Source: PostgreSQL documentation, "Lexical Structure", "Schemas: The System Catalog Schema".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from ..blocking.connection import Connection, connect
from ..conninfo import resolve
from ..errors import Error, ProtocolError, UsageError
from ..protocol.sql import Record, as_json, records
from .failure import CommandFailed
from .interruption import Interrupted
from .printing import printable

__all__ = [
    "Record",
    "Replication",
    "ask",
    "ask_one",
    "cancelled_by_signals",
    "identifier",
    "literal",
    "opened",
    "qualified",
    "session",
]

Replication: TypeAlias = Literal["database", "physical"]

_CANCELLING: Final = 5.0
"""Seconds that the server gets to take note of a command's cancellation."""

# How Python has bytes that are no UTF-8.
_NO_TEXT: Final = re.compile("[\udc80-\udcff]")

_OURS: Final = (
    "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),"
    " pg_catalog.set_config('TimeZone', 'UTC', false)"
)


@contextlib.contextmanager
def cancelled_by_signals(connection: Connection) -> Iterator[None]:
    """A command that may wait for long: who interrupts it does not want it done later either.

    Without being told, the server goes on when the client has left, and makes or drops the slot.
    """
    try:
        yield
    except Interrupted:
        with contextlib.suppress(Error, OSError):
            connection.cancel(_CANCELLING)
        raise


@contextlib.contextmanager
def session(conninfo: str, replication: Replication = "database") -> Iterator[Connection]:
    """A connection for commands; one to a database looks names up in pg_catalog alone.

    Raises what `opened` raises.
    """
    with opened(conninfo, replication) as connection:
        if replication == "database":
            connection.query(_OURS)
        yield connection


def opened(conninfo: str, replication: Replication = "database") -> Connection:
    """Return a connection whose session is as the server and the role have it.

    Raises `CommandFailed` with status 2 for a conninfo that makes no sense, and what
    `pgrepl.connect` raises.
    """
    try:
        resolve(conninfo, {}, replication=replication)
    except UsageError as error:
        raise CommandFailed(str(error), status=2) from None
    return connect(conninfo, replication=replication)


def ask(connection: Connection, query: str) -> list[Record]:
    """Run one SELECT of named columns and return its rows."""
    return records(connection.query(as_json(query)))


def ask_one(connection: Connection, query: str) -> Record:
    """Run a SELECT of one row."""
    records = ask(connection, query)
    if len(records) != 1:
        raise ProtocolError(f"expected one row in the server's answer, got {len(records)}")
    return records[0]


def identifier(name: str) -> str:
    """Quote the name of an object."""
    _refuse_zero(name)
    if name.isprintable() or _NO_TEXT.search(name):  # which no notation has
        return '"' + name.replace('"', '""') + '"'
    escaped = name.replace("\\", r"\\").replace('"', '""')
    return 'U&"' + "".join(map(_numbered, escaped)) + '"'


def qualified(schema: str, name: str) -> str:
    """Quote the name of an object in a schema."""
    return f"{identifier(schema)}.{identifier(name)}"


def literal(value: str) -> str:
    """Quote a value, whatever standard_conforming_strings says."""
    _refuse_zero(value)
    doubled = value.replace("'", "''")
    if doubled.isprintable() and "\\" not in doubled:
        return f"'{doubled}'"
    return "E'" + printable(doubled.replace("\\", r"\\")) + "'"


def _refuse_zero(text: str) -> None:
    if "\0" in text:
        raise UsageError("expected text without zero bytes, which PostgreSQL cannot hold")


def _numbered(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\{code:04x}" if code < 0x10000 else f"\\+{code:06x}"
