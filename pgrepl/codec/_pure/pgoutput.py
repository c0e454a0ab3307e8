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
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Row,
    Truncate,
    Type,
    Update,
)
from ..faults import Fault, column_of, fault_error

__all__ = ["Decoder"]

_U8: Final = struct.Struct(">B")
_I16: Final = struct.Struct(">h")
_I32: Final = struct.Struct(">i")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_BEGIN: Final = struct.Struct(">QqI")
_COMMIT: Final = struct.Struct(">QQq")
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

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 1  # behind the tag
        self.end = len(data)

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

    __slots__ = ("_failed", "_relations")

    def __init__(self, proto_version: int = 1) -> None:
        if proto_version != 1:
            raise ValueError(
                f"expected pgoutput protocol version 1, the one supported, got {proto_version!r}"
            )
        self._relations: dict[int, Relation] = {}
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
        read = _READERS.get(data[0])
        if read is None:
            raise _Flaw(Fault.LOGICAL_TAG, data[0], 0, 0, data[0], "")
        return read(self, _Cursor(data))

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
        relation = Relation(oid, schema_name, relation_name, chr(identity), tuple(columns))
        self._relations[oid] = relation
        return relation

    def _type(self, cursor: _Cursor) -> Type:
        oid = cursor.one(_U32)
        schema, name = cursor.cstr(), cursor.cstr()
        cursor.finish()
        return Type(
            oid,
            cursor.text(schema, f"the schema of type {oid}") or "pg_catalog",
            cursor.text(name, f"the name of type {oid}"),
        )

    def _insert(self, cursor: _Cursor) -> Insert:
        oid = cursor.one(_U32)
        new = _marked_tuple(cursor, _NEW)
        cursor.finish()
        relation = self._described(cursor, oid, 1)
        return Insert(relation, _row(cursor, relation, new))

    def _update(self, cursor: _Cursor) -> Update:
        oid = cursor.one(_U32)
        old = None
        new = _marked_tuple(cursor, _NEW, _KEY, _OLD)
        if new.mark != _NEW:
            old, new = new, _marked_tuple(cursor, _NEW)
        cursor.finish()
        relation = self._described(cursor, oid, 1)
        key_row, old_row = _old_rows(cursor, relation, old) if old else (None, None)
        return Update(relation, key_row, old_row, _row(cursor, relation, new))

    def _delete(self, cursor: _Cursor) -> Delete:
        oid = cursor.one(_U32)
        old = _marked_tuple(cursor, _KEY, _OLD)
        cursor.finish()
        relation = self._described(cursor, oid, 1)
        return Delete(relation, *_old_rows(cursor, relation, old))

    def _truncate(self, cursor: _Cursor) -> Truncate:
        count = cursor.count(_I32)
        flags = cursor.flags(known=3)
        start, stop = cursor.span(count * 4)
        cursor.finish()
        relations = (
            self._described(cursor, _U32.unpack_from(cursor.data, offset)[0], offset)
            for offset in range(start, stop, 4)
        )
        return Truncate(tuple(relations), cascade=flags & 1 != 0, restart_identity=flags & 2 != 0)

    def _logical(self, cursor: _Cursor) -> Message:
        transactional = bool(cursor.flags(known=1))
        lsn = cursor.one(_U64)
        prefix = cursor.cstr()
        start, stop = cursor.span(cursor.count(_I32))
        cursor.finish()
        content = cursor.data[start:stop]
        return Message(transactional, Lsn(lsn), cursor.text(prefix, "the prefix"), content)

    def _described(self, cursor: _Cursor, oid: int, offset: int) -> Relation:
        relation = self._relations.get(oid)
        if relation is None:
            raise cursor.flaw(Fault.RELATION_UNKNOWN, offset, 0, oid)
        return relation


_READERS: Final[dict[int, Callable[[Decoder, _Cursor], LogicalMessage]]] = {
    ord("B"): Decoder._begin,
    ord("C"): Decoder._commit,
    ord("O"): Decoder._origin,
    ord("R"): Decoder._relation,
    ord("Y"): Decoder._type,
    ord("I"): Decoder._insert,
    ord("U"): Decoder._update,
    ord("D"): Decoder._delete,
    ord("T"): Decoder._truncate,
    ord("M"): Decoder._logical,
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
