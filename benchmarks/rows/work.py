"""What a measured piece of work is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..tables import Table

Loop: TypeAlias = Callable[[Iterable[bytes]], Any]
"""Does the work with each payload, and returns what it made of the last one."""


def _values(made: Sequence[Any], table: Table) -> Sequence[Any]:
    return made


@dataclass(frozen=True, slots=True)
class Work:
    """A way from payloads to rows.

    `start` gets the payload of the Relation, the table and the format, and returns the loop;
    `expected` is what has to be seen in what the loop made of the row with that id, and `seen`
    looks at it.
    """

    start: Callable[[bytes, Table, str], Loop]
    expected: Callable[[Table, int], Sequence[Any]] = Table.values
    seen: Callable[[Any, Table], Sequence[Any]] = _values
