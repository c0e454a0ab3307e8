"""Geometric values, pure Python: the server's text, written from binary as the server writes it.

Python has no such types, and the text says all; how the functions behave is told in scalars.py.

Source: PostgreSQL documentation, "Geometric Types".
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any, Final

from .fields import Fields, size_error

_MOST_DIGITS: Final = 17  # and no number needs more

_POINT: Final = struct.Struct(">dd")
_THREE: Final = struct.Struct(">ddd")
_FOUR: Final = struct.Struct(">dddd")


def float_text(value: float) -> str:
    """Return a float8 as the server writes it: the shortest digits that give it again.

    Python's `repr` says the same in nearly the same form. But whole numbers have no point, an
    exponent is written from 1e15 on and not from 1e16, and digits that lie just between two
    numbers, and are read as this one because it is the even one, do not count.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = repr(value)
    if abs(value) < 1e15:  # what lies between two of these numbers has more digits than they
        return text.removesuffix(".0")
    if _lies_between(text, value):
        text = _more_digits(value)
    if "e" in text:
        return text
    sign = "-" if value < 0 else ""
    digits = text.removesuffix(".0").removeprefix("-").replace(".", "").rstrip("0")
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e+15"


def _lies_between(text: str, value: float) -> bool:
    """Whether the number written is as far from `value` as from the next one to it."""
    difference = abs(Fraction(text) - Fraction(value))
    # No power of two, where the next one below is nearer, has such digits.
    return 2 * difference == Fraction(math.ulp(value))


def _more_digits(value: float) -> str:
    """Return the fewest digits that lie between no two numbers, with an exponent."""
    texts = (f"{value:.{digits}e}" for digits in range(_MOST_DIGITS))
    return next(text for text in texts if float(text) == value and not _lies_between(text, value))


def _numbers(name: str, layout: struct.Struct, data: bytes) -> list[str]:
    if len(data) != layout.size:
        raise size_error(name, layout.size, data)
    return [float_text(value) for value in layout.unpack(data)]


def _point_text(x: float, y: float) -> str:
    return f"({float_text(x)},{float_text(y)})"


def _points(fields: Fields) -> str:
    points: list[tuple[Any, ...]] = []
    for _ in range(fields.count(_POINT.size, "points")):
        points.append(fields.take(_POINT))
    fields.finish()
    return ",".join([_point_text(*point) for point in points])


def point_binary(data: bytes) -> str:
    x, y = _numbers("point", _POINT, data)
    return f"({x},{y})"


def lseg_binary(data: bytes) -> str:
    x1, y1, x2, y2 = _numbers("lseg", _FOUR, data)
    return f"[({x1},{y1}),({x2},{y2})]"


def box_binary(data: bytes) -> str:
    x1, y1, x2, y2 = _numbers("box", _FOUR, data)
    return f"({x1},{y1}),({x2},{y2})"


def line_binary(data: bytes) -> str:
    a, b, c = _numbers("line", _THREE, data)
    return f"{{{a},{b},{c}}}"


def circle_binary(data: bytes) -> str:
    x, y, radius = _numbers("circle", _THREE, data)
    return f"<({x},{y}),{radius}>"


def path_binary(data: bytes) -> str:
    fields = Fields("path", data)
    closed = fields.raw(1)[0]
    if closed > 1:
        raise fields.error("a mark of 0 or 1 for closed", closed)
    points = _points(fields)
    return f"({points})" if closed else f"[{points}]"


def polygon_binary(data: bytes) -> str:
    return f"({_points(Fields('polygon', data))})"
