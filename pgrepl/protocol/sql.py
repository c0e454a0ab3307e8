"""SQL over a connection to a database: one SELECT, and its rows read as what they must be.

Law: a question means the same in every session. Whoever asks names tables, functions, types and
operators with their schema, since the search_path is the application's; values are quoted.

Source: PostgreSQL documentation, "Lexical Structure", "JSON Functions and Operators".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import ProtocolError
from ..lsn import Lsn
from .backend import ServerState
from .conversation import Conversation
from .query import MOST_BYTES, Result, simple_query
from .quoting import literal as plain_literal

__all__ = ["Record", "as_json", "ask", "literal", "only_record", "records"]

_Value = TypeVar("_Value")


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


def as_json(query: str) -> str:
    """Return SQL that has the server write the rows of a SELECT of named columns as JSON, so that
    numbers, truth values, arrays and NULL come as such."""
    return f"SELECT pg_catalog.row_to_json(answer) FROM ({query}) AS answer"


def records(results: Iterable[Result]) -> list[Record]:
    """Return the rows of an answer to `as_json`."""
    return [_record(row) for result in results for row in result.rows]


def only_record(found: Sequence[Record]) -> Record:
    """Return the row of an answer that has one."""
    if len(found) != 1:
        raise ProtocolError(f"expected one row in the server's answer, got {len(found)}")
    return found[0]


def _record(row: tuple[str | None, ...]) -> Record:
    try:
        values = json.loads(row[0] or "") if len(row) == 1 else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ProtocolError(f"expected one JSON object for each row, got {row!r:.80}")
    return Record(values)


def ask(state: ServerState, query: str) -> Conversation[list[Record]]:
    """Run one SELECT of named columns. Raises `ServerError`."""
    results = yield from simple_query(state, as_json(query), MOST_BYTES)
    return records(results)


def literal(value: str) -> str:
    """Quote a value, where a setting says what a backslash means unless it is doubled."""
    quoted = plain_literal(value)
    return "E" + quoted.replace("\\", "\\\\") if "\\" in value else quoted
