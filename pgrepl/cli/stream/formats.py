"""A decoded message as a line: of text for people, of JSON for programs.

Law: no line can do anything to a terminal. Whatever a server sends, names and values alike, leaves
here with every character escaped that does not print: controls, ANSI escapes, line separators,
characters that reverse the direction of text. Nothing is lost by that: text uses the escapes of
PostgreSQL's ``E'...'`` strings, JSON its own.

Long values are taken piece by piece: nothing that the interpreter does in one go, during which no
other thread runs, takes so long that the server would miss a status.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

from ...codec import Row
from ...errors import DecodeError
from ...escapes import escaped, printable
from ...lsn import Lsn
from ...messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
    to_datetime,
)
from ..printing import json_escape

__all__ = ["Format", "JsonFormat", "TextFormat", "may_be_line", "table_name", "timestamp"]

_BOOL: Final = 16
# oid, int8, int2, int4, float4, float8, numeric: written without quotes.
_NUMBERS: Final = frozenset({26, 20, 21, 23, 700, 701, 1700})
_NUMBER: Final = re.compile(r"[-+.0-9eE]+|NaN|-?Infinity", re.ASCII)
_OMISSION: Final = "…"
_LONG: Final = 1 << 14
"""Characters or bytes of a value that is taken piece by piece; a row may have 1600 values."""
_PIECE: Final = 1 << 16
_Text = TypeVar("_Text", str, bytes)

# Where a word begins in a class's name, but for the first one.
_KINDS: Final = re.compile(r"(?<!^)[A-Z]")

# What a line of either format begins with.
_WORDS: Final = (
    *("BEGIN", "COMMIT", "DELETE", "INSERT", "MESSAGE"),
    *("ORIGIN", "PREPARE", "ROLLBACK", "STREAM", "TRUNCATE", "UPDATE"),
)
_BEGINNINGS: Final = (b'{"kind": "', *(f"{word} ".encode() for word in _WORDS))


class _Long:
    """A long value, which is no JSON yet."""

    def __init__(self, value: str | bytes) -> None:
        self.value = value


class _HasLongValue(Exception):
    """Raised where JSON would be made of a long value in one go."""


def _refuse(value: object) -> object:
    raise _HasLongValue


_encode: Final = json.JSONEncoder(ensure_ascii=False, default=_refuse).encode


def may_be_line(beginning: bytes) -> bool:
    """Whether a line that begins with these bytes, or has no more than them, may be one of a
    format. Zeros behind them, which a loss of power can leave of it, are nothing."""
    begun = beginning.rstrip(b"\0")
    return any(begun.startswith(each) or each.startswith(begun) for each in _BEGINNINGS)


class Format(Protocol):
    """Makes lines of the messages of one stream, which it must see in order."""

    def line(self, message: LogicalMessage, lsn: int) -> str | None:
        """Return the line, without a line end, or None for a message that has none.

        `lsn` is the position in the message's XLogData.
        """


class TextFormat:
    """Lines for people. `longest_value`: characters of a value that are shown, None for all."""

    def __init__(self, longest_value: int | None = None) -> None:
        self._longest = longest_value
        self._xid = 0

    def line(self, message: LogicalMessage, lsn: int) -> str | None:
        """Return the line; None for Relation and Type, which describe and change nothing.

        What comes in a block of a streamed transaction tells its xid, or a subtransaction's.
        """
        match message:
            case Relation() | Type():
                return None
            case Insert() | Update() | Delete() | Truncate() | Message():
                line = self._change(message)
                return line if message.xid is None else f"{line} [{message.xid}]"
            case Origin(position, name):
                return f"ORIGIN {_quoted(name)} at {position}"
            case Begin(final_lsn, commit_time, xid):
                self._xid = xid
                return f"BEGIN {xid} at {final_lsn} {timestamp(commit_time)}"
            case Commit(_, end_lsn, _):
                return f"COMMIT {self._xid} {end_lsn}"
            case StreamStart(xid, first_segment):
                return f"STREAM START {xid}{' first' if first_segment else ''}"
            case StreamStop():
                return "STREAM STOP"
            case StreamCommit(xid, _, end_lsn, commit_time):
                return f"STREAM COMMIT {xid} {end_lsn} {timestamp(commit_time)}"
            case StreamAbort(xid, subxid):
                return f"STREAM ABORT {xid}{f' of {subxid}' if subxid != xid else ''}"
        return _prepared(message)

    def _change(self, change: Insert | Update | Delete | Truncate | Message) -> str:
        match change:
            case Insert(relation, new):
                return f"INSERT {table_name(relation)} {self._row(new)}"
            case Update(relation, key, old, new):
                return f"UPDATE {table_name(relation)} {self._old(key, old)}{self._row(new)}"
            case Delete(relation, key, old):
                return f"DELETE {table_name(relation)} {self._old(key, old)}".rstrip()
            case Truncate(relations, cascade, restart_identity):
                tables = ", ".join(map(table_name, relations))
                identity = " RESTART IDENTITY" if restart_identity else ""
                return f"TRUNCATE {tables}{identity}{' CASCADE' if cascade else ''}"
            case Message(transactional, position, prefix, content):
                kind = "" if transactional else " not transactional"
                return f"MESSAGE{kind} at {position} {_quoted(prefix)} {self._content(content)}"

    def _old(self, key: Row | None, old: Row | None) -> str:
        if key is not None:
            return f"key({self._row(key)}) "
        return "" if old is None else f"old({self._row(old)}) "

    def _row(self, row: Row) -> str:
        return " ".join(
            f"{_identifier(column.name)}={self._value(value, column.type_oid)}"
            for column, value in zip(row.columns, _values(row), strict=True)
        )

    def _value(self, value: Any, type_oid: int) -> str:
        if value is None:
            return "NULL"
        if value is UNCHANGED:
            return "UNCHANGED"
        if isinstance(value, bytes):
            return self._shortened(_hex(value), r"'\x{}'")
        if type_oid in _NUMBERS and _NUMBER.fullmatch(value):
            return self._shortened(value, "{}")
        if type_oid == _BOOL and value in ("t", "f"):
            return "true" if value == "t" else "false"
        return self._shortened(value, "'{}'", _escaped)

    def _content(self, content: bytes) -> str:
        text = _decoded(content)
        return self._value(content if text is None else text, 0)

    def _shortened(
        self, value: str, around: str, escape: Callable[[str], str] = lambda text: text
    ) -> str:
        if self._longest is not None and len(value) > self._longest:
            return around.format(escape(value[: self._longest]) + _OMISSION)
        return around.format(escape(value))


def _prepared(message: LogicalMessage) -> str:
    match message:
        case BeginPrepare(prepare_lsn, _, prepare_time, xid, gid):
            return f"BEGIN PREPARE {xid} {_quoted(gid)} at {prepare_lsn} {timestamp(prepare_time)}"
        case Prepare(_, end_lsn, _, xid, gid):
            return f"PREPARE {xid} {_quoted(gid)} {end_lsn}"
        case StreamPrepare(_, end_lsn, prepare_time, xid, gid):
            return f"STREAM PREPARE {xid} {_quoted(gid)} {end_lsn} {timestamp(prepare_time)}"
        case CommitPrepared(_, end_lsn, commit_time, xid, gid):
            return f"COMMIT PREPARED {xid} {_quoted(gid)} {end_lsn} {timestamp(commit_time)}"
        case RollbackPrepared(_, end_lsn, _, rollback_time, xid, gid):
            return f"ROLLBACK PREPARED {xid} {_quoted(gid)} {end_lsn} {timestamp(rollback_time)}"
    raise AssertionError(f"no line for {type(message).__name__}")


class JsonFormat:
    """Lines of JSON, one object each.

    Keys are the same for every message of a ``kind``. A value is the server's text, null, or
    ``{"hex": ...}`` for a column sent in binary, and for text whose bytes are not of its encoding,
    as an SQL_ASCII database may have them; columns named in ``unchanged`` were left as they
    were, not sent, and are missing from the row. The content of a logical message is always
    ``{"hex": ...}``, with ``text`` beside it, null where it is no UTF-8. Positions are text, times
    ISO 8601 in UTC.
    """

    def __init__(self) -> None:
        self._xid: int | None = None

    def line(self, message: LogicalMessage, lsn: int) -> str:
        """Return the line."""
        if isinstance(message, Begin):
            self._xid = message.xid
        members = dict(self._members(message, Lsn(lsn)))
        if isinstance(message, Commit):
            self._xid = None
        try:
            return _shown(_encode(members))
        except _HasLongValue:
            return "".join(_pieces(members))

    def _members(self, message: LogicalMessage, lsn: Lsn) -> Iterator[tuple[str, Any]]:
        yield "kind", _KINDS.sub(r"_\g<0>", type(message).__name__).lower()
        if not isinstance(message, Relation | Type):
            # In a block of a streamed transaction, what comes has the number of its own.
            xid: int | None = getattr(message, "xid", None)
            yield "xid", self._xid if xid is None else xid
        match message:
            case Begin(final_lsn, commit_time):
                yield "final_lsn", str(final_lsn)
                yield "commit_time", timestamp(commit_time)
            case Commit(commit_lsn, end_lsn, commit_time):
                yield "commit_lsn", str(commit_lsn)
                yield "end_lsn", str(end_lsn)
                yield "commit_time", timestamp(commit_time)
            case Insert() | Update() | Delete():
                yield "lsn", str(lsn)
                yield from _change(message)
            case Truncate(relations, cascade, restart_identity):
                yield "lsn", str(lsn)
                yield "tables", [{"schema": each.schema, "table": each.name} for each in relations]
                yield "cascade", cascade
                yield "restart_identity", restart_identity
            case Message(transactional, position, prefix, content):
                yield "lsn", str(position)
                yield "transactional", transactional
                yield "prefix", prefix
                yield "content", _json_value(content)
                yield "text", _json_value(_decoded(content))
            case Origin(commit_lsn, name):
                yield "commit_lsn", str(commit_lsn)
                yield "name", name
            case Relation():
                yield from _relation(message)
            case StreamStart() | StreamCommit() | StreamAbort():
                yield from _streamed(message)
            case BeginPrepare() | Prepare() | StreamPrepare():
                yield "gid", message.gid
                yield "prepare_lsn", str(message.prepare_lsn)
                yield "end_lsn", str(message.end_lsn)
                yield "prepare_time", timestamp(message.prepare_time)
            case CommitPrepared() | RollbackPrepared():
                yield from _outcome(message)
            case Type(oid, schema, name):
                yield "oid", oid
                yield "schema", schema
                yield "name", name


def _change(change: Insert | Update | Delete) -> Iterator[tuple[str, Any]]:
    yield "schema", change.relation.schema
    yield "table", change.relation.name
    if isinstance(change, Update | Delete):
        yield "key", _json_row(change.key)
        yield "old", _json_row(change.old)
    if isinstance(change, Insert | Update):
        yield "new", _json_row(change.new)
        named = zip(change.new.keys(), _values(change.new), strict=True)
        yield "unchanged", [name for name, value in named if value is UNCHANGED]


def _streamed(message: StreamStart | StreamCommit | StreamAbort) -> Iterator[tuple[str, Any]]:
    match message:
        case StreamStart(_, first_segment):
            yield "first_segment", first_segment
        case StreamCommit(_, commit_lsn, end_lsn, commit_time):
            yield "commit_lsn", str(commit_lsn)
            yield "end_lsn", str(end_lsn)
            yield "commit_time", timestamp(commit_time)
        case StreamAbort(_, subxid, abort_lsn, abort_time):
            yield "subxid", subxid
            yield "abort_lsn", None if abort_lsn is None else str(abort_lsn)
            yield "abort_time", None if abort_time is None else timestamp(abort_time)


def _outcome(message: CommitPrepared | RollbackPrepared) -> Iterator[tuple[str, Any]]:
    yield "gid", message.gid
    if isinstance(message, CommitPrepared):
        yield "commit_lsn", str(message.commit_lsn)
        yield "end_lsn", str(message.end_lsn)
        yield "commit_time", timestamp(message.commit_time)
    else:
        yield "prepare_end_lsn", str(message.prepare_end_lsn)
        yield "end_lsn", str(message.rollback_end_lsn)
        yield "prepare_time", timestamp(message.prepare_time)
        yield "rollback_time", timestamp(message.rollback_time)


def _relation(relation: Relation) -> Iterator[tuple[str, Any]]:
    yield "oid", relation.oid
    yield "schema", relation.schema
    yield "table", relation.name
    yield "replica_identity", relation.replica_identity
    yield (
        "columns",
        [
            {
                "name": column.name,
                "type_oid": column.type_oid,
                "type_modifier": column.type_modifier,
                "is_key": column.is_key,
            }
            for column in relation.columns
        ],
    )


def _values(row: Row) -> Sequence[Any]:
    """Return a row's values; the bytes of those that are not of the encoding that was asked for."""
    try:
        return row.values()
    except DecodeError:
        return [_value_or_bytes(row, place) for place in range(len(row))]


