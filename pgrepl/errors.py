"""What can go wrong, by whom it was caused.

`Error` is the base of all. The caller's own mistake is a `UsageError`; a peer that breaks the
protocol is a `ProtocolError`, or a `DecodeError` when the bytes inside a message are at fault; what
a server reports is a `ServerError`; the rest tells at which step a connection failed. A time limit
that ran out is Python's own `TimeoutError`, and leaves the connection usable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "AuthenticationError",
    "AuthenticationRejected",
    "ConnectionFailed",
    "DecodeError",
    "Error",
    "ProtocolError",
    "ServerError",
    "ServerShutdown",
    "SlotInUse",
    "SlotNotFound",
    "TLSError",
    "UsageError",
    "server_error",
]


class Error(Exception):
    """Base of every error that pgrepl raises of its own."""


class UsageError(Error):
    """The caller asked for something that makes no sense here, or not in this state."""


class ConnectionFailed(Error):
    """No connection could be made, or the one there was is lost."""


class TLSError(Error):
    """TLS could not be established as the connection's sslmode demands."""


class AuthenticationError(Error):
    """Client and server could not agree on who is who."""


class ProtocolError(Error):
    """The peer sent what the protocol does not allow here. The connection is closed.

    `tag`: the message's tag byte, or None; `offset`: of the offending field in its message, or
    None.
    """

    def __init__(self, message: str, *, tag: bytes | None = None, offset: int | None = None):
        super().__init__(message)
        self.tag = tag
        self.offset = offset

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class DecodeError(ProtocolError):
    """A message's contents cannot be decoded. The stream stops; nothing of it is acknowledged.

    `tag` and `offset` as for `ProtocolError`; `lsn`: WAL position of the message, where known.
    """

    def __init__(
        self,
        message: str,
        *,
        tag: bytes | None = None,
        offset: int | None = None,
        lsn: int | None = None,
    ):
        super().__init__(message, tag=tag, offset=offset)
        self.lsn = lsn


class ServerError(Error):
    """The server answered with an ErrorResponse.

    `fields` holds what it sent, by name: ``severity``, ``sqlstate``, ``message`` and, where sent,
    ``detail``, ``hint``, ``position``, ``where``, ``schema``, ``table``, ``column``, ``data_type``,
    ``constraint``, ``file``, ``line``, ``routine`` and more. Source: PostgreSQL documentation,
    "Error and Notice Message Fields".
    """

    def __init__(self, fields: Mapping[str, str]):
        self.fields = dict(fields)
        super().__init__(_sentence(self.fields))

    @property
    def sqlstate(self) -> str:
        """The five-character code, ``42704`` for instance; empty where the server sent none."""
        return self.fields.get("sqlstate", "")

    @property
    def severity(self) -> str:
        """``ERROR``, ``FATAL`` or ``PANIC``, never translated by the server."""
        return self.fields.get("severity", "")

    @property
    def message(self) -> str:
        """The server's primary message."""
        return self.fields.get("message", "")

    @property
    def detail(self) -> str | None:
        """The server's detail, or None."""
        return self.fields.get("detail")

    @property
    def hint(self) -> str | None:
        """The server's hint, or None."""
        return self.fields.get("hint")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class AuthenticationRejected(AuthenticationError, ServerError):
    """The server refused this user, password or origin (SQLSTATE class 28)."""


class SlotNotFound(ServerError):
    """The replication slot does not exist."""


class SlotInUse(ServerError):
    """Another connection uses the slot; `pid` is its server process, or None where not told."""

    @property
    def pid(self) -> int | None:
        """Process id of the server process that holds the slot."""
        # The one number of the message, in every language: slot names stand in quotes before it.
        digits = self.message.rpartition(" ")[2].rstrip(".。")
        return int(digits) if digits.isascii() and digits.isdigit() else None


class ServerShutdown(ServerError):
    """The server is shutting down, or ended this session on an administrator's order."""


def server_error(fields: Mapping[str, str]) -> ServerError:
    """Return the error that fits an ErrorResponse's fields."""
    sqlstate = fields.get("sqlstate", "")
    routine = fields.get("routine", "")
    if sqlstate.startswith("28"):
        return AuthenticationRejected(fields)
    if sqlstate in ("57P01", "57P02"):
        return ServerShutdown(fields)
    # 42704 and 55006 are used for many objects; the routine that raised them is never translated.
    if sqlstate == "42704" and routine.startswith("ReplicationSlot"):
        return SlotNotFound(fields)
    if sqlstate == "55006" and routine.startswith("ReplicationSlot"):
        return SlotInUse(fields)
    return ServerError(fields)


def _sentence(fields: Mapping[str, str]) -> str:
    lines = [
        f"{fields.get('severity', 'ERROR')} {fields.get('sqlstate', '?????')}: "
        f"{fields.get('message', '(the server sent no message)')}"
    ]
    lines += [f"{name.upper()}: {fields[name]}" for name in ("detail", "hint") if name in fields]
    # What a server sends may hold terminal escapes; an error must be safe to print.
    return "\n".join(_printable(line) for line in lines)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def _restore(cls: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    """Rebuild a pickled error without calling its __init__, whose arguments differ."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
