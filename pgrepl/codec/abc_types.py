"""The contract of values: what each twin provides, and what both agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ..typedefs import TypeDefinition

__all__ = ["Types", "ValueType"]


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
