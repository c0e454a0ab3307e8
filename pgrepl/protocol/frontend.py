"""What the client says: messages as bytes.

Lengths are computed and checked here, before the first byte leaves: a value that would make a
message longer than the server reads, or a string with a zero byte inside, is a `ValueError`.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

__all__ = [
    "COPY_DONE",
    "SSL_REQUEST",
    "TERMINATE",
    "copy_fail",
    "message",
    "query",
    "startup",
    "text",
]

_MAX_LENGTH: Final = 0x3FFFFFFE
_MAX_STARTUP: Final = 10000
_PROTOCOL_3_0: Final = 196608
_SSL_REQUEST_CODE: Final = 80877103


def text(value: str) -> bytes:
    """Return a zero-terminated string."""
    if "\0" in value:
        raise ValueError("expected text without a zero byte, got one inside")
    return value.encode("utf-8", "surrogateescape") + b"\0"


def message(tag: bytes, body: bytes = b"") -> bytes:
    """Return a message with its tag and length."""
    length = len(body) + 4
    if length > _MAX_LENGTH:
        raise ValueError(
            f"expected a message of at most {_MAX_LENGTH} bytes, the longest that a server reads, "
            f"got {length}"
        )
    return tag + struct.pack(">i", length) + body


def query(sql: str) -> bytes:
    """Return a simple Query."""
    return message(b"Q", text(sql))


def copy_fail(reason: str) -> bytes:
    """Return CopyFail."""
    return message(b"f", text(reason))


def startup(parameters: Mapping[str, str]) -> bytes:
    """Return StartupMessage, protocol 3.0, which has no tag."""
    pairs = b"".join(text(name) + text(value) for name, value in parameters.items())
    body = struct.pack(">i", _PROTOCOL_3_0) + pairs + b"\0"
    if len(body) > _MAX_STARTUP:
        raise ValueError(
            f"expected at most {_MAX_STARTUP} bytes of startup parameters, got {len(body)}; "
            "shorten options, application_name or dbname"
        )
    return struct.pack(">i", len(body) + 4) + body


SSL_REQUEST: Final = struct.pack(">ii", 8, _SSL_REQUEST_CODE)
TERMINATE: Final = message(b"X")
COPY_DONE: Final = message(b"c")
