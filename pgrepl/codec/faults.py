"""The words for what is wrong with a peer's bytes.

A twin finds a fault as numbers - which one, in which message, at which offset, what was expected
and what came - and this page turns them into one error, so that both twins say the same. The
numbers of the faults are those of ``enum pgr_fault`` in src_c/pgr_base.h; the core knows nothing of
those from 40 on, which a payload has only in the light of other ones.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ..errors import DecodeError, ProtocolError
from ..lsn import Lsn, encode_lsn
from ..messages import Relation

__all__ = ["Fault", "Flaw", "RuleFailed", "column_of", "fault_error", "value_of"]


class RuleFailed(Exception):
    """A rule of `types` raised what is the cause of this, on its way to the row."""

    def __init__(self, type_name: str) -> None:
        super().__init__(type_name)
        self.type_name = type_name


class Flaw(Exception):
    """A fault as the arguments of `fault_error`, on its way up to `Decoder.feed`."""


class Fault(IntEnum):
    """What can be wrong. Below `LOGICAL_EMPTY` the frame is at fault, from there on the payload."""

    FRAME_TAG = 1
    FRAME_LENGTH = 2
    COPY_EMPTY = 3
    COPY_TAG = 4
    WAL_HEADER = 5
    KEEPALIVE_SIZE = 6
    LOGICAL_EMPTY = 16
    LOGICAL_TAG = 17
    TRUNCATED = 18
    UNTERMINATED = 19
    TRAILING = 20
    COLUMN_LENGTH = 21
    COLUMN_KIND = 22
    TUPLE_MARK = 23
    COUNT = 24
    FLAGS = 25
    IDENTITY = 26
    STREAM_OPEN = 27
    STREAM_CLOSED = 28
    TRANSACTION_OPEN = 29
    TRANSACTION_CLOSED = 30
    RELATION_UNKNOWN = 40
    COLUMN_COUNT = 41
    ENCODING = 42
    VALUE = 43
    STREAM_UNKNOWN = 44
    RULE = 45


# {tag}: of the message, readable; {expected}, {got}: numbers; {byte}: `got` as a readable byte.
_WORDS: Final = {
    Fault.FRAME_TAG: "expected the tag of a backend message, got {byte}",
    Fault.FRAME_LENGTH: "expected a length between 4 and {expected} for message {tag}, got {got}",
    Fault.COPY_EMPTY: "expected XLogData or a keepalive in a CopyData message, got an empty one",
    Fault.COPY_TAG: "expected 'w' (XLogData) or 'k' (keepalive) in a CopyData message, got {byte}",
    Fault.WAL_HEADER: "expected an XLogData message of at least {expected} bytes, got {got}",
    Fault.KEEPALIVE_SIZE: "expected a keepalive of {expected} bytes, got {got}",
    Fault.LOGICAL_EMPTY: "expected a pgoutput message, got no bytes",
    Fault.LOGICAL_TAG: (
        "expected the tag of a pgoutput message of protocol version {expected}, got {byte}"
    ),
    Fault.TRUNCATED: "expected {expected} more bytes in message {tag}, got {got}",
    Fault.UNTERMINATED: "expected a zero byte at the end of a string in message {tag}, got none",
    Fault.TRAILING: "expected the end of message {tag}, got {got} more bytes",
    Fault.COLUMN_LENGTH: "expected a column length of 0 or more in message {tag}, got {got}",
    Fault.COLUMN_KIND: "expected column kind 'n', 'u', 't' or 'b' in message {tag}, got {byte}",
    Fault.TUPLE_MARK: "expected a tuple mark 'N', 'K' or 'O' that fits message {tag}, got {byte}",
    Fault.COUNT: "expected a count of 0 or more that fits message {tag}, got {got}",
    Fault.FLAGS: "expected known flags in message {tag}, got {got}",
    Fault.IDENTITY: "expected replica identity 'd', 'n', 'f' or 'i' in message {tag}, got {byte}",
    Fault.STREAM_OPEN: (
        "expected a message that can be inside of a stream block, got message {tag} in the one "
        "of transaction {got}"
    ),
    Fault.STREAM_CLOSED: (
        "expected a stream block to begin first, got message {tag}, which must be inside of one"
    ),
    Fault.TRANSACTION_OPEN: (
        "expected the transaction that {byte} began to end first, got message {tag}"
    ),
    Fault.TRANSACTION_CLOSED: "expected a transaction to begin first, got message {tag}",
    Fault.RELATION_UNKNOWN: (
        "expected a relation that was described before message {tag}, got OID {got}"
    ),
    Fault.COLUMN_COUNT: (
        "expected {expected} columns as the relation has in message {tag}, got {got}"
    ),
    Fault.STREAM_UNKNOWN: (
        "expected a transaction that was streamed from its first block on, got message {tag} of "
        "transaction {got}"
    ),
    Fault.VALUE: "expected a value that can be decoded in message {tag}, got another",
    Fault.RULE: (
        "expected a rule of `types` to make a value of what came in message {tag}, got an "
        "exception; row.raw() gives the bytes"
    ),
    Fault.ENCODING: (
        "expected text that can be decoded in message {tag}, got other bytes, which row.raw() gives"
    ),
}


def fault_error(
    fault: int,
    tag: int,
    offset: int,
    expected: int = 0,
    got: int = 0,
    *,
    where: str = "",
    lsn: int | None = None,
) -> ProtocolError:
    """Return the error for a fault: a `ProtocolError` for a frame, a `DecodeError` for a payload.

    `where` names what was being read, ``column "price" of public.item`` for instance; `lsn` is the
    WAL position of the message, where known.
    """
    text = _WORDS[Fault(fault)].format(
        tag=_readable(tag), expected=expected, got=got, byte=_readable(got)
    )
    if where:
        text = f"{text}, in {where}"
    if fault < Fault.LOGICAL_EMPTY:
        return ProtocolError(f"{text} (offset {offset})", tag=bytes((tag,)), offset=offset)
    position = f"offset {offset}" if lsn is None else f"offset {offset}, LSN {encode_lsn(lsn)}"
    return DecodeError(
        f"{text} ({position})",
        tag=None if fault == Fault.LOGICAL_EMPTY else bytes((tag,)),
        offset=offset,
        lsn=None if lsn is None else Lsn(lsn),
    )


def column_of(relation: Relation, position: int) -> str:
    """Return the words for a column of a relation, counted from 0, as `where` for an error."""
    name = _name(relation.columns[position].name)
    return f'column "{name}" of {_name(relation.schema)}.{_name(relation.name)}'


def value_of(relation: Relation, position: int, error: ValueError | RuleFailed) -> str:
    """Return the words for a column whose value made its decoder fail, as `where` for an error."""
    if isinstance(error, RuleFailed):
        # What it says may be anything, the value included; it is the cause of the error.
        kind = type(error.__cause__).__name__
        return f"{column_of(relation, position)}, type {_name(error.type_name)}: {kind}"
    reason = str(error)
    shown = reason if len(reason) <= 200 and reason.isprintable() else type(error).__name__
    return f"{column_of(relation, position)}: {shown}"


def _name(name: str) -> str:
    """Return a name from the wire in a form that is safe to print, and short enough to read."""
    # PostgreSQL's names end at 63 bytes. Only a hostile server sends one that is longer.
    shown = name if len(name) <= 63 else f"{name[:60]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def _readable(byte: int) -> str:
    """Return a byte as a reader can recognise it: 'd', or 0x07 where it has no glyph."""
    return repr(chr(byte)) if 0x20 < byte < 0x7F else f"0x{byte & 0xFF:02x}"
