"""pgoutput, pure Python: the twin of pgrepl/codec/_native/pgoutput.pyx and src_c/pgr_pgoutput.c.

A payload is checked to its last byte before anything of it is decoded, and fields in the order of
the wire, so that of several faults both twins find the same one first.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, final

from ...errors import ProtocolError
from ...lsn import Lsn
from ...messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Column,
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
    Row,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from ..dialect import Dialect
from ..faults import Fault, column_of, fault_error
from ..relations import Relations

__all__ = ["Decoder"]

_U8: Final = struct.Struct(">B")
_I16: Final = struct.Struct(">h")
_I32: Final = struct.Struct(">i")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_BEGIN: Final = struct.Struct(">QqI")
_COMMIT: Final = struct.Struct(">QQq")
_ABORT: Final = struct.Struct(">II")
_ABORT_DETAILS: Final = struct.Struct(">Qq")
_PREPARED: Final = struct.Struct(">QQqI")
_ROLLBACK_PREPARED: Final = struct.Struct(">QQqqI")
_ATTRIBUTE_TYPE: Final = struct.Struct(">Ii")

_NULL, _UNCHANGED, _TEXT, _BINARY = b"nutb"
_NEW, _KEY, _OLD = b"NKO"


class _Flaw(Exception):
    """A fault as the arguments of `fault_error`, on its way up to `Decoder.feed`."""


class _Span(NamedTuple):
    start: int
    stop: int


class _Tuple(NamedTuple):
    mark: int
    offset: int  # of the column count
    columns: list[tuple[int, int, int]]  # kind, and where the value starts and stops


class _Cursor:
    """Reads fields one after the other; the first one that is not there raises."""

    __slots__ = ("at", "data", "end", "xid")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 1  # behind the tag
        self.end = len(data)
        self.xid: int | None = None  # of a message that has one

    def flaw(
        self, fault: Fault, offset: int, expected: int = 0, got: int = 0, where: str = ""
    ) -> _Flaw:
        return _Flaw(fault, self.data[0], offset, expected, got, where)

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        at = self.at
        if self.end - at < layout.size:
            raise self._truncated(layout)
        self.at = at + layout.size
        return layout.unpack_from(self.data, at)

    def _truncated(self, layout: struct.Struct) -> _Flaw:
        sizes = (struct.calcsize(f">{code}") for code in layout.format[1:])
        at = self.at
        while (left := self.end - at) >= (size := next(sizes)):
            at += size
        return self.flaw(Fault.TRUNCATED, at, size, left)

    def one(self, layout: struct.Struct) -> int:
        value: int = self.take(layout)[0]
        return value

    def flags(self, known: int) -> int:
        flags = self.one(_U8)
        if flags & ~known:
            raise self.flaw(Fault.FLAGS, self.at - 1, known, flags)
        return flags

    def count(self, layout: struct.Struct) -> int:
        count = self.one(layout)
        if count < 0:
            raise self.flaw(Fault.COUNT, self.at - layout.size, 0, count)
        return count

    def span(self, size: int) -> _Span:
        left = self.end - self.at
        if left < size:
            raise self.flaw(Fault.TRUNCATED, self.at, size, left)
        self.at += size
        return _Span(self.at - size, self.at)

    def cstr(self) -> _Span:
        start = self.at
        stop = self.data.find(0, start)
        if stop < 0:
            raise self.flaw(Fault.UNTERMINATED, start, 0, self.end - start)
        self.at = stop + 1
        return _Span(start, stop)

    def row(self, mark: int) -> _Tuple:
        """Read the tuple behind a mark: where the time goes, hence no call for each field."""
        offset = self.at
        count = self.count(_I16)
        data, end, at = self.data, self.end, self.at
        columns = []
        for _ in range(count):
            if at == end:
                raise self.flaw(Fault.TRUNCATED, at, 1, 0)
            kind = data[at]
            at += 1
            size = 0
            if kind in (_TEXT, _BINARY):
                if end - at < 4:
                    raise self.flaw(Fault.TRUNCATED, at, 4, end - at)
                size = _I32.unpack_from(data, at)[0]
                if size < 0:
                    raise self.flaw(Fault.COLUMN_LENGTH, at, 0, size)
                at += 4
                if end - at < size:
                    raise self.flaw(Fault.TRUNCATED, at, size, end - at)
            elif kind != _NULL and kind != _UNCHANGED:
                raise self.flaw(Fault.COLUMN_KIND, at - 1, 0, kind)
            columns.append((kind, at, at + size))
            at += size
        self.at = at
        return _Tuple(mark, offset, columns)

    def finish(self) -> None:
        if self.at < self.end:
            raise self.flaw(Fault.TRAILING, self.at, 0, self.end - self.at)

    def text(self, span: _Span, where: str) -> str:
        try:
            return self.data[span.start : span.stop].decode()
        except UnicodeDecodeError:
            raise self.flaw(Fault.ENCODING, span.start, where=where) from None


@final
class Decoder:
    """Decodes pgoutput payloads; see `pgrepl.codec.abc.Decoder`."""

    __slots__ = ("_block", "_dialect", "_failed", "_relations")

    def __init__(self, proto_version: int = 1, streaming: str = "off") -> None:
        self._dialect = Dialect.of(proto_version, streaming)
        self._relations: Relations[Relation] = Relations()
        self._block: int | None = None  # the transaction whose stream block is open
        self._failed: Callable[[], ProtocolError] | None = None

    def feed(self, payload: Any, lsn: int | None = None) -> LogicalMessage:
        """Decode one message from any bytes-like object or an `XLogData`.

        Raises `DecodeError`, and raises it again for whatever comes after that.
        """
        if self._failed is not None:
            raise self._failed()
        data = _contents(payload)
        try:
            return self._message(data)
        except _Flaw as flaw:
            *numbers, where = flaw.args
        # Not the error is kept but how to make it: its traceback would hold on to the payload.
        position = getattr(payload, "wal_start", None) if lsn is None else lsn
        self._failed = partial(fault_error, *numbers, where=where, lsn=position)
        raise self._failed()

    def _message(self, data: bytes) -> LogicalMessage:
        if not data:
            raise _Flaw(Fault.LOGICAL_EMPTY, 0, 0, 1, 0, "")
        rule = _RULES.get(data[0])
        version = self._dialect.proto_version
        if rule is None or version < rule.since:
            raise _Flaw(Fault.LOGICAL_TAG, data[0], 0, version, data[0], "")
        cursor = _Cursor(data)
        if self._block is None:
            if not rule.outside:
                raise cursor.flaw(Fault.STREAM_CLOSED, 0)
        elif not rule.inside:
            raise cursor.flaw(Fault.STREAM_OPEN, 0, 0, self._block)
        elif rule.marked:
            cursor.xid = cursor.one(_U32)
        return rule.read(self, cursor)

    def _begin(self, cursor: _Cursor) -> Begin:
        final_lsn, commit_time, xid = cursor.take(_BEGIN)
        cursor.finish()
        return Begin(Lsn(final_lsn), commit_time, xid)

    def _commit(self, cursor: _Cursor) -> Commit:
        cursor.flags(known=0)
        commit_lsn, end_lsn, commit_time = cursor.take(_COMMIT)
        cursor.finish()
        return Commit(Lsn(commit_lsn), Lsn(end_lsn), commit_time)

    def _origin(self, cursor: _Cursor) -> Origin:
        commit_lsn = cursor.one(_U64)
        name = cursor.cstr()
        cursor.finish()
        return Origin(Lsn(commit_lsn), cursor.text(name, "the origin's name"))

    def _relation(self, cursor: _Cursor) -> Relation:
        oid = cursor.one(_U32)
        schema, name = cursor.cstr(), cursor.cstr()
        identity = cursor.one(_U8)
        if identity not in b"dnfi":
            raise cursor.flaw(Fault.IDENTITY, cursor.at - 1, 0, identity)
        attributes = []
        for _ in range(cursor.count(_I16)):
            is_key = bool(cursor.flags(known=1))
            attributes.append((is_key, cursor.cstr(), cursor.take(_ATTRIBUTE_TYPE)))
        cursor.finish()

        owner = f"relation {oid}"
        schema_name = cursor.text(schema, f"the schema of {owner}") or "pg_catalog"
        relation_name = cursor.text(name, f"the name of {owner}")
        columns = []
        for number, (is_key, name, (type_oid, type_modifier)) in enumerate(attributes, 1):
            column_name = cursor.text(name, f"the name of column {number} of {owner}")
            columns.append(Column(column_name, type_oid, type_modifier, is_key))
        relation = Relation(
            oid, schema_name, relation_name, chr(identity), tuple(columns), cursor.xid
        )
        if self._block is None or cursor.xid is None:
            self._relations.describe(oid, relation)
        else:
            self._relations.describe_streamed(self._block, oid, relation, cursor.xid)
        return relation

    def _type(self, cursor: _Cursor) -> Type:
        oid = cursor.one(_U32)
        schema, name = cursor.cstr(), cursor.cstr()
        cursor.finish()
        return Type(
            oid,
            cursor.text(schema, f"the schema of type {oid}") or "pg_catalog",
            cursor.text(name, f"the name of type {oid}"),
            cursor.xid,
        )

    def _insert(self, cursor: _Cursor) -> Insert:
        offset, oid = cursor.at, cursor.one(_U32)
        new = _marked_tuple(cursor, _NEW)
        cursor.finish()
        relation = self._described(cursor, oid, offset)
        return Insert(relation, _row(cursor, relation, new), cursor.xid)

    def _update(self, cursor: _Cursor) -> Update:
        offset, oid = cursor.at, cursor.one(_U32)
        old = None
        new = _marked_tuple(cursor, _NEW, _KEY, _OLD)
        if new.mark != _NEW:
            old, new = new, _marked_tuple(cursor, _NEW)
        cursor.finish()
        relation = self._described(cursor, oid, offset)
        key_row, old_row = _old_rows(cursor, relation, old) if old else (None, None)
        return Update(relation, key_row, old_row, _row(cursor, relation, new), cursor.xid)

    def _delete(self, cursor: _Cursor) -> Delete:
        offset, oid = cursor.at, cursor.one(_U32)
        old = _marked_tuple(cursor, _KEY, _OLD)
        cursor.finish()
        relation = self._described(cursor, oid, offset)
        return Delete(relation, *_old_rows(cursor, relation, old), cursor.xid)

    def _truncate(self, cursor: _Cursor) -> Truncate:
        count = cursor.count(_I32)
        flags = cursor.flags(known=3)
        start, stop = cursor.span(count * 4)
        cursor.finish()
        relations = (
            self._described(cursor, _U32.unpack_from(cursor.data, offset)[0], offset)
            for offset in range(start, stop, 4)
        )
        return Truncate(tuple(relations), flags & 1 != 0, flags & 2 != 0, cursor.xid)

    def _logical(self, cursor: _Cursor) -> Message:
        transactional = bool(cursor.flags(known=1))
        lsn = cursor.one(_U64)
        prefix = cursor.cstr()
        start, stop = cursor.span(cursor.count(_I32))
        cursor.finish()
        content = cursor.data[start:stop]
        text = cursor.text(prefix, "the prefix")
        return Message(transactional, Lsn(lsn), text, content, cursor.xid)

    def _stream_start(self, cursor: _Cursor) -> StreamStart:
        xid = cursor.one(_U32)
        first_segment = bool(cursor.flags(known=1))
        cursor.finish()
        if first_segment:
            self._relations.abort(xid, xid)
        self._block = xid
        return StreamStart(xid, first_segment)

    def _stream_stop(self, cursor: _Cursor) -> StreamStop:
        cursor.finish()
        self._block = None
        return StreamStop()

    def _stream_commit(self, cursor: _Cursor) -> StreamCommit:
        xid = cursor.one(_U32)
        commit = self._commit(cursor)
        self._relations.settle(xid)
        return StreamCommit(xid, commit.commit_lsn, commit.end_lsn, commit.commit_time)

    def _stream_abort(self, cursor: _Cursor) -> StreamAbort:
        xid, subxid = cursor.take(_ABORT)
        abort_lsn = abort_time = None
        if self._dialect.parallel:
            position, abort_time = cursor.take(_ABORT_DETAILS)
            abort_lsn = Lsn(position)
        cursor.finish()
        self._relations.abort(xid, subxid)
        return StreamAbort(xid, subxid, abort_lsn, abort_time)

    def _begin_prepare(self, cursor: _Cursor) -> BeginPrepare:
        return BeginPrepare(*_prepared(cursor))

    def _prepare(self, cursor: _Cursor) -> Prepare:
        cursor.flags(known=0)
        return Prepare(*_prepared(cursor))

    def _commit_prepared(self, cursor: _Cursor) -> CommitPrepared:
        cursor.flags(known=0)
        return CommitPrepared(*_prepared(cursor))

    def _rollback_prepared(self, cursor: _Cursor) -> RollbackPrepared:
        cursor.flags(known=0)
        prepare_end, end, prepare_time, time, xid = cursor.take(_ROLLBACK_PREPARED)
        gid = _gid(cursor)
        return RollbackPrepared(Lsn(prepare_end), Lsn(end), prepare_time, time, xid, gid)

    def _stream_prepare(self, cursor: _Cursor) -> StreamPrepare:
        cursor.flags(known=0)
        prepare = StreamPrepare(*_prepared(cursor))
        self._relations.settle(prepare.xid)
        return prepare

    def _described(self, cursor: _Cursor, oid: int, offset: int) -> Relation:
        relations = self._relations
        if self._block is None:
            relation = relations.described.get(oid)
        else:
            relation = relations.find_streamed(self._block, oid)
        if relation is None:
            raise cursor.flaw(Fault.RELATION_UNKNOWN, offset, 0, oid)
        return relation


class _Rule(NamedTuple):
    """Since which version, where, and whether with an xid inside of a stream block."""

    read: Callable[[Decoder, _Cursor], LogicalMessage]
    since: int = 1
    outside: bool = True
    inside: bool = False
    marked: bool = False


_RULES: Final = {
    ord("B"): _Rule(Decoder._begin),
    ord("C"): _Rule(Decoder._commit),
    ord("O"): _Rule(Decoder._origin, inside=True),
    ord("R"): _Rule(Decoder._relation, inside=True, marked=True),
    ord("Y"): _Rule(Decoder._type, inside=True, marked=True),
    ord("I"): _Rule(Decoder._insert, inside=True, marked=True),
    ord("U"): _Rule(Decoder._update, inside=True, marked=True),
    ord("D"): _Rule(Decoder._delete, inside=True, marked=True),
    ord("T"): _Rule(Decoder._truncate, inside=True, marked=True),
    ord("M"): _Rule(Decoder._logical, inside=True, marked=True),
    ord("S"): _Rule(Decoder._stream_start, since=2),
    ord("E"): _Rule(Decoder._stream_stop, since=2, outside=False, inside=True),
    ord("c"): _Rule(Decoder._stream_commit, since=2),
    ord("A"): _Rule(Decoder._stream_abort),  # in every version, as PostgreSQL 18 sees it
    ord("b"): _Rule(Decoder._begin_prepare, since=3),
    ord("P"): _Rule(Decoder._prepare, since=3),
    ord("K"): _Rule(Decoder._commit_prepared, since=3),
    ord("r"): _Rule(Decoder._rollback_prepared, since=3),
    ord("p"): _Rule(Decoder._stream_prepare, since=3),
}


def _contents(payload: Any) -> bytes:
    """Return the bytes of a bytes-like object or of an XLogData."""
    if type(payload) is bytes:
        return payload
    try:
        view = memoryview(payload)
    except TypeError:
        # Before Python 3.12 a class cannot export a buffer: this twin's XLogData has `data`.
        data = getattr(payload, "data", None)
        if not isinstance(data, memoryview):
            raise TypeError(
                f"expected a bytes-like object or an XLogData, got {type(payload).__name__}"
            ) from None
        view = data
    if not view.c_contiguous:
        raise BufferError("expected a payload whose bytes stand side by side")
    return view.tobytes()


def _prepared(cursor: _Cursor) -> tuple[Lsn, Lsn, int, int, str]:
    """Read the rest of a message of a prepared transaction: two positions, a time, xid and gid."""
    lsn, end_lsn, time, xid = cursor.take(_PREPARED)
    return Lsn(lsn), Lsn(end_lsn), time, xid, _gid(cursor)


def _gid(cursor: _Cursor) -> str:
    """Read the gid, which ends the message."""
    gid = cursor.cstr()
    cursor.finish()
    return cursor.text(gid, "the gid")


def _marked_tuple(cursor: _Cursor, *allowed: int) -> _Tuple:
    mark = cursor.one(_U8)
    if mark not in allowed:
        raise cursor.flaw(Fault.TUPLE_MARK, cursor.at - 1, 0, mark)
    return cursor.row(mark)


def _old_rows(cursor: _Cursor, relation: Relation, old: _Tuple) -> tuple[Row | None, Row | None]:
    """Return (key, old) of an Update or Delete: one of them is there, as the mark says."""
    if old.mark == _KEY:
        return _row(cursor, relation, old, key_only=True), None
    return None, _row(cursor, relation, old)


def _row(cursor: _Cursor, relation: Relation, source: _Tuple, key_only: bool = False) -> Row:
    columns = relation.columns
    if len(source.columns) != len(columns):
        counts = len(columns), len(source.columns)
        raise cursor.flaw(Fault.COLUMN_COUNT, source.offset, *counts)
    data = cursor.data
    values: list[str | bytes | object] = []
    for position, (kind, start, stop) in enumerate(source.columns):
        # A key tuple has all columns on the wire; those outside the key mean nothing.
        if key_only and not columns[position].is_key:
            continue
        if kind == _TEXT:
            try:
                values.append(data[start:stop].decode())
            except UnicodeDecodeError:
                where = column_of(relation, position)
                raise cursor.flaw(Fault.ENCODING, start, where=where) from None
        elif kind == _BINARY:
            values.append(data[start:stop])
        else:
            values.append(None if kind == _NULL else UNCHANGED)
    return Row(relation, tuple(values), key_only)
