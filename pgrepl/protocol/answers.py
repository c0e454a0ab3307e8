"""What a command answered, read strictly: rows of a known shape, numbers, positions.

Whatever is not as PostgreSQL answers is a `ProtocolError`, which says what was expected and shows
the beginning of what came.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from ..errors import ProtocolError
from ..lsn import Lsn
from .backend import ServerState
from .conversation import Conversation
from .query import MOST_BYTES, Result, simple_query

__all__ = ["Row", "lsn", "number", "only_row", "single_row", "text", "timeline"]

Row: TypeAlias = tuple[str | None, ...]

_MAX_TIMELINE: Final = 0xFFFFFFFF


def single_row(state: ServerState, command: str, columns: int) -> Conversation[Row]:
    """Run a command that answers with one row."""
    results = yield from simple_query(state, command, MOST_BYTES)
    return only_row(results, columns, command.split()[0])


def only_row(results: list[Result], columns: int, command: str) -> Row:
    """Return the one row that the results of a command have together."""
    rows = [row for result in results for row in result.rows]
    if len(rows) != 1 or len(rows[0]) != columns:
        shapes = [len(row) for row in rows]
        raise ProtocolError(
            f"expected one row of {columns} columns in answer to {command}, "
            f"got {len(rows)} rows of {shapes[:3]} columns"
        )
    return rows[0]


def text(value: str | None) -> str:
    """Return a value that is not NULL."""
    if value is None:
        raise ProtocolError("expected text in the server's answer, got NULL")
    return value


def number(value: str | None) -> int:
    """Return a number of 0 or more."""
    digits = text(value)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise ProtocolError(f"expected a number in the server's answer, got {digits[:40]!r}")
    return int(digits)


def timeline(value: str | None) -> int:
    """Return the number of a timeline."""
    found = number(value)
    if not 1 <= found <= _MAX_TIMELINE:
        raise ProtocolError(
            f"expected a timeline from 1 to {_MAX_TIMELINE} in the server's answer, got {found}"
        )
    return found


def lsn(value: str | None) -> Lsn:
    """Return a position."""
    position = text(value)
    try:
        return Lsn(position)
    except ValueError as error:
        raise ProtocolError(
            f"expected an LSN in the server's answer, got {position[:40]!r}"
        ) from error
