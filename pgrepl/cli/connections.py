"""The connections of a command: opened, asked one question, cancelled by a signal.

Law: a question means the same in every session, whatever the role's search_path: who asks names
tables, functions, types and operators with their schema, and quotes values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from ..blocking.connection import Connection, connect
from ..conninfo import resolve
from ..errors import Error, UsageError
from ..protocol.sql import Record, as_json, only_record, records
from .failure import CommandFailed
from .interruption import Interrupted

__all__ = ["Replication", "ask", "ask_one", "cancelled_by_signals", "opened"]

Replication: TypeAlias = Literal["database", "physical"]

_CANCELLING: Final = 5.0
"""Seconds that the server gets to take note of a command's cancellation."""


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


def opened(conninfo: str, replication: Replication = "database") -> Connection:
    """Return a connection, to be used in a `with`.

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
    return only_record(ask(connection, query))
