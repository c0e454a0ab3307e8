"""What can go wrong, by whom it was caused.

`Error` is the base of all. The caller's own mistake is a `UsageError`; a peer that breaks the
protocol is a `ProtocolError`, or a `DecodeError` when the bytes inside a message are at fault; what
a server reports is a `ServerError`; the rest tells at which step a connection failed. A time limit
that ran out is Python's own `TimeoutError`, and leaves the connection usable.

Every error says whether trying again can help: `Error.retryable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .lsn import Lsn
from .public import imported_from
from .remedies import POOLER_REFUSAL, add_hint, remedy

__all__ = [
    "AuthenticationError",
    "AuthenticationRejected",
    "BackupStorageError",
    "ConnectionFailed",
    "DecodeError",
    "Error",
    "ProtocolError",
    "PublicationNotFound",
    "ServerError",
    "ServerShutdown",
    "SlotExists",
    "SlotGap",
    "SlotInUse",
    "SlotInvalidated",
    "SlotNotFound",
    "SpoolError",
    "SystemMismatch",
    "TLSError",
    "UsageError",
    "WalStorageError",
    "server_error",
]

# Connections lost or refused, resources that ran out, a server that comes or goes, a slot or a lock
# that somebody holds, a session that was idle for too long, a standby's conflict with recovery. All
# the rest comes again until somebody acts, and 57014 is how somebody has acted.
# Source: PostgreSQL documentation, "PostgreSQL Error Codes".
_RETRYABLE_CLASSES: Final = ("08", "53")
_RETRYABLE_STATES: Final = frozenset(
    {
        "25P03",  # idle_in_transaction_session_timeout
        "25P04",  # transaction_timeout
        "40001",  # serialization_failure, which conflicts with recovery are too
        "40P01",  # deadlock_detected
        "55006",  # object_in_use
        "55P03",  # lock_not_available
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "57P05",  # idle_session_timeout
        "72000",  # snapshot_too_old
    }
)

# Routines are never translated, messages are. Each of these names what it did not find, or cannot
# use, in one kind of error only.
_PUBLICATION_ROUTINES: Final = frozenset({"GetPublicationByName", "get_publication_oid"})
# A server that shuts down lets no walsender begin anything: "cannot execute new commands while WAL
# sender is in stopping mode".
_NO_NEW_COMMANDS: Final = ("55000", "exec_replication_command")
_DECODING_ROUTINES: Final = frozenset({"CreateDecodingContext", "StartLogicalReplication"})
# "wal_removed", a word of the catalogue, stands untranslated in the detail.
_REASON: Final = re.compile(r"[a-z]+(?:_[a-z]+)+", re.ASCII)
_LSN: Final = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b", re.ASCII)
_QUOTED: Final = re.compile(
    '"(?P<plain>.+)"|[«»„“][\u00a0\u202f]?(?P<other>.+?)[\u00a0\u202f]?[»«“”]', re.DOTALL
)


@imported_from("pgrepl")
class Error(Exception):
    """Base of every error that pgrepl raises of its own."""

    @property
    def retryable(self) -> bool:
        """Whether the same, tried again after a while, may succeed without anybody acting."""
        return False


@imported_from("pgrepl")
class UsageError(Error):
    """The caller asked for something that makes no sense here, or not in this state."""


@imported_from("pgrepl")
class UnknownTypeWarning(UserWarning):
    """A rule of `types` has a name or OID that no type of the database has, as the stream begins.

    Most likely the name is misspelt. It is no error: one set of rules may serve many databases, and
    a type that is made later answers to it.
    """


@imported_from("pgrepl")
class ConnectionFailed(Error):
    """No connection could be made, or the one there was is lost."""

    @property
    def retryable(self) -> bool:
        """True: servers and networks come back."""
        return True


@imported_from("pgrepl")
class TLSError(Error):
    """TLS could not be established as the connection's sslmode demands.

    `interrupted`: the connection ended in the middle of the handshake, as when a server restarts.
    `after_handshake`: there was TLS, and then the server turned down what the client had shown.
    """

    def __init__(self, message: str, *, interrupted: bool = False, after_handshake: bool = False):
        super().__init__(message)
        self.interrupted = interrupted
        self.after_handshake = after_handshake

    @property
    def retryable(self) -> bool:
        """True where it was `interrupted`: everything else comes again until somebody acts."""
        return self.interrupted


@imported_from("pgrepl")
class AuthenticationError(Error):
    """Client and server could not agree on who is who."""


@imported_from("pgrepl")
class SpoolError(Error):
    """Streamed transactions could not be put aside, or not be read back.

    The stream stops, and nothing that was not acknowledged is lost. What the system said is the
    error's cause.
    """


@imported_from("pgrepl")
class WalStorageError(Error):
    """Received WAL could not be stored, or what is stored already is not as it should be.

    Nothing of it is reported to the server as flushed, then or later. What the system said is the
    error's cause, where it is the system that said something.
    """


@imported_from("pgrepl")
class BackupStorageError(Error):
    """A base backup could not be stored. There is none, and what was made of it is removed.

    What the system said is the error's cause.
    """


@imported_from("pgrepl")
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


@imported_from("pgrepl")
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


@imported_from("pgrepl")
class ServerError(Error):
    """The server answered with an ErrorResponse, or its answers show that it cannot do what is
    wanted.

    `fields` holds what it sent, by name: ``severity``, ``sqlstate``, ``message`` and, where sent,
    ``detail``, ``hint``, ``position``, ``where``, ``schema``, ``table``, ``column``, ``data_type``,
    ``constraint``, ``file``, ``line``, ``routine`` and more. Source: PostgreSQL documentation,
    "Error and Notice Message Fields". What pgrepl knows to do about it stands behind the server's
    hint, on a line of its own.
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

    @property
    def retryable(self) -> bool:
        """Whether the same may succeed after a while; told by `sqlstate`."""
        if self.message.startswith(POOLER_REFUSAL):
            return False  # 08P01, which a pooler uses for all that it has to say
        return self.sqlstate in _RETRYABLE_STATES or self.sqlstate.startswith(_RETRYABLE_CLASSES)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


