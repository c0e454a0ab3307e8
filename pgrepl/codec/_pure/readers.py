"""What each pgoutput message says, pure Python: read to its last byte, and then made.

Which of them can come where is in `RULES`. What a message changes for those behind it is the
business of `Decoding`.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ...lsn import Lsn
from ...messages import (
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
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
    Type,
)
from ..faults import Fault
from .changes import READERS, Change
from .cursor import I16, U8, Cursor
from .rows import Layout
from .spool import Writer

if TYPE_CHECKING:
    from .decoding import Decoding

__all__ = ["BEGUN_BY", "RULES", "Order"]

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_BEGIN: Final = struct.Struct(">QqI")
_COMMIT: Final = struct.Struct(">QQq")
_ABORT: Final = struct.Struct(">II")
_ABORT_DETAILS: Final = struct.Struct(">Qq")
_PREPARED: Final = struct.Struct(">QQqI")
_ROLLBACK_PREPARED: Final = struct.Struct(">QQqqI")
_ATTRIBUTE_TYPE: Final = struct.Struct(">Ii")


def _begin(decoding: Decoding, cursor: Cursor) -> Begin:
    final_lsn, commit_time, xid = cursor.take(_BEGIN)
    cursor.finish()
    return Begin(Lsn(final_lsn), commit_time, xid)


def _commit(decoding: Decoding, cursor: Cursor) -> Commit:
    cursor.flags(known=0)
    commit_lsn, end_lsn, commit_time = cursor.take(_COMMIT)
    cursor.finish()
    decoding.end(end_lsn)
    decoding.time = commit_time
    return Commit(Lsn(commit_lsn), Lsn(end_lsn), commit_time)


def _origin(decoding: Decoding, cursor: Cursor) -> Origin:
    commit_lsn = cursor.one(_U64)
    name = cursor.cstr()
    cursor.finish()
    return Origin(Lsn(commit_lsn), cursor.text(name))


def _relation(decoding: Decoding, cursor: Cursor) -> Relation:
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

    schema_name = cursor.text(schema) or "pg_catalog"
    relation_name = cursor.text(name)
    columns = []
    for is_key, name, (type_oid, type_modifier) in attributes:
        column_name = cursor.text(name)
        type_name = decoding.types.name_of(type_oid)
        columns.append(Column(column_name, type_oid, type_modifier, is_key, type_name=type_name))
    relation = Relation(oid, schema_name, relation_name, chr(identity), tuple(columns), cursor.xid)
    types = decoding.types
    layout = Layout.of(relation, [types.of_column(c.type_oid) for c in columns], types.edition)
    if decoding.block is None or cursor.xid is None:
        decoding.relations.describe(oid, layout)
    else:
        if decoding.writer is not None:
            layout = decoding.writer.known(layout)
        decoding.relations.describe_streamed(decoding.block, oid, layout, cursor.xid)
    return relation


def _type(decoding: Decoding, cursor: Cursor) -> Type:
    oid = cursor.one(_U32)
    schema, name = cursor.cstr(), cursor.cstr()
    cursor.finish()
    schema_name = cursor.text(schema) or "pg_catalog"
    type_name = cursor.text(name)
    decoding.types.describe(oid, schema_name, type_name)
    return Type(oid, schema_name, type_name, cursor.xid)


def _change(decoding: Decoding, cursor: Cursor) -> Change:
    change = READERS[cursor.data[0]](cursor, decoding.described, decoding.lsn)
    decoding.changes += 1
    if isinstance(change, Message) and not change.transactional:
        decoding.end(change.lsn)
    return change


def _stream_start(decoding: Decoding, cursor: Cursor) -> StreamStart:
    xid = cursor.one(_U32)
    first_segment = bool(cursor.flags(known=1))
    cursor.finish()
    if first_segment:
        decoding.relations.abort(xid, xid)
    decoding.block = xid
    if decoding.spool is not None:
        stored = decoding.spool.begin(xid, first_segment)
        if stored is None:
            raise cursor.flaw(Fault.STREAM_UNKNOWN, 1, 0, xid)
        decoding.spooled = True
        decoding.writer = stored.writer = Writer.of(stored)
    return StreamStart(xid, first_segment)


def _stream_stop(decoding: Decoding, cursor: Cursor) -> StreamStop:
    cursor.finish()
    decoding.block = decoding.writer = None
    return StreamStop()


def _stream_commit(decoding: Decoding, cursor: Cursor) -> StreamCommit:
    xid = cursor.one(_U32)
    cursor.flags(known=0)
    commit_lsn, end_lsn, commit_time = cursor.take(_COMMIT)
    cursor.finish()
    decoding.relations.settle(xid)
    if decoding.spool is not None and xid not in decoding.spool:
        raise cursor.flaw(Fault.STREAM_UNKNOWN, 1, 0, xid)
    decoding.end_streamed(end_lsn)
    decoding.time = commit_time
    return StreamCommit(xid, Lsn(commit_lsn), Lsn(end_lsn), commit_time)


def _stream_abort(decoding: Decoding, cursor: Cursor) -> StreamAbort:
    xid, subxid = cursor.take(_ABORT)
    abort_lsn = abort_time = None
    if decoding.dialect.parallel:
        position, abort_time = cursor.take(_ABORT_DETAILS)
        abort_lsn = Lsn(position)
    cursor.finish()
    decoding.relations.abort(xid, subxid)
    if decoding.spool is not None:
        decoding.spool.abort(xid, subxid)
    return StreamAbort(xid, subxid, abort_lsn, abort_time)


def _begin_prepare(decoding: Decoding, cursor: Cursor) -> BeginPrepare:
    return BeginPrepare(*_prepared(cursor))


def _prepare(decoding: Decoding, cursor: Cursor) -> Prepare:
    cursor.flags(known=0)
    return Prepare(*_ended(decoding, cursor))


def _commit_prepared(decoding: Decoding, cursor: Cursor) -> CommitPrepared:
    cursor.flags(known=0)
    return CommitPrepared(*_ended(decoding, cursor))


def _rollback_prepared(decoding: Decoding, cursor: Cursor) -> RollbackPrepared:
    cursor.flags(known=0)
    prepare_end, end, prepare_time, time, xid = cursor.take(_ROLLBACK_PREPARED)
    gid = _gid(cursor)
    decoding.end(end)
    decoding.time = time
    return RollbackPrepared(Lsn(prepare_end), Lsn(end), prepare_time, time, xid, gid)


def _stream_prepare(decoding: Decoding, cursor: Cursor) -> StreamPrepare:
    cursor.flags(known=0)
    prepare = StreamPrepare(*_prepared(cursor))
    decoding.relations.settle(prepare.xid)
    decoding.end_streamed(prepare.end_lsn)
    decoding.time = prepare.prepare_time
    return prepare


def _ended(decoding: Decoding, cursor: Cursor) -> tuple[Lsn, Lsn, int, int, str]:
    prepared = _prepared(cursor)
    decoding.end(prepared[1])
    decoding.time = prepared[2]
    return prepared


def _prepared(cursor: Cursor) -> tuple[Lsn, Lsn, int, int, str]:
    """Read the rest of a message of a prepared transaction: two positions, a time, xid and gid."""
    lsn, end_lsn, time, xid = cursor.take(_PREPARED)
    return Lsn(lsn), Lsn(end_lsn), time, xid, _gid(cursor)


def _gid(cursor: Cursor) -> str:
    """Read the gid, which ends the message."""
    gid = cursor.cstr()
    cursor.finish()
    return cursor.text(gid)


class Order(Enum):
    """How a message stands to transactions."""

    ANYHOW = "anyhow"
    BEGINS = "begins"
    ENDS = "ends"
    WITHIN = "within"
    BETWEEN = "between"


# Which message begins what each of these ends.
BEGUN_BY: Final = {ord("C"): ord("B"), ord("P"): ord("b")}


class Rule(NamedTuple):
    """Since which version, where, and whether with an xid inside of a stream block."""

    read: Callable[[Decoding, Cursor], LogicalMessage]
    since: int = 1
    outside: bool = True
    inside: bool = False
    marked: bool = False
    order: Order = Order.ANYHOW


RULES: Final = {
    ord("B"): Rule(_begin, order=Order.BEGINS),
    ord("C"): Rule(_commit, order=Order.ENDS),
    ord("O"): Rule(_origin, inside=True, order=Order.WITHIN),
    ord("R"): Rule(_relation, inside=True, marked=True),
    ord("Y"): Rule(_type, inside=True, marked=True),
    ord("I"): Rule(_change, inside=True, marked=True, order=Order.WITHIN),
    ord("U"): Rule(_change, inside=True, marked=True, order=Order.WITHIN),
    ord("D"): Rule(_change, inside=True, marked=True, order=Order.WITHIN),
    ord("T"): Rule(_change, inside=True, marked=True, order=Order.WITHIN),
    ord("M"): Rule(_change, inside=True, marked=True),
    ord("S"): Rule(_stream_start, since=2, order=Order.BETWEEN),
    ord("E"): Rule(_stream_stop, since=2, outside=False, inside=True),
    ord("c"): Rule(_stream_commit, since=2, order=Order.BETWEEN),
    ord("A"): Rule(_stream_abort),  # in every version, as PostgreSQL 18 sees it
    ord("b"): Rule(_begin_prepare, since=3, order=Order.BEGINS),
    ord("P"): Rule(_prepare, since=3, order=Order.ENDS),
    ord("K"): Rule(_commit_prepared, since=3, order=Order.BETWEEN),
    ord("r"): Rule(_rollback_prepared, since=3, order=Order.BETWEEN),
    ord("p"): Rule(_stream_prepare, since=3, order=Order.BETWEEN),
}
