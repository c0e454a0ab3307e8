"""What a row is, to those who are given one.

Both twins of the codec make rows, each of a class of its own that does what is said here:
`pgrepl.Row` is that of the twin in use. To a type checker it is this class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, overload

from .lsn import Lsn
from .relation import Column, Relation

__all__ = ["Default", "Row"]

Default: TypeAlias = Callable[[Any], Any] | None
"""What makes of a value that has no form in JSON one that has, as ``json.dumps`` knows it."""


class Row:
    """A row by position and by name: ``row[0]``, ``row["id"]``; iterates over its values.

    A value is made when it is first read: Python's own for its type, see docs/types.md; None for
    NULL; `UNCHANGED` for one that was not sent. A key-only row has the columns whose values came,
    and no others: those that identify the row, whatever the relation marks as its key. Rows compare
    by names and values.

    What reads a value raises `DecodeError`, with the column's name and type, for one that its type
    cannot have, text that is not UTF-8 for instance; `raw` still gives its bytes.

    By hand it is made of values: of all columns, of those that the relation marks as the key
    (`key_only`), or of those at some `places`, counted from 0. Raises `ValueError` if they are not
    as many as the columns.
    """

    __slots__ = ()

    def __init__(
        self,
        relation: Relation,
        values: Iterable[Any],
        key_only: bool = False,
        places: Iterable[int] | None = None,
        lsn: int | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that the row has, in order."""
        raise NotImplementedError

    @property
    def places(self) -> tuple[int, ...]:
        """Where these columns are in the relation, counted from 0."""
        raise NotImplementedError

    @property
    def lsn(self) -> Lsn | None:
        """Where in the WAL the change begins that the row came with; None: nobody said."""
        raise NotImplementedError

    @overload
    def __getitem__(self, key: int | str) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or `default` where the row has no such column."""
        raise NotImplementedError

    def raw(self, key: int | str) -> Any:
        """Return the bytes that were sent for a column; None for NULL, or `UNCHANGED`.

        Raises `ValueError` for a row that was made from values.
        """
        raise NotImplementedError

    def keys(self) -> tuple[str, ...]:
        """Return the names of the columns, in order."""
        return tuple([column.name for column in self.columns])

    def values(self) -> tuple[Any, ...]:
        """Return the values, in order."""
        raise NotImplementedError

    def items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over pairs of name and value, in order."""
        return zip(self.keys(), self.values(), strict=True)

    def asdict(self) -> dict[str, Any]:
        """Return a new dictionary from name to value."""
        return dict(self.items())

    def astuple(self) -> tuple[Any, ...]:
        """Return the values, in order."""
        return self.values()

    def to_json(self, default: Default = None) -> str:
        """Return the row as a line of typed JSON, an object without what is `UNCHANGED`.

        docs/types.md, "JSON", has the form. `default` makes of a value of a class unknown there,
        which a rule of `types` made, one that is known. Raises `TypeError` without it.
        """
        raise NotImplementedError

    def _of_key(self) -> Row:
        """Return the part of a whole row that its relation marks as the key."""
        raise NotImplementedError
