"""Rows, pure Python: the twin of pgrepl/codec/_native/rows.pyx.

A row keeps the payload that it came in, and makes a value when it is first read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import index as as_int
from typing import Any, Final, NamedTuple, final

from ...errors import DecodeError
from ...json_form import Default, json_line, row_object
from ...lsn import Lsn
from ...relation import MOST_SHOWN, UNCHANGED, Column, Relation, Selection, printable
from .. import abc as contract
from ..faults import Fault, RuleFailed, column_of, fault_error, value_of
from .cursor import BINARY, NULL, TEXT
from .cursor import UNCHANGED as NOT_SENT
from .values import ValueType

__all__ = ["Layout", "Row", "Sent", "completed", "row_of", "shown", "unsent"]

_UNREAD: Final = object()
_LONGEST_SHOWN: Final = 100

unsent: Final = "expected a row that was decoded from a message, this one was made from values"


class Layout(NamedTuple):
    """A relation, and what its rows share with it."""

    relation: Relation
    types: list[ValueType]  # of its columns
    edition: int  # see `Types`


class Sent(NamedTuple):
    """What came for a row: its columns, as the message's bytes have them.

    `columns`: kind, start and stop for each column that the row has, with its place in the relation
    before them.
    """

    layout: Layout
    data: bytes
    columns: list[tuple[int, int, int, int]]


@final
class Row:
    __doc__ = contract.Row.__doc__

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
        if places is None:
            selection = relation._key if key_only else relation._whole
        else:
            selection = relation._select(places)
        values = tuple(values)
        if len(values) != len(selection.places):
            raise ValueError(f"expected {len(selection.places)} values, got {len(values)}")
        self._relation = relation
        self._selection = selection
        self._sent = None
        self._position = None if lsn is None else Lsn(lsn)
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
        layout, data, columns = sent
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

    def keys(self) -> tuple[str, ...]:
        """Return the names of the columns, in order."""
        return tuple([column.name for column in self.columns])

    def values(self) -> tuple[Any, ...]:
        """Return the values, in order."""
        return self._all()

    def items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over pairs of name and value, in order."""
        return zip(self.keys(), self._all(), strict=True)

    def asdict(self) -> dict[str, Any]:
        """Return a new dictionary from name to value."""
        return dict(self.items())

    def astuple(self) -> tuple[Any, ...]:
        """Return the values, in order."""
        return self._all()

    def to_json(self, default: Default = None) -> str:
        """Return the row as a line of typed JSON, an object without what is `UNCHANGED`."""
        return json_line(row_object(self, default))

    def _of_key(self) -> Row:
        """Return the part of a whole row that its relation marks as the key."""
        marked = self._relation._key
        row = Row.__new__(Row)
        row._relation = self._relation
        row._selection = marked
        row._position = self._position
        row._made = type(self._made)([self._made[place] for place in marked.places])
        sent = self._sent
        if sent is not None:
            sent = Sent(sent.layout, sent.data, [sent.columns[place] for place in marked.places])
        row._sent = sent
        return row

    def _completed(self, other: Row | None) -> Row:
        """Return the row with those unchanged values that another one of its relation has."""
        return completed(self, self._relation, other)

    def _is_unchanged(self, position: int) -> bool:
        """Whether a value was not sent."""
        if self._sent is None:
            return self._made[position] is UNCHANGED
        return self._sent.columns[position][1] == NOT_SENT

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


def row_of(sent: Sent, selection: Selection, lsn: int | None) -> Row:
    """Make the row of what came for it."""
    row = Row.__new__(Row)
    row._relation = sent.layout.relation
    row._selection = selection
    row._sent = sent
    row._position = lsn
    row._made = [_UNREAD] * len(sent.columns)
    return row


def completed(row: Row, relation: Relation, other: Row | None) -> Row:
    """Return a row of either twin with the unchanged values that another one has."""
    if other is None:
        return row
    at = {place: position for position, place in enumerate(other.places)}
    found = {}
    for position, place in enumerate(row.places):
        if place in at and row._is_unchanged(position):
            # What is stored out of line is not NULL: then the other one does not know either.
            value = other[at[place]]
            if value is not None and value is not UNCHANGED:
                found[position] = value
    if not found:
        return row
    values = [found.get(position, value) for position, value in enumerate(row)]
    return type(row)(relation, values, False, row.places, row.lsn)


def shown(row: Row) -> str:
    """Return the repr of a row of either twin: short, and whatever its values do.

    Of a long value there is the beginning, and of many columns the first ones.
    """
    names = row.keys()
    values = [
        f" {printable(name)}={_shown_value(row, position)}"
        for position, name in enumerate(names[:MOST_SHOWN])
    ]
    left = len(names) - len(values)
    return f"<Row{''.join(values)}{f' and {left} more columns' if left else ''}>"


def _shown_value(row: Row, position: int) -> str:
    try:
        return _brief(row[position])
    except DecodeError:
        return f"<cannot be decoded: {_brief(row.raw(position))}>"
    except Exception as error:  # of a class that `types` makes values of
        return f"<cannot be shown: {type(error).__name__}>"


def _brief(value: Any) -> str:
    if isinstance(value, str | bytes) and len(value) > _LONGEST_SHOWN:
        return f"{value[:_LONGEST_SHOWN]!r}... of {len(value)}"
    text = printable(repr(value))
    # Of what is made of others all parts may be long.
    return text if len(text) <= 2 * _LONGEST_SHOWN else f"{text[: 2 * _LONGEST_SHOWN]}..."
