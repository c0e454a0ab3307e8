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
    "PROTOCOL_3_0",
    "SSL_REQUEST",
    "TERMINATE",
    "cancel_request",
    "copy_data",
    "copy_fail",
    "hot_standby_feedback",
    "message",
    "query",
    "startup",
    "text",
]

_MAX_LENGTH: Final = 0x3FFFFFFE
_MAX_STARTUP: Final = 10000
_MAX_CANCEL_KEY: Final = 256
_CANCEL_REQUEST_CODE: Final = 80877102
_SSL_REQUEST_CODE: Final = 80877103

PROTOCOL_3_0: Final = 0x30000
"""The protocol version that every server speaks: major version above, minor below 16 bits."""


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


def copy_data(data: bytes | memoryview) -> bytes:
    """Return CopyData."""
    return message(b"d", bytes(data))


def copy_fail(reason: str) -> bytes:
    """Return CopyFail."""
    return message(b"f", text(reason))


def hot_standby_feedback(client_time: int, xmin: int, catalog_xmin: int) -> bytes:
    """Return CopyData with hot standby feedback.

    `client_time` in microseconds since 2000-01-01 00:00 UTC; transaction ids of 64 bits, with their
    epoch in the upper half, or 0 for none.
    """
    for xid in (xmin, catalog_xmin):
        if not 0 <= xid < 2**64:
            raise ValueError(f"expected a transaction id from 0 to 2**64-1, got {xid}")
    low = 0xFFFFFFFF
    body = struct.pack(
        ">cqIIII",
        b"h",
        client_time,
        xmin & low,
        xmin >> 32,
        catalog_xmin & low,
        catalog_xmin >> 32,
    )
    return message(b"d", body)


def startup(parameters: Mapping[str, str], version: int = PROTOCOL_3_0) -> bytes:
    """Return StartupMessage, which has no tag; `version` is the protocol's, 0x30002 for 3.2."""
    pairs = b"".join(text(name) + text(value) for name, value in parameters.items())
    body = struct.pack(">i", version) + pairs + b"\0"
    if len(body) > _MAX_STARTUP:
        raise ValueError(
            f"expected at most {_MAX_STARTUP} bytes of startup parameters, got {len(body)}; "
            "shorten options, application_name or dbname"
        )
    return struct.pack(">i", len(body) + 4) + body


def cancel_request(pid: int, key: bytes) -> bytes:
    """Return CancelRequest, which has no tag and is all that is said on a connection of its own.

    `pid` and `key` are those of BackendKeyData.
    """
    if not 1 <= len(key) <= _MAX_CANCEL_KEY:
        raise ValueError(
            f"expected a cancel key of 1 to {_MAX_CANCEL_KEY} bytes, got {len(key)}; a server that "
            "sent none cannot be asked to cancel"
        )
    return struct.pack(">iii", len(key) + 12, _CANCEL_REQUEST_CODE, pid) + key


SSL_REQUEST: Final = struct.pack(">ii", 8, _SSL_REQUEST_CODE)
TERMINATE: Final = message(b"X")
COPY_DONE: Final = message(b"c")
