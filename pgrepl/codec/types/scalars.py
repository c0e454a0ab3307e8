"""Values without parts: truth, numbers, text, bytes, identifiers.

A function takes the bytes of one value. ``*_text`` is for what the type's output function writes,
and gives back as `str` whatever that function does not write; ``*_binary`` is for the send
function's bytes, and raises `ValueError` for any others. What is not UTF-8 where it has to be is a
`UnicodeDecodeError` in both.

Source: PostgreSQL documentation, "Data Types"; the formats are those of the types' own functions.
"""

from __future__ import annotations

import binascii
import re
import struct
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from ...lsn import Lsn, decode_lsn
from .fields import Fields, fixed, size_error

_I32: Final = struct.Struct(">i")
_TID: Final = struct.Struct(">IH")
_NUMERIC: Final = struct.Struct(">HhHH")
_SNAPSHOT: Final = struct.Struct(">QQ")
_U64: Final = struct.Struct(">Q")

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_UINT64_MAX = (1 << 64) - 1
_SAFE_DIGITS = 18  # so many digits fit 64 bits whatever they are


def identity(data: bytes) -> bytes:
    """Return the bytes of a type that nothing more is known of."""
    return data


def bool_text(data: bytes) -> Any:
    if data == b"t":
        return True
    return False if data == b"f" else data.decode()


def bool_binary(data: bytes) -> bool:
    if data == b"\1":
        return True
    if data == b"\0":
        return False
    raise ValueError(f"expected a byte of 0 or 1 for a binary bool, got {data[:8].hex() or 'none'}")


# int() takes signs, blanks, underscores and any script's digits: isdigit() on bytes lets only 0-9
# pass. It is also slow for very many digits, so leading zeros are dropped and the rest is bounded.
def integer_text(data: bytes) -> Any:
    """A signed integer; beyond 64 bits it is text."""
    digits = data[1:] if data[:1] == b"-" else data
    if not digits.isdigit():
        return data.decode()
    if len(digits) <= _SAFE_DIGITS:
        return int(data)
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > 19:
        return data.decode()
    value = -int(digits) if data[:1] == b"-" else int(digits)
    return value if _INT64_MIN <= value <= _INT64_MAX else data.decode()


def unsigned_text(data: bytes) -> Any:
    """An unsigned integer; beyond 64 bits it is text."""
    if not data.isdigit():
        return data.decode()
    if len(data) <= _SAFE_DIGITS:
        return int(data)
    digits = data.lstrip(b"0") or b"0"
    if len(digits) > 20:
        return data.decode()
    value = int(digits)
    return value if value <= _UINT64_MAX else data.decode()


