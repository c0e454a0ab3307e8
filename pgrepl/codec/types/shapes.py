"""Geometric values: the server's text, written from binary as the server writes it.

Python has no such types, and the text says all; how the functions behave is told in scalars.py.

Source: PostgreSQL documentation, "Geometric Types".
"""

from __future__ import annotations

import struct
from typing import Any, Final

from ...values import float_text
from .fields import Fields, size_error

_POINT: Final = struct.Struct(">dd")
_THREE: Final = struct.Struct(">ddd")
_FOUR: Final = struct.Struct(">dddd")


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
