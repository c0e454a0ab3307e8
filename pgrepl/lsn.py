"""WAL positions.

A log sequence number is an unsigned 64-bit byte position in the server's write-ahead log.
PostgreSQL writes it as two upper-case hexadecimal halves, ``1/F73E0220``; servers up to 18 print no
leading zeros, later ones pad the second half, so text is for people and comparisons are made on the
number.

Source: PostgreSQL documentation, "pg_lsn Type".
"""

from __future__ import annotations

import operator
import re
from typing import Self

from .public import imported_from

__all__ = ["Lsn", "decode_lsn", "encode_lsn"]

_LIMIT = 1 << 64
_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


@imported_from("pgrepl")
def encode_lsn(position: int) -> str:
    """Return the text form of a position: ``encode_lsn(8443003424) == "1/F73E0220"``.

    Raises `ValueError` for a number outside 0..2**64-1.
    """
    # int(): the caller may hand in an Lsn, whose own formatting ends up here again. index(): a
    # float is no position, and would lose its last digits.
    number = int(operator.index(position))
    if not 0 <= number < _LIMIT:
        raise ValueError(f"expected an LSN between 0 and 2**64-1, got {number}")
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


@imported_from("pgrepl")
def decode_lsn(text: str) -> int:
    """Return the number behind a text form: ``decode_lsn("1/F73E0220") == 8443003424``.

    Takes one to eight hexadecimal digits on each side of one slash and nothing else; raises
    `ValueError` for anything else, including surrounding space and signs.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"expected an LSN such as '1/F73E0220' (1 to 8 hex digits, '/', 1 to 8 hex digits), "
            f"got {text!r}"
        )
    return int(match[1], 16) << 32 | int(match[2], 16)


@imported_from("pgrepl")
class Lsn(int):
    """A WAL position: an `int` in arithmetic and comparison, ``1/F73E0220`` when shown.

    Made from an integer in 0..2**64-1 or from the text form; anything else is a `ValueError` (or a
    `TypeError` for another type). The result of arithmetic is a plain `int`.
    """

    __slots__ = ()

    def __new__(cls, value: int | str = 0) -> Self:
        if isinstance(value, str):
            value = decode_lsn(value)
        elif not isinstance(value, int):
            raise TypeError(f"expected an int or str for an LSN, got {type(value).__name__}")
        if not 0 <= value < _LIMIT:
            raise ValueError(f"expected an LSN between 0 and 2**64-1, got {int(value)}")
        return super().__new__(cls, value)

    def __str__(self) -> str:
        return encode_lsn(self)

    def __repr__(self) -> str:
        return f"Lsn('{encode_lsn(self)}')"
