"""Rows of both twins: what they do alike, and what they know of each other."""

from __future__ import annotations

from typing import Any, Final

from ..errors import DecodeError
from ..escapes import printable
from ..relation import MOST_SHOWN
from ..row import Row

__all__ = ["row_classes", "shown", "unsent"]

row_classes: Final[set[type]] = set()
"""`Row` of each twin that is loaded: a row of one can equal a row of the other."""

unsent: Final = "expected a row that was decoded from a message, this one was made from values"

_LONGEST_SHOWN: Final = 100


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
