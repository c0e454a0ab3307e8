"""Rows, pure Python: the twin of pgrepl/codec/_native/rows.pyx.

A row keeps the payload that it came in, and makes a value when it is first read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import index as as_int
from typing import Any, Final, NamedTuple, final

from ... import row
from ...lsn import Lsn
from ...relation import (
    UNCHANGED,
    Column,
    Relation,
    Selection,
    all_columns,
    columns_at,
    marked_columns,
)
from ..faults import Fault, RuleFailed, column_of, fault_error, value_of
from ..rows import row_classes, shown, unsent
from .cursor import BINARY, NULL, TEXT
from .values import ValueType

__all__ = ["Layout", "Row", "Sent"]

_UNREAD: Final = object()


class Layout(NamedTuple):
    """A relation, and what its rows share with it."""

    relation: Relation
    types: list[ValueType]  # of its columns
    edition: int  # see `Types`
    whole: Selection
    marked: Selection

    @classmethod
    def of(cls, relation: Relation, types: list[ValueType], edition: int) -> Layout:
        """Return the layout of a relation whose values have these types."""
        return cls(relation, types, edition, all_columns(relation), marked_columns(relation))

    def columns_at(self, places: list[int]) -> Selection:
        """Return the columns at some places, most often those that are marked as the key."""
        return (
            self.marked if self.marked.places == (*places,) else columns_at(self.relation, places)
        )


class Sent(NamedTuple):
    """What came for a row: its columns, as the message's bytes have them; a row is made of it.

    `columns`: kind, start and stop for each column that the row has, with its place in the relation
    before them.
    """

    layout: Layout
    selection: Selection
    data: bytes
    columns: list[tuple[int, int, int, int]]


@final
class Row(row.Row):
    __doc__ = row.Row.__doc__

    __slots__ = ("_made", "_position", "_relation", "_selection", "_sent")

    _relation: Relation
    _selection: Selection
    _sent: Sent | None
    _made: Any  # the values: a tuple of all, or a list with gaps
    _position: int | None

    def __init__(
        self,
        relation: Relation,
        values: Iterable[Any],
        key_only: bool = False,
        places: Iterable[int] | None = None,
        lsn: int | None = None,
    ) -> None:
        if hasattr(self, "_made"):
            raise TypeError("a Row cannot be initialised twice")
        if not isinstance(relation, Relation):
            raise TypeError(f"expected a Relation, got {type(relation).__name__}")
        self._relation = relation
        self._position = None if lsn is None else Lsn(lsn)
        if isinstance(values, Sent):
            self._selection = values.selection
            self._sent = values
            self._made = [_UNREAD] * len(values.columns)
            return
        if places is None:
            selection = marked_columns(relation) if key_only else all_columns(relation)
        else:
            selection = columns_at(relation, places)
        values = tuple(values)
        if len(values) != len(selection.places):
            raise ValueError(f"expected {len(selection.places)} values, got {len(values)}")
        self._selection = selection
        self._sent = None
        self._made = values

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that the row has, in order."""
        return self._selection.columns

    @property
    def places(self) -> tuple[int, ...]:
        """Where these columns are in the relation, counted from 0."""
        return self._selection.places

    @property
    def lsn(self) -> Lsn | None:
        """Where in the WAL the change begins that the row came with; None: nobody said."""
        return None if self._position is None else Lsn(self._position)

    def _at(self, position: int) -> Any:
        """Return the value of a column that the row has."""
        made = self._made
        value = made[position]
        if value is _UNREAD:
            value = self._decode(position)
            # What decodes a user's type may have read the whole row meanwhile.
            if made is self._made:
                made[position] = value
        return value

    def _all(self) -> tuple[Any, ...]:
        if type(self._made) is not tuple:
            self._made = tuple([self._at(i) for i in range(len(self._made))])
        made: tuple[Any, ...] = self._made
        return made

    def _decode(self, position: int) -> Any:
        sent = self._sent
        assert sent is not None
        layout, _, data, columns = sent
        place, kind, start, stop = columns[position]
        failed = None
        try:
            if kind == TEXT:
                return layout.types[place].text(data[start:stop])
            if kind == BINARY:
                return layout.types[place].binary(data[start:stop])
        except UnicodeDecodeError:
            where, fault = column_of(layout.relation, place), Fault.ENCODING
        except ValueError as error:
            where, fault = value_of(layout.relation, place, error), Fault.VALUE
        except RuleFailed as error:
            where, fault = value_of(layout.relation, place, error), Fault.RULE
            failed = error.__cause__
        else:
            return None if kind == NULL else UNCHANGED
        # Not in the handler: the first error, which holds the data, would go along as its context.
        raise fault_error(fault, data[0], start, where=where, lsn=self._position) from failed

    def _position_of(self, key: Any) -> int:
        if isinstance(key, str):
            return self._selection.positions[key]
        position = as_int(key)
        count = len(self)
        if position < 0:
            position += count
        if not 0 <= position < count:
            raise IndexError(f"expected a position below {count}, got {key}")
        return position

    def __getitem__(self, key: int | str | slice) -> Any:
        if isinstance(key, slice):
            return self._all()[key]
        return self._at(self._position_of(key))

    def raw(self, key: int | str) -> Any:
        """Return the bytes that were sent for a column; None for NULL, or `UNCHANGED`."""
        position = self._position_of(key)
        if self._sent is None:
            raise ValueError(unsent)
        _, kind, start, stop = self._sent.columns[position]
        if kind in (TEXT, BINARY):
            return self._sent.data[start:stop]
        return None if kind == NULL else UNCHANGED

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or `default` where the row has no such column."""
        position = self._selection.positions.get(name)
        return default if position is None else self._at(position)

    def values(self) -> tuple[Any, ...]:
        """Return the values, in order."""
        return self._all()

    def to_json(self, default: row.Default = None) -> str:
        """Return the row as a line of typed JSON, an object without what is `UNCHANGED`."""
        from ...json_form import json_line, row_object

        return json_line(row_object(self, default))

    def _of_key(self) -> Row:
        """Return the part of a whole row that its relation marks as the key."""
        sent, marked = self._sent, marked_columns(self._relation)
        if sent is None:
            values = [self._made[place] for place in marked.places]
            return Row(self._relation, values, key_only=True, lsn=self._position)
        columns = [sent.columns[place] for place in marked.places]
        return Row(
            self._relation, Sent(sent.layout, marked, sent.data, columns), lsn=self._position
        )

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._selection.positions

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return self.keys() == other.keys() and self._all() == other._all()

    def __hash__(self) -> int:
        return hash((self.keys(), self._all()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (self._relation, self._all(), False, self._selection.places, self._position)

    def __repr__(self) -> str:
        return shown(self)


row_classes.add(Row)
