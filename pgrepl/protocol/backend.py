"""What the server says between the streams: fields of its messages, and what it tells unasked.

Source: PostgreSQL documentation, "Message Formats" and "Error and Notice Message Fields".
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Mapping
from typing import Final

from ..errors import ProtocolError
from ..escapes import printable
from ..remedies import add_hint, remedy
from .conversation import RECEIVE, Conversation, Frame

__all__ = ["BodyReader", "ServerState", "error_fields", "unexpected"]

notices = logging.getLogger("pgrepl.notice")

# "18.4 (Debian 18.4-1)", "19beta1"
_VERSION: Final = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?")
_FIELD_NAMES: Final = {
    "V": "severity",
    "C": "sqlstate",
    "M": "message",
    "D": "detail",
    "H": "hint",
    "P": "position",
    "p": "internal_position",
    "q": "internal_query",
    "W": "where",
    "s": "schema",
    "t": "table",
    "c": "column",
    "d": "data_type",
    "n": "constraint",
    "F": "file",
    "L": "line",
    "R": "routine",
}
# An honest server has some twenty settings to tell of, or as many as its extensions add.
_MOST_PARAMETERS: Final = 1000
_MOST_PARAMETER_BYTES: Final = 1 << 20
_MOST_OF_A_NOTICE: Final = 2000
"""Characters of each of its texts that are logged."""
_LOG_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "LOG": logging.INFO,
    "INFO": logging.INFO,
    "NOTICE": logging.INFO,
    "WARNING": logging.WARNING,
}


class BodyReader:
    """Reads the fields of one message's body; every read is checked against what is there."""

    def __init__(self, frame: Frame) -> None:
        self._tag, self._body = frame
        self._at = 0

    @property
    def at(self) -> int:
        """Offset in the body of what is read next."""
        return self._at

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._body) - self._at

    def _fail(self, expected: str) -> ProtocolError:
        return ProtocolError(
            f"expected {expected} in message {self._tag!r}, got its end after "
            f"{len(self._body)} bytes (offset {self._at})",
            tag=self._tag,
            offset=self._at,
        )

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if not 0 <= size <= self.left:
            raise self._fail(f"a field of {size} bytes")
        self._at += size
        return self._body[self._at - size : self._at]

    def int16(self) -> int:
        """Return the next signed 16-bit integer."""
        return int(struct.unpack(">h", self.take(2))[0])

    def int32(self) -> int:
        """Return the next signed 32-bit integer."""
        return int(struct.unpack(">i", self.take(4))[0])

    def string(self) -> str:
        """Return the next zero-terminated string; what is not UTF-8 is kept as surrogates."""
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise self._fail("a zero-terminated string")
        text = self._body[self._at : end].decode("utf-8", "surrogateescape")
        self._at = end + 1
        return text

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.left:
            raise ProtocolError(
                f"expected the end of message {self._tag!r}, got {self.left} more bytes "
                f"(offset {self._at})",
                tag=self._tag,
                offset=self._at,
            )


def error_fields(frame: Frame) -> dict[str, str]:
    """Return the fields of an ErrorResponse or NoticeResponse by name; unknown ones are left
    out."""
    reader = BodyReader(frame)
    fields: dict[str, str] = {}
    while (code := reader.take(1)) != b"\0":
        text = reader.string()
        letter = code.decode("latin-1")
        if letter == "S":
            # Translated, and all there is before 9.6; V comes later and replaces it.
            fields.setdefault("severity", text)
        elif letter in _FIELD_NAMES:
            fields[_FIELD_NAMES[letter]] = text
    reader.finish()
    return fields