@imported_from("pgrepl")
class AuthenticationRejected(AuthenticationError, ServerError):
    """The server refused this user, password or origin (SQLSTATE class 28)."""


@imported_from("pgrepl")
class SlotNotFound(ServerError):
    """The replication slot does not exist."""


@imported_from("pgrepl")
class SlotExists(ServerError):
    """The replication slot to be created exists already, perhaps as another one than is wanted."""


@imported_from("pgrepl")
class SlotInUse(ServerError):
    """Another connection uses the slot; `pid` is its server process, or None where not told."""

    @property
    def pid(self) -> int | None:
        """Process id of the server process that holds the slot."""
        # The one number of the message, in every language: slot names stand in quotes before it.
        digits = self.message.rpartition(" ")[2].rstrip(".。")
        return int(digits) if digits.isascii() and digits.isdigit() else None


@imported_from("pgrepl")
class SlotInvalidated(ServerError):
    """The server has given up the slot: the changes that it kept are gone, and it is of no use.

    `reason` as in pg_replication_slots: ``wal_removed``, ``rows_removed``,
    ``wal_level_insufficient``, ``idle_timeout`` or one of a later version; None where the server
    does not tell, as before PostgreSQL 17.
    """

    def __init__(self, fields: Mapping[str, str], *, reason: str | None = None):
        super().__init__(fields)
        self.reason = reason


@imported_from("pgrepl")
class SlotGap(ServerError):
    """Slot or server cannot go on from where this consumer is: changes would be missing.

    `wanted`: the position to go on from; `available`: the position that there is instead. It is the
    slot's confirmed_flush_lsn, and higher, where the slot has moved on from a token: it was
    advanced, dropped and created again, or acknowledged further, by another consumer or by a stream
    that had nothing to deliver, which loses nothing but cannot be told apart. It is lower where the
    server does not have what was already consumed: the end of its WAL, or where its timeline left
    the one that is wanted.
    """

    def __init__(self, fields: Mapping[str, str], *, wanted: Lsn, available: Lsn):
        super().__init__(fields)
        self.wanted = wanted
        self.available = available


