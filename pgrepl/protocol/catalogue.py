"""What types a database has that are not PostgreSQL's own: asked of the catalogue, once.

The stream names a type and says no more of it, not even whether it is an enum. A connection to a
database can be asked in SQL, before the stream begins.

Law: the answer does not depend on the session. Tables, types and operators are named with their
schema, so that nothing in the search_path can stand for them, and nothing that is not in this file
comes into the query.

Source: PostgreSQL documentation, "System Catalogs".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..errors import ProtocolError
from ..typedefs import (
    ArrayType,
    BaseType,
    CompositeType,
    DomainType,
    EnumType,
    Field,
    MultirangeType,
    RangeType,
    TypeDefinition,
)
from .backend import ServerState
from .conversation import Conversation
from .query import simple_query

__all__ = ["read_types"]

_MULTIRANGES: Final = 140000
_MAX_OID: Final = 0xFFFFFFFF
_MAX_FIELDS: Final = 1600  # of columns, and so of a composite's fields, there are no more

# A table, a view or a sequence has a row type, and that an array. Hardly any is used as a type, so
# they are left out unless a column, a domain or a range is of them.
_QUERY: Final = """
WITH used AS (
    SELECT atttypid AS type FROM pg_catalog.pg_attribute WHERE atttypid >= 16384
    UNION SELECT typbasetype FROM pg_catalog.pg_type WHERE typbasetype >= 16384
    UNION SELECT rngsubtype FROM pg_catalog.pg_range WHERE rngsubtype >= 16384
)
SELECT t.oid, n.nspname, t.typname, t.typtype, e.oid, e.typdelim, t.typbasetype, r.rngsubtype,
    {range_of_multirange}, f.attname, f.atttypid, f.attisdropped, l.enumlabel
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_catalog.pg_class c
    ON c.oid = CASE WHEN e.oid IS NULL THEN t.typrelid ELSE e.typrelid END
LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
{multiranges}
LEFT JOIN pg_catalog.pg_attribute f
    ON f.attrelid = t.typrelid AND f.attnum > 0
LEFT JOIN pg_catalog.pg_enum l ON l.enumtypid = t.oid
WHERE (t.oid >= 16384 OR n.nspname <> 'pg_catalog')
    AND (c.oid IS NULL OR c.relkind = 'c' OR t.oid = ANY (SELECT type FROM used)
        OR t.typarray = ANY (SELECT type FROM used) OR t.typelem = ANY (SELECT type FROM used))
ORDER BY t.oid, f.attnum, l.enumsortorder
"""


class _Row(NamedTuple):
    """A row of the answer: of an enum one for each label, of a composite one for each field."""

    oid: str | None
    schema: str | None
    name: str | None
    kind: str | None
    element_oid: str | None
    delimiter: str | None
    base_oid: str | None
    subtype_oid: str | None
    range_oid: str | None
    field: str | None
    field_type_oid: str | None
    field_is_dropped: str | None
    label: str | None


_TYPE_COLUMNS: Final = _Row._fields.index("field")


def read_types(state: ServerState) -> Conversation[tuple[TypeDefinition, ...]]:
    """Ask the database for all types that are not PostgreSQL's own and that columns can be of.

    Row types of tables are among them where they are used as a type. Needs a connection for logical
    replication, outside of a stream. Raises `ServerError`.
    """
    results = yield from simple_query(state, _query(state.version))
    if len(results) != 1 or len(results[0].columns) != len(_Row._fields):
        shapes = [len(result.columns) for result in results]
        raise ProtocolError(
            f"expected one result of {len(_Row._fields)} columns in answer to a query of the "
            f"catalogue, got {len(shapes)} results of {shapes[:3]} columns"
        )
    rows = itertools.starmap(_Row, results[0].rows)
    definitions: dict[int, TypeDefinition | None] = {}
    for _, group in itertools.groupby(rows, lambda row: row[:_TYPE_COLUMNS]):
        same_type = list(group)
        oid = _oid(same_type[0].oid)
        if oid in definitions:
            raise ProtocolError(f"expected one type for each OID of the catalogue, got {oid} twice")
        definitions[oid] = _definition(oid, same_type)
    return tuple(each for each in definitions.values() if each is not None)


def _query(version: int) -> str:
    has_multiranges = version >= _MULTIRANGES
    query = _QUERY.format(
        range_of_multirange="m.rngtypid" if has_multiranges else "NULL",
        multiranges="LEFT JOIN pg_catalog.pg_range m ON m.rngmultitypid = t.oid"
        if has_multiranges
        else "",
    )
    return re.sub(" (=|<>|>|>=) ", r" OPERATOR(pg_catalog.\1) ", query)


def _definition(oid: int, rows: Sequence[_Row]) -> TypeDefinition | None:
    """Return what the rows say of one type; None for one that is not defined yet, or of a kind
    that is not known here."""
    row = rows[0]
    schema, name = _text(row.schema), _text(row.name)
    match _text(row.kind):
        case "b" if row.element_oid is not None:
            return ArrayType(oid, schema, name, _oid(row.element_oid), _text(row.delimiter))
        case "b":
            return BaseType(oid, schema, name)
        case "c":
            return CompositeType(oid, schema, name, *_fields(name, rows))
        case "d":
            return DomainType(oid, schema, name, _oid(row.base_oid))
        case "e":
            return EnumType(oid, schema, name, tuple(r.label for r in rows if r.label is not None))
        case "m" if row.range_oid is not None:
            return MultirangeType(oid, schema, name, _oid(row.range_oid))
        case "r":
            return RangeType(oid, schema, name, _oid(row.subtype_oid))
    return None


def _fields(name: str, rows: Sequence[_Row]) -> tuple[tuple[Field, ...], bool]:
    """Return the fields of a composite, and whether one was dropped that stood before another."""
    if len(rows) > _MAX_FIELDS:
        raise ProtocolError(
            f"expected at most {_MAX_FIELDS} fields of the type {name[:64]!r} in the catalogue, "
            f"got {len(rows)}"
        )
    if len(rows) == 1 and rows[0].field is None:
        return (), False
    fields: list[Field] = []
    has_gaps = dropped = False
    for row in rows:
        if _text(row.field_is_dropped) == "t":
            dropped = True
        else:
            has_gaps |= dropped
            fields.append(Field(_text(row.field), _oid(row.field_type_oid)))
    return tuple(fields), has_gaps


def _text(value: str | None) -> str:
    if value is None:
        raise ProtocolError("expected text in the catalogue's answer, got NULL")
    if value.isascii():
        return value
    # As the stream has the names of types: bytes that are not UTF-8 written as in \\xe9.
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _oid(value: str | None) -> int:
    text = _text(value)
    if text.isascii() and text.isdigit() and len(text) <= 10 and (oid := int(text)) <= _MAX_OID:
        return oid
    raise ProtocolError(f"expected an OID in the catalogue's answer, got {text[:40]!r}")
