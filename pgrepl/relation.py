"""A table as the server describes it, and what its rows lack.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

from .escapes import printable
from .identifiers import quoted
from .public import imported_from

__all__ = [
    "MOST_SHOWN",
    "UNCHANGED",
    "Column",
    "Relation",
    "Selection",
    "Unchanged",
    "all_columns",
    "columns_at",
    "completed",
    "marked_columns",
]

MOST_SHOWN: Final = 24
"""Columns that the repr of a relation, or of a row, tells of; there can be 1600."""


@imported_from("pgrepl")
class Unchanged:
    """The type of `UNCHANGED`, its only instance."""

    __slots__ = ()
    _only: Unchanged | None = None

    def __new__(cls) -> Unchanged:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "UNCHANGED has no truth value: the server did not send this column because the update "
            "left its out-of-line value as it was; compare with `is UNCHANGED`"
        )

    def __reduce__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
"""An out-of-line (TOAST) value that an update left as it was, and that the server did not send."""


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation: `type_modifier` is -1 for none, `is_key` part of the identity.

    `type_name` is what SQL calls the type: ``int8``, ``text[]``, ``public.mood``; None where nobody
    told, see docs/types.md. It makes no difference to whether columns are equal.
    """

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool
    type_name: str | None = field(default=None, kw_only=True, compare=False, repr=False)


class Selection(NamedTuple):
    """Which columns of a relation a row has, in order: all of them, or those of a key."""

    places: tuple[int, ...]  # in the relation
    columns: tuple[Column, ...]
    positions: dict[str, int]  # in the row, by name


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True, repr=False)
class Relation:
    """A table as the server describes it before its first change, and again after DDL.

    `replica_identity` is ``d`` (primary key), ``n`` (nothing), ``f`` (full row) or ``i`` (an
    index). `xid` tells where a description came from and not what it says, so that two relations
    that differ in nothing else are equal.
    """

    oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]
    xid: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        # Its own, whatever becomes of a list that came: rows rely upon how many there are.
        object.__setattr__(self, "columns", tuple(self.columns))
        for column in self.columns:
            if not isinstance(column, Column):
                raise TypeError(f"expected columns, got {type(column).__name__}")

    def __repr__(self) -> str:
        names = [printable(c.name) + "*" * c.is_key for c in self.columns[:MOST_SHOWN]]
        left = len(self.columns) - len(names)
        columns = ", ".join(names) + (f" and {left} more" if left else "")
        xid = "" if self.xid is None else f" xid={self.xid}"
        return (
            f"<Relation {printable(self.schema)}.{printable(self.name)} ({columns}) oid={self.oid} "
            f"replica_identity={self.replica_identity}{xid}>"
        )

    @property
    def full_name(self) -> str:
        """Schema and name as SQL reads them, each quoted where it has to be: ``public."Item"``."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The columns that are marked as the replica identity, in the order of the table."""
        return tuple([column for column in self.columns if column.is_key])


def all_columns(relation: Relation) -> Selection:
    """Return all columns of a relation, as its whole rows have them."""
    return _selected(relation, tuple(range(len(relation.columns))))


def marked_columns(relation: Relation) -> Selection:
    """Return the columns that a relation marks as the key, as key-only rows have them."""
    return _selected(relation, tuple([i for i, c in enumerate(relation.columns) if c.is_key]))


def columns_at(relation: Relation, places: Iterable[int]) -> Selection:
    """Return the columns at some places, as a row has them; `ValueError` for what is none."""
    chosen, count = tuple(places), len(relation.columns)
    if chosen != tuple(sorted({*chosen} & {*range(count)})):
        raise ValueError(
            f"expected places of columns in their order, each below {count}, got {chosen!r:.100}"
        )
    return _selected(relation, chosen)


def _selected(relation: Relation, places: tuple[int, ...]) -> Selection:
    every = relation.columns
    columns = every if len(places) == len(every) else tuple([every[place] for place in places])
    # Backwards, so that of two equal names, which only a broken server sends, the first counts.
    positions = {columns[i].name: i for i in reversed(range(len(columns)))}
    return Selection(places, columns, positions)


def completed(relation: Relation, row: Any, other: Any) -> Any:
    """Return a `Row` with those unchanged values that another one has; `other` may be None."""
    if other is None:
        return row
    at = {place: position for position, place in enumerate(other.places)}
    found = {}
    for position, place in enumerate(row.places):
        if place in at and _is_unchanged(row, position):
            # What is stored out of line is not NULL: then the other one does not know either.
            value = other[at[place]]
            if value is not None and value is not UNCHANGED:
                found[position] = value
    if not found:
        return row
    values = [found.get(position, value) for position, value in enumerate(row)]
    return type(row)(relation, values, False, row.places, row.lsn)


def _is_unchanged(row: Any, position: int) -> bool:
    """Whether a value was not sent, by a look at what was: the value itself may be at fault."""
    try:
        return row.raw(position) is UNCHANGED
    except ValueError:  # the row was made from values
        return row[position] is UNCHANGED
