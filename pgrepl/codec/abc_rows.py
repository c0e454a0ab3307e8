"""The contract of rows and their values: what each twin provides, and what both agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, overload

from ..lsn import Lsn
from ..relation import Column, Relation
from ..typedefs import TypeDefinition

if TYPE_CHECKING:
    from ..json_form import Default

__all__ = ["Row", "Types", "ValueType"]


class Row(Protocol):
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

    def __init__(
        self,
        relation: Relation,
        values: Iterable[Any],
        key_only: bool = False,
        places: Iterable[int] | None = None,
        lsn: int | None = None,
    ) -> None: ...

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that the row has, in order."""

    @property
    def places(self) -> tuple[int, ...]:
        """Where these columns are in the relation, counted from 0."""

    @property
    def lsn(self) -> Lsn | None:
        """Where in the WAL the change begins that the row came with; None: nobody said."""

    @overload
    def __getitem__(self, key: int | str) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __contains__(self, name: object) -> bool: ...

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or `default` where the row has no such column."""

    def raw(self, key: int | str) -> Any:
        """Return the bytes that were sent for a column; None for NULL, or `UNCHANGED`.

        Raises `ValueError` for a row that was made from values.
        """

    def keys(self) -> tuple[str, ...]:
        """Return the names of the columns, in order."""

    def values(self) -> tuple[Any, ...]:
        """Return the values, in order."""

    def items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over pairs of name and value, in order."""

    def asdict(self) -> dict[str, Any]:
        """Return a new dictionary from name to value."""

    def astuple(self) -> tuple[Any, ...]:
        """Return the values, in order."""

    def to_json(self, default: Default = None) -> str:
        """Return the row as a line of typed JSON, an object without what is `UNCHANGED`.

        docs/types.md, "JSON", has the form. `default` makes of a value of a class unknown there,
        which a rule of `types` made, one that is known. Raises `TypeError` without it.
        """


class ValueType(Protocol):
    """How the values of one type are made. NULL never comes here."""

    @property
    def oid(self) -> int: ...
    @property
    def name(self) -> str: ...

    def text(self, data: bytes) -> Any:
        """Make a value of its text form; the text itself where that is not what the type writes.

        Raises `UnicodeDecodeError` for text that is not UTF-8.
        """

    def binary(self, data: bytes) -> Any:
        """Make a value of its binary form. Raises `ValueError` for bytes that are not that."""


class Types(Protocol):
    """The types that a decoder knows: PostgreSQL's own, those that the server describes, and those
    that the catalogue's definitions tell of."""

    def __init__(
        self,
        overrides: Mapping[int | str, Callable[[Any], Any] | int] | None = None,
        typed: bool = True,
        encoding: str = "utf-8",
    ) -> None: ...

    def lookup(self, oid: int) -> Any:
        """Return the `ValueType` of an OID; of an unknown one text is `str`, binary `bytes`."""

    def name_of(self, oid: int) -> str | None:
        """Return what SQL calls the type with an OID; None where nobody told of it."""

    def describe(self, oid: int, schema: str, name: str) -> None:
        """Take in what a Type message says: a user's type, or for a domain what it is over.

        A definition of the OID counts only while it has the name that was said last: a type has
        another one when the OID is used again. Types looked up before keep decoding as they did.
        """

    def define(self, definitions: Iterable[TypeDefinition]) -> None:
        """Take in what the catalogue says of types, in any order: `protocol.catalogue.read_types`.

        After it an enum is `str` in both forms, a composite a named tuple, and ranges,
        multiranges, domains and arrays are made as PostgreSQL's own are. What a definition names
        and nobody knows is the server's text, or bytes. A later definition replaces an earlier one
        of the same OID; one with an OID of PostgreSQL's own changes nothing. Types looked up
        before keep decoding as they did.

        Raises `TypeError` for what is no definition; those before it count.
        """
