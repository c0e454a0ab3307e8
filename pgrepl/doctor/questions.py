"""The examination's questions: SELECTs, and an answer to each, whoever waits for it.

Law: it only looks, and a question means the same in every session: names are looked up in
pg_catalog alone while it is answered, whatever the search_path, which is as it was afterwards.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, TypeAlias, TypeVar

from ..errors import ServerError, UsageError
from ..protocol.conversation import Steps
from ..protocol.query import Result
from ..protocol.sql import Record, as_json, literal, only_record, records

__all__ = ["Questions", "ask", "ask_one", "in_catalogue"]

_Outcome = TypeVar("_Outcome")
Questions: TypeAlias = Generator[str, list[Result], _Outcome]
"""Yields SQL, is sent its results, returns what was wanted."""

_NO_SQL: Final = "0A000"
_SESSIONS: Final = (
    "SELECT pg_catalog.current_setting('search_path') AS search_path,"
    " pg_catalog.current_setting('TimeZone') AS timezone"
)


def ask(query: str) -> Questions[list[Record]]:
    """Ask one SELECT of named columns."""
    results = yield as_json(query)
    return records(results)


def ask_one(query: str) -> Questions[Record]:
    """Ask a SELECT of one row."""
    found = yield from ask(query)
    return only_record(found)


def in_catalogue(questions: Questions[_Outcome]) -> Questions[_Outcome]:
    """Ask questions with settings of their own.

    They are for the message alone, which is a transaction; where a transaction is open already, for
    that one, so they are set back as well. Raises `UsageError` on a connection that has no SQL.
    """
    try:
        sessions = yield from ask_one(_SESSIONS)
    except ServerError as error:
        if error.sqlstate != _NO_SQL:
            raise
        raise UsageError(
            "expected a connection to a database: a server is examined by SQL, which one with "
            'replication="physical" does not have'
        ) from error
    ours = _set("pg_catalog, pg_temp", "UTC")
    back = _set(sessions.get("search_path", str), sessions.get("timezone", str))
    steps = Steps(questions)
    while steps.request is not None:
        results = yield "; ".join((ours, steps.request, back))
        steps.answer(results[1:-1])
    return steps.result


def _set(search_path: str, timezone: str) -> str:
    return (
        f"SELECT pg_catalog.set_config('search_path', {literal(search_path)}, true),"
        f" pg_catalog.set_config('TimeZone', {literal(timezone)}, true)"
    )
