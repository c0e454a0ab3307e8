"""SQL over a replication connection: what a command asks a database, and names in what it prints.

Law: a question means the same in every session. Names are looked up in pg_catalog alone, whatever
the role's search_path, and every name and value that comes from elsewhere is quoted. What is quoted
here can be shown on a terminal and copied from it: a character that does not print is written by
its number, in the forms ``U&"..."`` and ``E'...'``.

Source: PostgreSQL documentation, "Lexical Structure", "Schemas: The System Catalog Schema".
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias, TypeVar

from ..connection import Connection, connect
from ..conninfo import resolve
from ..errors import Error, ProtocolError, UsageError
from ..lsn import Lsn
from .failure import CommandFailed
from .interruption import Interrupted
from .printing import printable

__all__ = [
    "DUPLICATE_OBJECT",
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

DUPLICATE_OBJECT: Final = "42710"
"""The SQLSTATE of a slot that is there already, among other things."""

_CANCELLING: Final = 5.0
"""Seconds that the server gets to take note of a command's cancellation."""

_Value = TypeVar("_Value")

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


class Record:
    """A row of an answer, whose values are read as what they must be, or `ProtocolError`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def find(self, name: str, kind: type[_Value]) -> _Value | None:
        """Return a value that may be NULL."""
        value = self._values.get(name)
        if value is None:
            return None
        if type(value) is not kind:  # a bool is no int here
            raise ProtocolError(
                f"expected {name} as {kind.__name__} in the server's answer, "
                f"got {type(value).__name__}"
            )
        return value

    def get(self, name: str, kind: type[_Value]) -> _Value:
        """Return a value that is not NULL."""
        value = self.find(name, kind)
        if value is None:
            raise ProtocolError(f"expected {name} in the server's answer, got NULL")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of texts; NULL is an empty one."""
        values: list[Any] = self.find(name, list) or []
        if not all(isinstance(value, str) for value in values):
            raise ProtocolError(f"expected an array of texts {name} in the server's answer")
        return tuple(values)

    def lsn(self, name: str) -> Lsn | None:
        """Return a position that may be NULL."""
        text = self.find(name, str)
        try:
            return None if text is None else Lsn(text)
        except ValueError:
            raise ProtocolError(
                f"expected an LSN as {name} in the server's answer, got {text!r:.40}"
            ) from None


def ask(connection: Connection, query: str) -> list[Record]:
    """Run one SELECT of named columns and return its rows.

    The server writes them as JSON, so that numbers, truth values, arrays and NULL come as such.
    """
    sql = f"SELECT pg_catalog.row_to_json(answer) FROM ({query}) AS answer"
    return [_record(row) for result in connection.query(sql) for row in result.rows]


def ask_one(connection: Connection, query: str) -> Record:
    """Run a SELECT of one row."""
    records = ask(connection, query)
    if len(records) != 1:
        raise ProtocolError(f"expected one row in the server's answer, got {len(records)}")
    return records[0]


def _record(row: tuple[str | None, ...]) -> Record:
    try:
        values = json.loads(row[0] or "") if len(row) == 1 else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ProtocolError(f"expected one JSON object for each row, got {row!r:.80}")
    return Record(values)


def identifier(name: str) -> str:
    """Quote the name of an object."""
    _refuse_zero(name)
    if name.isprintable():
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
