"""`examine`, blocking and for asyncio: here the connection is asked."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..blocking.connection import Connection
from ..client.connection import BaseConnection
from ..errors import UsageError
from ..protocol.conversation import Steps
from ..public import imported_from
from ..transport.clock import Deadline
from .examination import examination
from .finding import Finding
from .questions import Questions, in_catalogue

if TYPE_CHECKING:
    from ..aio.connection import AsyncConnection
else:
    # A program that blocks has no use for asyncio: to who asks for the types of arguments when it
    # runs, what both flavours are.
    AsyncConnection = BaseConnection

__all__ = ["answered", "examine"]

_Outcome = TypeVar("_Outcome")


@overload
def examine(
    connection: Connection,
    publications: Iterable[str] = (),
    slot: str | None = None,
    *,
    timeout: float | None = None,
) -> list[Finding]: ...
@overload
def examine(
    connection: AsyncConnection,
    publications: Iterable[str] = (),
    slot: str | None = None,
    *,
    timeout: float | None = None,
) -> Coroutine[Any, Any, list[Finding]]: ...
@imported_from("pgrepl.doctor")
def examine(
    connection: Connection | AsyncConnection,
    publications: Iterable[str] = (),
    slot: str | None = None,
    *,
    timeout: float | None = None,
) -> list[Finding] | Coroutine[Any, Any, list[Finding]]:
    """Examine whether a server and a database are ready for logical replication.

    With an `AsyncConnection` it is awaited. The connection is one to a database that takes
    commands, made as the consumer makes its own; it is only asked, in a handful of SELECTs, changes
    nothing and can be used on. It takes a WAL sender while it is open.

    `publications`: those of the stream to be, all of the database where none is named. `slot`: that
    of the stream to be; whether named or not, all slots are looked at for what they cost.
    `timeout`: seconds for the whole examination, None for no limit.

    Returns a `Finding` for everything that was looked at, those that are fine included: settings,
    then publications and their tables, then slots.

    Raises `UsageError` for a connection that streams, is closed, or has no SQL since it is a
    physical one; `TimeoutError`, after which the connection can be used on; and what
    `Connection.query` raises: a `ServerError` with SQLSTATE 25P02 in a transaction that has failed.
    """
    if isinstance(publications, str):
        raise UsageError(
            f"expected several publication names, got the text {publications!r}; "
            f"use [{publications!r}]"
        )
    if not isinstance(connection, BaseConnection):
        raise UsageError(
            f"expected a connection of pgrepl, got {type(connection).__name__}: make one with "
            "pgrepl.connect()"
        )
    names = tuple(publications)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"expected the names of publications, got {names!r:.100}")
    if not isinstance(slot, str | None):
        raise UsageError(f"expected the name of a slot, or None, got {slot!r:.100}")
    questions = examination(
        connection.server_version,
        connection.parameters.get("server_version", "of unknown version"),
        names,
        slot,
    )
    if isinstance(connection, Connection):
        return answered(connection, questions, timeout)
    return _answered_async(connection, questions, timeout)


def answered(
    connection: Connection, questions: Questions[_Outcome], timeout: float | None = None
) -> _Outcome:
    """Have a server answer questions; return what they come to."""
    deadline = Deadline.after(timeout)
    steps = Steps(in_catalogue(questions))
    return steps.run(lambda sql: connection.query(sql, deadline.left()))


async def _answered_async(
    connection: AsyncConnection, questions: Questions[_Outcome], timeout: float | None
) -> _Outcome:
    deadline = Deadline.after(timeout)
    steps = Steps(in_catalogue(questions))
    return await steps.run_async(lambda sql: connection.query(sql, deadline.left()))