def _log_notice(fields: Mapping[str, str]) -> None:
    """Log what a notice says and advises, and of where it was raised the position of the change
    alone: the rest may be SQL with a secret in it."""
    fields = add_hint(fields, remedy(fields))
    severity = fields.get("severity", "NOTICE")
    message = _shortened(fields.get("message", ""))
    names = printable(_shortened(severity)), printable(_shortened(fields.get("sqlstate", "")))
    texts, plain = [repr(message)], [f"{names[0]} {names[1]}: {message}"]
    for name in ("detail", "hint"):
        if name in fields:
            text = _shortened(fields[name])
            texts.append(f"{name.upper()}: {text!r}")
            plain.append(f"{name.upper()}: {text}")
    if position := re.search(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}$", fields.get("where", "")):
        texts.append(f"LSN: {position[0]}")
        plain.append(texts[-1])
    level = _LOG_LEVELS.get(severity.rstrip("12345"), logging.INFO)
    # `notice`: the texts as they are, for a handler of its own that shows them by lines.
    shown = {"notice": tuple(plain)}
    notices.log(level, "%s %s: %s", *names, " ".join(texts), extra=shown)


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_OF_A_NOTICE else f"{text[:_MOST_OF_A_NOTICE]}..."


def unexpected(frame: Frame, expected: str) -> ProtocolError:
    """Return the error for a message that has no place here."""
    tag, body = frame
    return ProtocolError(
        f"expected {expected}, got message {tag!r} of {len(body)} bytes", tag=tag, offset=0
    )


class ServerState:
    """What the server told of itself: its settings, its process, its transaction status."""

    def __init__(self) -> None:
        self.parameters: dict[str, str] = {}
        self._parameter_bytes = 0
        self.protocol_version = 0
        """As agreed upon with the server: 0x30002 for 3.2; 0 before the session begins."""
        self.pid = 0
        self.cancel_key = b""
        self.transaction_status = b"I"
        self.codec = "utf-8"
        """Python's name for what text is in."""
        self.settings_due: Mapping[str, str] = {}
        """What is set ahead of the first command, see `session_settings`."""
        self.has_stopped_stream = False
        """Whether this side ended the last stream, which the server process remembers."""

    @property
    def version(self) -> int:
        """The server's version as PostgreSQL counts it: 180004 for 18.4; 0 where not told."""
        match = _VERSION.match(self.parameters.get("server_version", ""))
        return int(match[1]) * 10000 + int(match[2] or 0) if match else 0

    def receive(self) -> Conversation[Frame]:
        """Receive the next message that belongs to the conversation."""
        while True:
            frame: Frame = yield RECEIVE
            if not self.absorb(frame):
                return frame

    def absorb(self, frame: Frame) -> bool:
        """Take in a message that may come at any time; False if it is not one of those."""
        tag = frame[0]
        if tag == b"N":
            _log_notice(error_fields(frame))
            return True
        if tag == b"S":
            reader = BodyReader(frame)
            name, value = reader.string(), reader.string()
            reader.finish()
            self._set(name, value)
            return True
        return tag == b"A"  # a notification, which nobody on this connection asked for

    def _set(self, name: str, value: str) -> None:
        """Keep a setting; they may come for as long as the session lasts."""
        before = self.parameters.get(name)
        self._parameter_bytes += len(value) + len(name if before is None else "")
        self._parameter_bytes -= len(before or "")
        if self._parameter_bytes > _MOST_PARAMETER_BYTES or (
            before is None and len(self.parameters) >= _MOST_PARAMETERS
        ):
            raise ProtocolError(
                f"expected at most {_MOST_PARAMETERS} settings in {_MOST_PARAMETER_BYTES} bytes, "
                "got more",
                tag=b"S",
                offset=0,
            )
        self.parameters[name] = value

    def ready(self, frame: Frame) -> None:
        """Take in ReadyForQuery."""
        status = frame[1]
        if status not in (b"I", b"T", b"E"):
            raise ProtocolError(
                f"expected transaction status I, T or E in ReadyForQuery, got {status[:8]!r}",
                tag=b"Z",
                offset=0,
            )
        self.transaction_status = status
