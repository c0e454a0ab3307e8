"""pgoutput, pure Python: the twin of pgrepl/codec/_native/pgoutput.pyx and src_c/pgr_pgoutput.c.

A payload is checked to its last byte before anything of it is decoded, and fields in the order of
the wire, so that of several faults both twins find the same one first.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final, NamedTuple, final

from ...errors import ProtocolError
from ...lsn import Lsn
from ...messages import (
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
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from ...typedefs import TypeDefinition
from ..dialect import Dialect
from ..faults import Fault, fault_error
from ..relations import Relations
from .cursor import I16, I32, U8, Cursor, Flaw, Tuple
from .rows import Layout, Row, Sent, row_of
from .values import Override, Types
from .wal import WalBatch, XLogData

__all__ = ["Decoder"]

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_BEGIN: Final = struct.Struct(">QqI")
_COMMIT: Final = struct.Struct(">QQq")
_ABORT: Final = struct.Struct(">II")
_ABORT_DETAILS: Final = struct.Struct(">Qq")
_PREPARED: Final = struct.Struct(">QQqI")
_ROLLBACK_PREPARED: Final = struct.Struct(">QQqqI")
_ATTRIBUTE_TYPE: Final = struct.Struct(">Ii")

_NEW, _KEY, _OLD = b"NKO"


@final
class Decoder:
    """Decodes pgoutput payloads; see `pgrepl.codec.abc.Decoder`."""

    __slots__ = (
        "_block",
        "_dialect",
        "_failed",
        "_lsn",
        "_relations",
        "_transaction",
        "_types",
        "_ordered",
        "delivered",
    )

    def __init__(
        self,
        proto_version: int = 1,
        streaming: str = "off",
        types: Mapping[int | str, Override] | None = None,
        typed: bool = True,
        ordered: bool = False,
    ) -> None:
        self._dialect = Dialect.of(proto_version, streaming)
        self._types = Types(types, typed)
        self._relations: Relations[Layout] = Relations()
        self._block: int | None = None  # the transaction whose stream block is open
        self._transaction = 0  # the tag that began the one that is open
        self._ordered = ordered
        self.delivered = 0
        self._lsn: int | None = None  # of the message that is being decoded
        self._failed: Callable[[], ProtocolError] | None = None

    def feed(self, payload: Any, lsn: int | None = None) -> LogicalMessage:
        """Decode one message from any bytes-like object or an `XLogData`.

        Raises `DecodeError`, and raises it again for whatever comes after that.
        """
        if self._failed is not None:
            raise self._failed()
        if lsn is None:
            # Messages that are not the last of a record have no position in their header.
            lsn = getattr(payload, "wal_start", None) or None
        self._lsn = None if lsn is None else Lsn(lsn)
        data = _contents(payload)
        try:
            return self._message(data)
        except Flaw as flaw:
            *numbers, where = flaw.args
        # Not the error is kept but how to make it: its traceback would hold on to the payload.
        self._failed = partial(fault_error, *numbers, where=where, lsn=self._lsn)
        raise self._failed()

    def decode_batch(self, batch: WalBatch) -> Changes:
        """Decode the payloads of a batch; see `pgrepl.codec.abc.Decoder`."""
        return Changes(self, [each for each in batch if isinstance(each, XLogData)])

    def _message(self, data: bytes) -> LogicalMessage:
        if not data:
            raise Flaw(Fault.LOGICAL_EMPTY, 0, 0, 1, 0, "")
        rule = _RULES.get(data[0])
        version = self._dialect.proto_version
        if rule is None or version < rule.since:
            raise Flaw(Fault.LOGICAL_TAG, data[0], 0, version, data[0], "")
        cursor = Cursor(data, self._advance)
        if self._block is None:
            if not rule.outside:
                raise cursor.flaw(Fault.STREAM_CLOSED, 0)
        elif not rule.inside:
            raise cursor.flaw(Fault.STREAM_OPEN, 0, 0, self._block)
        elif rule.marked:
            cursor.xid = cursor.one(_U32)
        return rule.read(self, cursor)

    def define(self, definitions: Iterable[TypeDefinition]) -> None:
        """Take in what the catalogue says of types; see `pgrepl.codec.abc.Types`."""
        self._types.define(definitions)

    @property
    def is_between(self) -> bool:
        """Whether no transaction is open, and no stream block."""
        return not self._transaction and self._block is None

    def _end(self, position: int) -> None:
        self.delivered = max(self.delivered, position)

    def _advance(self, cursor: Cursor) -> None:
        """Take note of what begins or ends with a whole message, which may be out of order."""
        tag = cursor.data[0]
        order = _RULES[tag].order
        if self._ordered:
            self._check_order(cursor, tag, order)
        if order is _Order.BEGINS:
            self._transaction = tag
        elif order is _Order.ENDS:
            self._transaction = 0

    def _check_order(self, cursor: Cursor, tag: int, order: _Order) -> None:
        begun = self._transaction
        if self._block is not None:
            return  # a block holds part of another transaction
        if (order in (_Order.WITHIN, _Order.ENDS) or cursor.transactional) and not begun:
            raise cursor.flaw(Fault.TRANSACTION_CLOSED, 0)
        if begun and (
            order in (_Order.BETWEEN, _Order.BEGINS)
            or (order is _Order.ENDS and begun != _BEGUN_BY[tag])
        ):
            raise cursor.flaw(Fault.TRANSACTION_OPEN, 0, 0, begun)

    def _begin(self, cursor: Cursor) -> Begin:
        final_lsn, commit_time, xid = cursor.take(_BEGIN)
        cursor.finish()
        return Begin(Lsn(final_lsn), commit_time, xid)

    def _commit(self, cursor: Cursor) -> Commit:
        cursor.flags(known=0)
        commit_lsn, end_lsn, commit_time = cursor.take(_COMMIT)
        cursor.finish()
        self._end(end_lsn)
        return Commit(Lsn(commit_lsn), Lsn(end_lsn), commit_time)

    def _origin(self, cursor: Cursor) -> Origin:
        commit_lsn = cursor.one(_U64)
        name = cursor.cstr()
        cursor.finish()
        return Origin(Lsn(commit_lsn), cursor.text(name, "the origin's name"))

    def _relation(self, cursor: Cursor) -> Relation:
        oid = cursor.one(_U32)
        schema, name = cursor.cstr(), cursor.cstr()
        identity = cursor.one(U8)
        if identity not in b"dnfi":
            raise cursor.flaw(Fault.IDENTITY, cursor.at - 1, 0, identity)
        attributes = []
        for _ in range(cursor.count(I16)):
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
        layout = Layout(relation, [self._types.lookup(c.type_oid) for c in columns])
        if self._block is None or cursor.xid is None:
            self._relations.describe(oid, layout)
        else:
            self._relations.describe_streamed(self._block, oid, layout, cursor.xid)
        return relation

    def _type(self, cursor: Cursor) -> Type:
        oid = cursor.one(_U32)
        schema, name = cursor.cstr(), cursor.cstr()
        cursor.finish()
        schema_name = cursor.text(schema, f"the schema of type {oid}") or "pg_catalog"
        type_name = cursor.text(name, f"the name of type {oid}")
        self._types.describe(oid, schema_name, type_name)
        return Type(oid, schema_name, type_name, cursor.xid)

    def _insert(self, cursor: Cursor) -> Insert:
        offset, oid = cursor.at, cursor.one(_U32)
        new = _marked_tuple(cursor, _NEW)
        cursor.finish()
        layout = self._described(cursor, oid, offset)
        return Insert(layout.relation, self._row(cursor, layout, new), cursor.xid)

    def _update(self, cursor: Cursor) -> Update:
        offset, oid = cursor.at, cursor.one(_U32)
        old = None
        new = _marked_tuple(cursor, _NEW, _KEY, _OLD)
        if new.mark != _NEW:
            old, new = new, _marked_tuple(cursor, _NEW)
        cursor.finish()
        layout = self._described(cursor, oid, offset)
        key_row, old_row = self._old_rows(cursor, layout, old) if old else (None, None)
        new_row = self._row(cursor, layout, new)
        return Update(layout.relation, key_row, old_row, new_row, cursor.xid)

    def _delete(self, cursor: Cursor) -> Delete:
        offset, oid = cursor.at, cursor.one(_U32)
        old = _marked_tuple(cursor, _KEY, _OLD)
        cursor.finish()
        layout = self._described(cursor, oid, offset)
        return Delete(layout.relation, *self._old_rows(cursor, layout, old), cursor.xid)

    def _truncate(self, cursor: Cursor) -> Truncate:
        count = cursor.count(I32)
        flags = cursor.flags(known=3)
        start, stop = cursor.span(count * 4)
        cursor.finish()
        relations = (
            self._described(cursor, _U32.unpack_from(cursor.data, offset)[0], offset).relation
            for offset in range(start, stop, 4)
        )
        return Truncate(tuple(relations), flags & 1 != 0, flags & 2 != 0, cursor.xid)

    def _logical(self, cursor: Cursor) -> Message:
        transactional = cursor.transactional = bool(cursor.flags(known=1))
        lsn = cursor.one(_U64)
        prefix = cursor.cstr()
        start, stop = cursor.span(cursor.count(I32))
        cursor.finish()
        content = cursor.data[start:stop]
        if not transactional:
            self._end(lsn)
        text = cursor.text(prefix, "the prefix")
        return Message(transactional, Lsn(lsn), text, content, cursor.xid)

    def _stream_start(self, cursor: Cursor) -> StreamStart:
        xid = cursor.one(_U32)
        first_segment = bool(cursor.flags(known=1))
        cursor.finish()
        if first_segment:
            self._relations.abort(xid, xid)
        self._block = xid
        return StreamStart(xid, first_segment)

    def _stream_stop(self, cursor: Cursor) -> StreamStop:
        cursor.finish()
        self._block = None
        return StreamStop()

    def _stream_commit(self, cursor: Cursor) -> StreamCommit:
        xid = cursor.one(_U32)
        commit = self._commit(cursor)
        self._relations.settle(xid)
        return StreamCommit(xid, commit.commit_lsn, commit.end_lsn, commit.commit_time)

    def _stream_abort(self, cursor: Cursor) -> StreamAbort:
        xid, subxid = cursor.take(_ABORT)
        abort_lsn = abort_time = None
        if self._dialect.parallel:
            position, abort_time = cursor.take(_ABORT_DETAILS)
            abort_lsn = Lsn(position)
        cursor.finish()
        self._relations.abort(xid, subxid)
        return StreamAbort(xid, subxid, abort_lsn, abort_time)

    def _begin_prepare(self, cursor: Cursor) -> BeginPrepare:
        return BeginPrepare(*_prepared(cursor))

    def _prepare(self, cursor: Cursor) -> Prepare:
        cursor.flags(known=0)
        return Prepare(*self._ended(cursor))

    def _commit_prepared(self, cursor: Cursor) -> CommitPrepared:
        cursor.flags(known=0)
        return CommitPrepared(*self._ended(cursor))

    def _rollback_prepared(self, cursor: Cursor) -> RollbackPrepared:
        cursor.flags(known=0)
        prepare_end, end, prepare_time, time, xid = cursor.take(_ROLLBACK_PREPARED)
        gid = _gid(cursor)
        self._end(end)
        return RollbackPrepared(Lsn(prepare_end), Lsn(end), prepare_time, time, xid, gid)

    def _stream_prepare(self, cursor: Cursor) -> StreamPrepare:
        cursor.flags(known=0)
        prepare = StreamPrepare(*self._ended(cursor))
        self._relations.settle(prepare.xid)
        return prepare

    def _ended(self, cursor: Cursor) -> tuple[Lsn, Lsn, int, int, str]:
        prepared = _prepared(cursor)
        self._end(prepared[1])
        return prepared

    def _described(self, cursor: Cursor, oid: int, offset: int) -> Layout:
        relations = self._relations
        if self._block is None:
            layout = relations.described.get(oid)
        else:
            layout = relations.find_streamed(self._block, oid)
        if layout is None:
            raise cursor.flaw(Fault.RELATION_UNKNOWN, offset, 0, oid)
        return layout

    def _old_rows(
        self, cursor: Cursor, layout: Layout, old: Tuple
    ) -> tuple[Row | None, Row | None]:
        """Return (key, old) of an Update or Delete: one of them is there, as the mark says."""
        if old.mark == _KEY:
            return self._row(cursor, layout, old, key_only=True), None
        return None, self._row(cursor, layout, old)

    def _row(self, cursor: Cursor, layout: Layout, source: Tuple, key_only: bool = False) -> Row:
        columns = layout.relation.columns
        if len(source.columns) != len(columns):
            counts = len(columns), len(source.columns)
            raise cursor.flaw(Fault.COLUMN_COUNT, source.offset, *counts)
        # A key tuple has all columns on the wire; those outside the key mean nothing.
        sent = [
            (place, *column)
            for place, column in enumerate(source.columns)
            if not key_only or columns[place].is_key
        ]
        return row_of(Sent(layout, cursor.data, sent, self._lsn), key_only)


@final
class Changes:
    """The decoded messages of a batch; see `pgrepl.codec.abc.Changes`."""

    __slots__ = ("_decoder", "_next", "_payloads", "end", "origin")

    def __init__(self, decoder: Decoder, payloads: list[XLogData]) -> None:
        self._decoder = decoder
        self._payloads = payloads
        self._next = 0
        self.end: LogicalMessage | None = None
        self.origin: Origin | None = None

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> LogicalMessage:
        if self._next == len(self._payloads):
            raise StopIteration
        self._next += 1
        return self._decoder.feed(self._payloads[self._next - 1])

    def peek(self) -> str | None:
        """Return the tag of the next message, None at the end of the batch."""
        if self._next == len(self._payloads):
            return None
        return chr((self._payloads[self._next].data[:1] or b"\0")[0])

    def of_transaction(self) -> Iterator[LogicalMessage]:
        """Iterate over the changes of the transaction that is open."""
        self.end = self.origin = None
        while self.end is None and self._next < len(self._payloads):
            message = next(self)
            if isinstance(message, Insert | Update | Delete | Truncate | Message):
                yield message
            elif isinstance(message, Commit | Prepare):
                self.end = message
            elif isinstance(message, Origin):
                self.origin = message


class _Order(Enum):
    """How a message stands to transactions."""

    ANYHOW = "anyhow"
    BEGINS = "begins"
    ENDS = "ends"
    WITHIN = "within"
    BETWEEN = "between"


# Which message begins what each of these ends.
_BEGUN_BY: Final = {ord("C"): ord("B"), ord("P"): ord("b")}


class _Rule(NamedTuple):
    """Since which version, where, and whether with an xid inside of a stream block."""

    read: Callable[[Decoder, Cursor], LogicalMessage]
    since: int = 1
    outside: bool = True
    inside: bool = False
    marked: bool = False
    order: _Order = _Order.ANYHOW


_RULES: Final = {
    ord("B"): _Rule(Decoder._begin, order=_Order.BEGINS),
    ord("C"): _Rule(Decoder._commit, order=_Order.ENDS),
    ord("O"): _Rule(Decoder._origin, inside=True, order=_Order.WITHIN),
    ord("R"): _Rule(Decoder._relation, inside=True, marked=True),
    ord("Y"): _Rule(Decoder._type, inside=True, marked=True),
    ord("I"): _Rule(Decoder._insert, inside=True, marked=True, order=_Order.WITHIN),
    ord("U"): _Rule(Decoder._update, inside=True, marked=True, order=_Order.WITHIN),
    ord("D"): _Rule(Decoder._delete, inside=True, marked=True, order=_Order.WITHIN),
    ord("T"): _Rule(Decoder._truncate, inside=True, marked=True, order=_Order.WITHIN),
    ord("M"): _Rule(Decoder._logical, inside=True, marked=True),
    ord("S"): _Rule(Decoder._stream_start, since=2, order=_Order.BETWEEN),
    ord("E"): _Rule(Decoder._stream_stop, since=2, outside=False, inside=True),
    ord("c"): _Rule(Decoder._stream_commit, since=2, order=_Order.BETWEEN),
    ord("A"): _Rule(Decoder._stream_abort),  # in every version, as PostgreSQL 18 sees it
    ord("b"): _Rule(Decoder._begin_prepare, since=3, order=_Order.BEGINS),
    ord("P"): _Rule(Decoder._prepare, since=3, order=_Order.ENDS),
    ord("K"): _Rule(Decoder._commit_prepared, since=3, order=_Order.BETWEEN),
    ord("r"): _Rule(Decoder._rollback_prepared, since=3, order=_Order.BETWEEN),
    ord("p"): _Rule(Decoder._stream_prepare, since=3, order=_Order.BETWEEN),
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


def _prepared(cursor: Cursor) -> tuple[Lsn, Lsn, int, int, str]:
    """Read the rest of a message of a prepared transaction: two positions, a time, xid and gid."""
    lsn, end_lsn, time, xid = cursor.take(_PREPARED)
    return Lsn(lsn), Lsn(end_lsn), time, xid, _gid(cursor)


def _gid(cursor: Cursor) -> str:
    """Read the gid, which ends the message."""
    gid = cursor.cstr()
    cursor.finish()
    return cursor.text(gid, "the gid")


def _marked_tuple(cursor: Cursor, *allowed: int) -> Tuple:
    mark = cursor.one(U8)
    if mark not in allowed:
        raise cursor.flaw(Fault.TUPLE_MARK, cursor.at - 1, 0, mark)
    return cursor.row(mark)