# float() and Decimal() take blanks, underscores and more words; Decimal() even asks the context
# what to do with nonsense. So the form is checked first.
_FLOAT = re.compile(rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|NaN|-?Infinity")
_DECIMAL = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?|NaN|-?Infinity")


def float_text(data: bytes) -> Any:
    return float(data) if _FLOAT.fullmatch(data) else data.decode()


def numeric_text(data: bytes) -> Any:
    text = data.decode()
    return Decimal(text) if _DECIMAL.fullmatch(data) else text


_NUMERIC_WORDS: Final = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_NUMERIC_SIGNS: Final = {0x0000: "", 0x4000: "-"}
_NUMERIC_MAX_SCALE = 0x3FFF


def numeric_binary(data: bytes) -> Decimal:
    if len(data) < _NUMERIC.size:
        raise ValueError(f"expected at least 8 bytes for a binary numeric, got {len(data)}")
    count, weight, sign, scale = _NUMERIC.unpack_from(data)
    if len(data) != _NUMERIC.size + 2 * count:
        raise size_error("numeric", _NUMERIC.size + 2 * count, data)
    if scale > _NUMERIC_MAX_SCALE:
        raise ValueError(
            f"expected at most 16383 digits behind the point of a numeric, got {scale}"
        )
    groups = struct.unpack_from(f">{count}H", data, _NUMERIC.size)
    if count and max(groups) > 9999:
        raise ValueError(f"expected digits below 10000 in a binary numeric, got {max(groups)}")
    if sign in _NUMERIC_WORDS:
        return Decimal(_NUMERIC_WORDS[sign])
    if sign not in _NUMERIC_SIGNS:
        raise ValueError(f"expected the sign of a binary numeric, got 0x{sign:04x}")
    digits = "".join([f"{group:04}" for group in groups])
    # Where the point is in them; zeros stand in for digits that are not written, on either side.
    point = 4 * (weight + 1)
    whole = digits[:point].ljust(point, "0") if point > 0 else ""
    fraction = digits[point:] if point > 0 else "0" * min(-point, scale) + digits
    text = _NUMERIC_SIGNS[sign] + (whole.lstrip("0") or "0")
    return Decimal(f"{text}.{fraction[:scale].ljust(scale, '0')}" if scale else text)


_ESCAPED = re.compile(rb"(?:[ -\[\]-~]++|\\\\|\\[0-3][0-7]{2})*+")
_ESCAPE = re.compile(rb"\\(\\|[0-7]{3})")


def bytea_text(data: bytes) -> Any:
    """Both of the server's output formats, hex and escape."""
    if data[:2] == b"\\x":
        try:
            return binascii.unhexlify(data[2:])
        except ValueError:
            return data.decode()
    if not _ESCAPED.fullmatch(data):
        return data.decode()
    if b"\\" not in data:
        return data
    return _ESCAPE.sub(lambda m: b"\\" if m[1] == b"\\" else bytes([int(m[1], 8)]), data)


def char_binary(data: bytes) -> str:
    """The type ``"char"``, a byte: as servers from 16 on write it, ``\\ooo`` from 128 on."""
    if len(data) != 1:
        raise size_error('"char"', 1, data)
    if data == b"\0":
        return ""
    return data.decode() if data < b"\x80" else f"\\{data[0]:03o}"


def versioned(name: str, data: bytes) -> bytes:
    """Return a binary jsonb or jsonpath without the version before it."""
    if data[:1] != b"\1":
        raise ValueError(
            f"expected version 1 of a binary {name}, got {data[:1].hex() or 'no byte'}"
        )
    return data[1:]


def jsonb_binary(data: bytes) -> str:
    return versioned("jsonb", data).decode()


def jsonpath_binary(data: bytes) -> str:
    return versioned("jsonpath", data).decode()


def uuid_text(data: bytes) -> Any:
    if len(data) == 36 and data[8] == data[13] == data[18] == data[23] == 45:
        try:
            raw = binascii.unhexlify(data.replace(b"-", b""))
        except ValueError:
            return data.decode()
        if len(raw) == 16:
            return UUID(int=int.from_bytes(raw))
    return data.decode()


def uuid_binary(data: bytes) -> UUID:
    if len(data) != 16:
        raise size_error("uuid", 16, data)
    return UUID(int=int.from_bytes(data))


def lsn_text(data: bytes) -> Any:
    text = data.decode()
    try:
        return Lsn(decode_lsn(text))
    except ValueError:
        return text


_lsn_number = fixed("pg_lsn", ">Q")


def lsn_binary(data: bytes) -> Lsn:
    return Lsn(_lsn_number(data))


def bit_binary(data: bytes) -> str:
    """A bit string as digits 0 and 1, which is its text."""
    fields = Fields("bit string", data)
    count = fields.integer()
    if count < 0:
        raise fields.error("a number of bits", count)
    size = (count + 7) // 8
    raw = fields.raw(size)
    fields.finish()
    return f"{int.from_bytes(raw):0{8 * size}b}"[:count] if count else ""


def tid_binary(data: bytes) -> str:
    """A row's place as its text: ``(block,offset)``."""
    if len(data) != _TID.size:
        raise size_error("tid", _TID.size, data)
    block, offset = _TID.unpack(data)
    return f"({block},{offset})"


def snapshot_binary(data: bytes) -> str:
    """A snapshot as its text: ``xmin:xmax:xip,xip``."""
    fields = Fields("pg_snapshot", data)
    count = fields.integer()
    xmin, xmax = fields.take(_SNAPSHOT)
    # By size first: a count is a claim.
    if count < 0 or len(data) != _I32.size + _SNAPSHOT.size + count * _U64.size:
        raise fields.error("a number of transactions that fits its size", count)
    running = ",".join([str(fields.take(_U64)[0]) for _ in range(count)])
    return f"{xmin}:{xmax}:{running}"
