"""A stream told in readable lines, with large transactions and long values cut short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...messages import Begin, Commit, LogicalMessage, Relation, StreamAbort, Type
from ..stream.formats import TextFormat

__all__ = ["Entry", "Transcript"]


class Entry(NamedTuple):
    """A line, and the kind of message that it tells of: ``begin``, ``insert``, or ``omission``."""

    kind: str
    line: str


class Transcript:
    """Tells the first `shown` changes of a transaction, and how many there were besides."""

    def __init__(self, shown: int, longest_value: int) -> None:
        self._form = TextFormat(longest_value)
        self._shown = shown
        self._changes = 0

    def tell(self, message: LogicalMessage, lsn: int) -> Iterator[Entry]:
        """Yield the lines of a message, none or more."""
        remark = ""
        match message:
            case Begin():
                self._changes = 0
            case Commit():
                if self._changes > self._shown:
                    yield Entry("omission", f"… and {self._changes - self._shown:,} more")
                remark = f" ({self._changes:,} change{'s' * (self._changes != 1)})"
            case Relation() | Type() | StreamAbort():
                # The last one PostgreSQL 18 sends of a large transaction that it never sent.
                return
            case _:
                self._changes += 1
                if self._changes > self._shown:
                    return
        yield Entry(type(message).__name__.lower(), f"{self._form.line(message, lsn)}{remark}")
