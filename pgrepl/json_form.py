"""Rows and changes as JSON: typed, and as lossless as the values are.

Law: whoever reads it loses nothing by how JSON readers have numbers. What a double would round,
a numeric or an integer beyond 2^53, is text, and so is what JSON has no form for. No line can do
anything to a terminal: what does not print is escaped.

docs/types.md, "JSON", is the table of it. Source: RFC 8259, "The JavaScript Object Notation (JSON)
Data Interchange Format".
"""

from __future__ import annotations

import json
import math
from datetime import date, time
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from .lsn import Lsn
from .relation import UNCHANGED
from .values import Array, Interval, Multirange, Range, float_text, text_of

if TYPE_CHECKING:
    from .row import Default, Row

__all__ = ["json_line", "json_value", "row_object", "unchanged_names"]

# Beyond it a double, which is what many readers have, leaves numbers out.
_MOST_EXACT: Final = 2**53 - 1

_BY_TEXT: Final = (
    *(UUID, Interval, Range, Multirange, Lsn),
    *(IPv4Address, IPv6Address, IPv4Network, IPv6Network),
)

_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def json_line(value: Any) -> str:
    """Return what `json` can write as one line that prints."""
    text = _encode(value)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def json_value(value: Any, default: Default = None) -> Any:
    """Return a value as `json` can write it. Raises `TypeError` for one of a class unknown here."""
    match value:
        case None | bool() | str():
            return value
        case _ if isinstance(value, _BY_TEXT):
            return str(value)
        case int():
            return int(value) if abs(value) <= _MOST_EXACT else str(int(value))
        case float():
            return value if math.isfinite(value) else float_text(value)
        case Decimal() | bytes():
            return text_of(value)
        case date() | time():
            return value.isoformat()
        case Array() if value.delimiter == " " or any(low != 1 for low in value.lower_bounds):
            return str(value)
        case dict():
            return {str(key): json_value(each, default) for key, each in value.items()}
        case tuple() if (names := getattr(value, "_names", None)) is not None:
            return {name: json_value(v, default) for name, v in zip(names, value, strict=True)}
        case list() | tuple():
            return [json_value(each, default) for each in value]
    if default is None:
        raise TypeError(
            "expected a value that docs/types.md knows, or `default`, which makes one of others, "
            f"got {type(value).__name__}"
        )
    return json_value(default(value), None)


def row_object(row: Row | None, default: Default) -> dict[str, Any] | None:
    """Return the values of a row by name, without those that were not sent."""
    if row is None:
        return None
    return {
        name: json_value(value, default)
        for position, name in enumerate(row.keys())
        if (value := row[position]) is not UNCHANGED
    }


def unchanged_names(row: Row) -> list[str]:
    """Return the names of the columns that were not sent."""
    return [name for name, value in row.items() if value is UNCHANGED]
