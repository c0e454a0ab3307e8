"""What the catalogue says of the types that users and extensions made: a class for each kind.

Law: one definition is one row of the catalog pg_type, and parts are named by their OIDs. So a
definition says nothing of its parts, and any number of them can be given in any order.

Source: PostgreSQL documentation, "System Catalogs": pg_type, pg_attribute, pg_enum, pg_range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

__all__ = [
    "ArrayType",
    "BaseType",
    "CompositeType",
    "DomainType",
    "EnumType",
    "Field",
    "MultirangeType",
    "RangeType",
    "TypeDefinition",
]


@dataclass(frozen=True, slots=True)
class BaseType:
    """A type whose form only the extension that made it knows: hstore, citext, geometry."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class EnumType:
    """An enum, with its labels in their order when the catalogue was asked."""

    oid: int
    schema: str
    name: str
    labels: tuple[str, ...] = ()


class Field(NamedTuple):
    """A field of a composite."""

    name: str
    type_oid: int


@dataclass(frozen=True, slots=True)
class CompositeType:
    """A composite, made by CREATE TYPE or along with a table, and its fields in their order.

    `has_gaps`: a field was dropped that stood before one of these. A value that was made before
    may have as many fields, and yet others.
    """

    oid: int
    schema: str
    name: str
    fields: tuple[Field, ...]
    has_gaps: bool = False


@dataclass(frozen=True, slots=True)
class RangeType:
    """A range over values of the type `subtype_oid`."""

    oid: int
    schema: str
    name: str
    subtype_oid: int


@dataclass(frozen=True, slots=True)
class MultirangeType:
    """A multirange of ranges of the type `range_oid`."""

    oid: int
    schema: str
    name: str
    range_oid: int


@dataclass(frozen=True, slots=True)
class DomainType:
    """A domain over the type `base_oid`, which may be a domain too."""

    oid: int
    schema: str
    name: str
    base_oid: int


@dataclass(frozen=True, slots=True)
class ArrayType:
    """An array; `delimiter` is the character that stands between its elements in text."""

    oid: int
    schema: str
    name: str
    element_oid: int
    delimiter: str = ","


TypeDefinition: TypeAlias = (
    BaseType | EnumType | CompositeType | RangeType | MultirangeType | DomainType | ArrayType
)
"""What a type is, for `Types.define`."""