def _value_or_bytes(row: Row, place: int) -> Any:
    try:
        return row[place]
    except DecodeError:
        return row.raw(place)


def _json_row(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    named = zip(row.keys(), _values(row), strict=True)
    return {name: _json_value(value) for name, value in named if value is not UNCHANGED}


def _json_value(value: str | bytes | None) -> Any:
    if value is None:
        return None
    if len(value) > _LONG:
        return _Long(value)
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _pieces(value: Any) -> Iterator[str]:
    """Yield the JSON of something that may have long values in it."""
    match value:
        case dict():
            opening = "{"
            for name, member in value.items():
                yield opening + _shown(_encode(name)) + ": "
                yield from _pieces(member)
                opening = ", "
            yield "{}" if opening == "{" else "}"
        case _Long(value=str() as text):
            yield '"'
            yield from (_shown(_encode(piece)[1:-1]) for piece in _cut(text))
            yield '"'
        case _Long(value=bytes() as content):
            yield '{"hex": "'
            yield from (piece.hex() for piece in _cut(content))
            yield '"}'
        case _:
            yield _shown(_encode(value))


def _cut(value: _Text) -> Iterator[_Text]:
    """Yield a long value in pieces."""
    for start in range(0, len(value), _PIECE):
        yield value[start : start + _PIECE]


def _hex(content: bytes) -> str:
    return "".join(piece.hex() for piece in _cut(content))


def _decoded(content: bytes) -> str | None:
    """Return what is text in a message's content, which can be anything, or None."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = "".join(map(decoder.decode, _cut(content)))
        return text + decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return None


def _shown(text: str) -> str:
    return escaped(text, json_escape)


def table_name(relation: Relation) -> str:
    """Return ``schema.table``, each quoted where it is no plain identifier."""
    return f"{_identifier(relation.schema)}.{_identifier(relation.name)}"


def timestamp(microseconds: int) -> str:
    """Return a time as ISO 8601 in UTC; as a number of microseconds outside the years 1 to 9999."""
    try:
        moment = to_datetime(microseconds)
    except OverflowError:
        return f"2000-01-01T00:00:00Z{microseconds:+d}us"
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@functools.lru_cache(maxsize=4096)  # the same few names come in every row
def _identifier(name: str) -> str:
    if name.isidentifier() and name == name.lower():
        return name
    return '"' + printable(name.replace("\\", r"\\").replace('"', '""')) + '"'


def _quoted(text: str) -> str:
    return f"'{_escaped(text)}'"


def _escaped(text: str) -> str:
    """Return the inside of a literal: quotes doubled, backslashes doubled, the rest printable."""
    return "".join(printable(piece.replace("\\", r"\\").replace("'", "''")) for piece in _cut(text))