@imported_from("pgrepl")
class PublicationNotFound(ServerError):
    """Publications do not exist; `names`: which, empty where the server's words do not tell.

    `lsn`: of the change at which one did not exist, though it may exist now: the server looks
    publications up as of each change. None where none existed when the stream was to begin.
    """

    def __init__(
        self, fields: Mapping[str, str], *, names: Iterable[str] = (), lsn: Lsn | None = None
    ):
        super().__init__(fields)
        self.names = tuple(names)
        self.lsn = lsn


@imported_from("pgrepl")
class SystemMismatch(ServerError):
    """This server does not hold the history that the consumer's position belongs to.

    `expected` and `got`: system identifier and timeline.
    """

    def __init__(
        self, fields: Mapping[str, str], *, expected: tuple[str, int], got: tuple[str, int]
    ):
        super().__init__(fields)
        self.expected = expected
        self.got = got


@imported_from("pgrepl")
class ServerShutdown(ServerError):
    """The server is shutting down, or ended this session on an administrator's order."""


def server_error(fields: Mapping[str, str]) -> ServerError:
    """Return the error that fits an ErrorResponse's fields, with what is known to do about it."""
    fields = add_hint(fields, remedy(fields))
    sqlstate = fields.get("sqlstate", "")
    routine = fields.get("routine", "")
    if sqlstate.startswith("28"):
        return AuthenticationRejected(fields)
    if sqlstate in ("57P01", "57P02") or (sqlstate, routine) == _NO_NEW_COMMANDS:
        return ServerShutdown(fields)
    # These are used for many objects; the routine that raised them is never translated.
    if sqlstate == "42704" and routine.startswith("ReplicationSlot"):
        return SlotNotFound(fields)
    if sqlstate == "42710" and routine.startswith("ReplicationSlot"):
        return SlotExists(fields)
    if sqlstate == "55006" and routine.startswith("ReplicationSlot"):
        return SlotInUse(fields)
    if sqlstate == "42704" and routine in _PUBLICATION_ROUTINES:
        names = _quoted_names(fields.get("message", ""))
        return PublicationNotFound(fields, names=names, lsn=_position(fields.get("where", "")))
    if sqlstate == "55000":
        return _wrong_state(fields, routine)
    return ServerError(fields)


def _wrong_state(fields: Mapping[str, str], routine: str) -> ServerError:
    """55000: tell a slot that was invalidated from other things that are in the wrong state."""
    detail = fields.get("detail", "")
    if routine.startswith("ReplicationSlot") and (reason := _REASON.search(detail)):
        return SlotInvalidated(fields, reason=reason[0])
    # Up to 17 no field tells it apart by its value. Of what these routines report, a physical slot
    # and one of another database have no detail, and one that is being synchronized has a hint.
    if routine in _DECODING_ROUTINES and detail and "hint" not in fields:
        return SlotInvalidated(fields)
    return ServerError(fields)


def _quoted_names(message: str) -> tuple[str, ...]:
    """Return the one name that a message quotes, by whatever quotes its language has."""
    match = _QUOTED.search(message)
    return (match["plain"] or match["other"],) if match else ()


def _position(where: str) -> Lsn | None:
    """Return the LSN of a change that a plugin was called for, in every language."""
    found = _LSN.findall(where)
    return Lsn(found[-1]) if found else None


def _sentence(fields: Mapping[str, str]) -> str:
    lines = [
        f"{fields.get('severity', 'ERROR')} {fields.get('sqlstate', '?????')}: "
        f"{fields.get('message', '(the server sent no message)')}"
    ]
    lines += [f"{name.upper()}: {fields[name]}" for name in ("detail", "hint") if name in fields]
    # What a server sends may hold terminal escapes; an error must be safe to print.
    return "\n".join(_printable(line) for line in lines)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    # A byte that is not UTF-8 was kept as a surrogate: show the byte.
    code = ord(character)
    return f"\\x{code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code:02x}"


def _restore(cls: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    """Rebuild a pickled error without calling its __init__, whose arguments differ."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
