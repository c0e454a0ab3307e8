"""The tables that are recorded: what SQL puts into them, and which values Python has to find there.

Law: the values that a contender is held to come from here, worked out from a row's id, and from
nobody's decoder. Each column says the same thing twice, as an expression of SQL over ``id`` and as
a function of Python.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import md5
from typing import Any, Final
from uuid import UUID

FIRST_ID: Final = 1_000_000

_EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its declaration, what SQL writes into the row `id`, and that value in Python."""

    name: str
    declared: str
    expression: str
    value: Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, whose first column is ``id bigint``, the primary key.

    `weight` is how many of its rows cost about as much as one of the reference table.
    """

    name: str
    columns: tuple[Column, ...]
    weight: float

    @property
    def declaration(self) -> str:
        columns = ", ".join(f"{column.name} {column.declared}" for column in self.columns)
        return f"CREATE TABLE {self.name} ({columns}, PRIMARY KEY (id))"

    @property
    def expressions(self) -> str:
        """A SELECT list over ``id``."""
        return ", ".join(column.expression for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def values(self, row_id: int) -> tuple[Any, ...]:
        """Return the row's values as Python has to see them."""
        return tuple(column.value(row_id) for column in self.columns)


def text_of(value: Any) -> str | None:
    """Return a value as the server writes it in text, under TimeZone UTC; None for NULL."""
    match value:
        case None:
            return None
        case bool():
            return "t" if value else "f"
        case float():
            return repr(value).removesuffix(".0")
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}{f'.{value:%f}'.rstrip('0').rstrip('.')}+00"
        case _:
            return str(value)


def _digest(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


_ID: Final = Column("id", "bigint", "id", lambda row: row)
_N: Final = Column("n", "int", "10000 + id * 7919 % 90000", lambda row: 10000 + row * 7919 % 90000)

# Each value has the same width in every row, and none is a run of zeros.
_REFERENCE: Final = (
    _ID,
    _N,
    Column("t", "text", "md5(id::text)", lambda row: _digest(str(row))),
    Column(
        "at",
        "timestamptz",
        "timestamptz '2024-01-01 00:00:00+00' + id * interval '1 second' "
        "+ (id % 99999 * 10 + 7) * interval '1 microsecond'",
        lambda row: _EPOCH + timedelta(seconds=row, microseconds=row % 99999 * 10 + 7),
    ),
    Column(
        "price",
        "numeric(12,2)",
        "(1000000 + id * 104729 % 9000000) / 100.0",
        lambda row: Decimal(1000000 + row * 104729 % 9000000).scaleb(-2),
    ),
    Column("u", "uuid", "md5('u' || id)::uuid", lambda row: UUID(_digest(f"u{row}"))),
)

# The kinds of the wide table's columns, each for the k-th column.


def _int(k: int) -> Column:
    return Column(f"int_{k}", "int", f"id * {k + 7} % 1000003", lambda row: row * (k + 7) % 1000003)


def _bigint(k: int) -> Column:
    return Column(f"bigint_{k}", "bigint", f"id * 1000003 + {k}", lambda row: row * 1000003 + k)


def _text(k: int) -> Column:
    size = 4 + k % 29
    return Column(
        f"text_{k}",
        "text",
        f"left(md5(id || ':{k}'), {size})",
        lambda row: _digest(f"{row}:{k}")[:size],
    )


def _bool(k: int) -> Column:
    return Column(f"bool_{k}", "bool", f"(id + {k}) % 3 = 0", lambda row: (row + k) % 3 == 0)


def _timestamptz(k: int) -> Column:
    return Column(
        f"timestamptz_{k}",
        "timestamptz",
        "timestamptz '2024-01-01 00:00:00+00' + id * interval '1 second' "
        f"+ (id * {k} % 1000) * interval '1 millisecond'",
        lambda row: _EPOCH + timedelta(seconds=row, milliseconds=row * k % 1000),
    )


def _numeric(k: int) -> Column:
    return Column(
        f"numeric_{k}",
        "numeric(12,2)",
        f"(id * {k + 3} % 1000000 - 500000) / 100.0",
        lambda row: Decimal(row * (k + 3) % 1000000 - 500000).scaleb(-2),
    )


def _date(k: int) -> Column:
    return Column(
        f"date_{k}",
        "date",
        f"date '2000-01-01' + (id * {k} % 20000)::int",
        lambda row: _FIRST_DAY + timedelta(days=row * k % 20000),
    )


def _float8(k: int) -> Column:
    return Column(
        f"float8_{k}",
        "float8",
        f"(id * {k} % 1000003)::float8 / 7",
        lambda row: row * k % 1000003 / 7,
    )


def _uuid(k: int) -> Column:
    return Column(
        f"uuid_{k}", "uuid", f"md5(id || ':{k}')::uuid", lambda row: UUID(_digest(f"{row}:{k}"))
    )


def _jsonb(k: int) -> Column:
    return Column(
        f"jsonb_{k}",
        "jsonb",
        f"jsonb_build_object('k', {k}, 'id', id, 'name', 'item ' || id)",
        # jsonb keeps short keys before long ones, and so does this.
        lambda row: json.dumps({"k": k, "id": row, "name": f"item {row}"}),
    )


# How many columns of each kind the wide table has, besides its id.
_MIX: Final = (
    (_text, 26),
    (_int, 24),
    (_timestamptz, 10),
    (_numeric, 10),
    (_bigint, 9),
    (_bool, 8),
    (_date, 4),
    (_float8, 4),
    (_uuid, 2),
    (_jsonb, 2),
)


def _mostly(column: Column, k: int) -> Column:
    """Return the column with NULL in every tenth row, another row for each column."""

    def value(row: int) -> Any:
        return column.value(row) if (row + k) % 10 else None

    expression = f"CASE WHEN (id + {k}) % 10 <> 0 THEN {column.expression} END"
    return Column(column.name, column.declared, expression, value)


def _wide() -> tuple[Column, ...]:
    """Return the wide table's columns, the kinds by turns as in a table that grew over years."""
    columns = [_ID]
    kinds = deque(_MIX)
    while kinds:
        kind, left = kinds.popleft()
        k = len(columns)
        columns.append(_mostly(kind(k), k))
        if left > 1:
            kinds.append((kind, left - 1))
    return tuple(columns)


NARROW: Final = Table("narrow", (_ID, _N), 2)
REFERENCE: Final = Table("reference", _REFERENCE, 1)
WIDE: Final = Table("wide", _wide(), 1 / 16)

TABLES: Final = {table.name: table for table in (NARROW, REFERENCE, WIDE)}
FORMATS: Final = ("text", "binary")
