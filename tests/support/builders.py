"""The backend's messages, built by hand from the protocol's description.

Law: nothing here uses pgrepl. These bytes are the second opinion on what pgrepl reads, after
https://www.postgresql.org/docs/current/protocol-message-formats.html and
https://www.postgresql.org/docs/current/protocol-replication.html.

Each function returns a whole message, tag and length included, but for `xlog_data` and `keepalive`,
which are bodies for `copy_data`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

# The one-letter codes of the error fields, by the names that libpq has for them.
ERROR_FIELDS: Final = {
    "severity": b"S",
    "severity_nonlocalized": b"V",
    "sqlstate": b"C",
    "message": b"M",
    "detail": b"D",
    "hint": b"H",
    "position": b"P",
    "internal_position": b"p",
    "internal_query": b"q",
    "context": b"W",
    "schema_name": b"s",
    "table_name": b"t",
    "column_name": b"c",
    "datatype_name": b"d",
    "constraint_name": b"n",
    "source_file": b"F",
    "source_line": b"L",
    "source_function": b"R",
}

AUTHENTICATION_OK: Final = 0
AUTHENTICATION_CLEARTEXT_PASSWORD: Final = 3
AUTHENTICATION_MD5_PASSWORD: Final = 5
AUTHENTICATION_SASL: Final = 10
AUTHENTICATION_SASL_CONTINUE: Final = 11
AUTHENTICATION_SASL_FINAL: Final = 12


def message(tag: bytes, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Any message. `length` puts a lie into the length word, as a signed 32-bit integer."""
    return tag + struct.pack("!i", len(body) + 4 if length is None else length) + body


def authentication(code: int, extra: bytes = b"") -> bytes:
    """`R`: a request, or with code 0 the end of authentication; `extra` is what the code adds."""
    return message(b"R", struct.pack("!i", code) + extra)


def sasl_mechanisms(*names: str) -> bytes:
    """`R` 10: the mechanisms that the server offers, in its order of preference."""
    return authentication(AUTHENTICATION_SASL, b"".join(map(_cstring, names)) + b"\0")


def parameter_status(name: str, value: str) -> bytes:
    """`S`: a setting and its value."""
    return message(b"S", _cstring(name) + _cstring(value))


def backend_key_data(pid: int = 4711, key: bytes = b"\1\2\3\4") -> bytes:
    """`K`: what a cancel request needs; the key has 4 bytes in protocol 3.0, up to 256 in 3.2."""
    return message(b"K", struct.pack("!i", pid) + key)


def negotiate_protocol_version(newest: int = 0x00030000, names: Sequence[str] = ()) -> bytes:
    """`v`: the newest version that the server speaks, and the options it does not know."""
    options = b"".join(map(_cstring, names))
    return message(b"v", struct.pack("!ii", newest, len(names)) + options)


def ready_for_query(status: bytes = b"I") -> bytes:
    """`Z`: idle (`I`), in a transaction (`T`), or in a failed one (`E`)."""
    return message(b"Z", status)


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """A column of a RowDescription; the defaults describe a text column of no table."""

    name: str
    type_oid: int = 25
    type_size: int = -1
    type_modifier: int = -1
    table_oid: int = 0
    attribute_number: int = 0
    format: int = 0


def row_description(*columns: str | ColumnDescription) -> bytes:
    """`T`: a plain name stands for a text column."""
    body = struct.pack("!h", len(columns))
    for each in columns:
        c = ColumnDescription(each) if isinstance(each, str) else each
        table = (c.table_oid, c.attribute_number)
        body += _cstring(c.name)
        body += struct.pack("!IhIhih", *table, c.type_oid, c.type_size, c.type_modifier, c.format)
    return message(b"T", body)


def data_row(*values: bytes | str | None) -> bytes:
    """`D`: a row in text format; None is NULL."""
    body = struct.pack("!h", len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            raw = value.encode() if isinstance(value, str) else value
            body += struct.pack("!i", len(raw)) + raw
    return message(b"D", body)


def command_complete(tag: str) -> bytes:
    """`C`."""
    return message(b"C", _cstring(tag))


def empty_query_response() -> bytes:
    """`I`."""
    return message(b"I")


def error_response(
    text: str = "something is wrong",
    *,
    sqlstate: str = "XX000",
    severity: str = "ERROR",
    **fields: str,
) -> bytes:
    """`E`: `fields` are named as in `ERROR_FIELDS`. FATAL and PANIC say that the server leaves."""
    return message(b"E", _fields(text, sqlstate, severity, fields))


def notice_response(
    text: str = "something is worth a word",
    *,
    sqlstate: str = "00000",
    severity: str = "NOTICE",
    **fields: str,
) -> bytes:
    """`N`: as `error_response`."""
    return message(b"N", _fields(text, sqlstate, severity, fields))


def notification_response(channel: str, payload: str = "", pid: int = 4711) -> bytes:
    """`A`."""
    return message(b"A", struct.pack("!i", pid) + _cstring(channel) + _cstring(payload))


def copy_in_response(overall_format: int = 0, columns: Iterable[int] = ()) -> bytes:
    """`G`."""
    return message(b"G", _copy_formats(overall_format, columns))


def copy_out_response(overall_format: int = 0, columns: Iterable[int] = ()) -> bytes:
    """`H`."""
    return message(b"H", _copy_formats(overall_format, columns))


def copy_both_response(overall_format: int = 0, columns: Iterable[int] = ()) -> bytes:
    """`W`: streaming replication has begun."""
    return message(b"W", _copy_formats(overall_format, columns))


def copy_data(payload: bytes) -> bytes:
    """`d`."""
    return message(b"d", payload)


def copy_done() -> bytes:
    """`c`."""
    return message(b"c")


def xlog_data(start: int, end: int, time: int, payload: bytes) -> bytes:
    """The body `w`: WAL positions, microseconds since 2000-01-01 UTC, and WAL or plugin output."""
    return b"w" + struct.pack("!QQq", start, end, time) + payload


def keepalive(end: int, time: int = 0, reply_requested: bool = False) -> bytes:
    """The body `k`: the server's position, microseconds since 2000-01-01 UTC, whether to answer."""
    return b"k" + struct.pack("!Qq?", end, time, reply_requested)


def _cstring(text: str) -> bytes:
    return text.encode() + b"\0"


def _fields(text: str, sqlstate: str, severity: str, more: dict[str, str]) -> bytes:
    named = {
        "severity": severity,
        "severity_nonlocalized": severity,
        "sqlstate": sqlstate,
        "message": text,
        **more,
    }
    return b"".join(ERROR_FIELDS[name] + _cstring(value) for name, value in named.items()) + b"\0"


def _copy_formats(overall_format: int, columns: Iterable[int]) -> bytes:
    formats = list(columns)
    return struct.pack(f"!bh{len(formats)}h", overall_format, len(formats), *formats)
