"""pgoutput the other way round: what a server sends for each message.

Messages say themselves which form they have: one with an `xid` that can be None is of a stream
block where it is not, and a StreamAbort with a position is of ``streaming 'parallel'``.

A second opinion on the layouts, written from the documentation and sharing nothing with the two
decoders but the classes that they make.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from pgrepl.codec import Row
from pgrepl.messages import (
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
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)

__all__ = ["encode", "encode_row"]


def encode(message: LogicalMessage) -> bytes:
    """Return the payload of an XLogData that carries `message`."""
    match message:
        case Begin(final_lsn, commit_time, xid):
            return b"B" + struct.pack("!QqI", final_lsn, commit_time, xid)
        case Commit(commit_lsn, end_lsn, commit_time):
            return b"C" + struct.pack("!BQQq", 0, commit_lsn, end_lsn, commit_time)
        case Origin(commit_lsn, name):
            return b"O" + struct.pack("!Q", commit_lsn) + _string(name)
        case StreamStart(xid, first_segment):
            return b"S" + struct.pack("!IB", xid, first_segment)
        case StreamStop():
            return b"E"
        case StreamCommit(xid, commit_lsn, end_lsn, commit_time):
            return b"c" + struct.pack("!IBQQq", xid, 0, commit_lsn, end_lsn, commit_time)
        case StreamAbort(xid, subxid, None, None):
            return b"A" + struct.pack("!II", xid, subxid)
        case StreamAbort(xid, subxid, abort_lsn, abort_time):
            return b"A" + struct.pack("!IIQq", xid, subxid, abort_lsn, abort_time)
        case BeginPrepare() | Prepare() | CommitPrepared() | RollbackPrepared() | StreamPrepare():
            return _prepared(message)
        case _:
            return _streamable(message)


def _prepared(
    message: BeginPrepare | Prepare | CommitPrepared | RollbackPrepared | StreamPrepare,
) -> bytes:
    match message:
        case BeginPrepare(lsn, end_lsn, time, xid, gid):
            return b"b" + struct.pack("!QQqI", lsn, end_lsn, time, xid) + _string(gid)
        case Prepare(lsn, end_lsn, time, xid, gid):
            return b"P" + struct.pack("!BQQqI", 0, lsn, end_lsn, time, xid) + _string(gid)
        case CommitPrepared(lsn, end_lsn, time, xid, gid):
            return b"K" + struct.pack("!BQQqI", 0, lsn, end_lsn, time, xid) + _string(gid)
        case StreamPrepare(lsn, end_lsn, time, xid, gid):
            return b"p" + struct.pack("!BQQqI", 0, lsn, end_lsn, time, xid) + _string(gid)
        case RollbackPrepared(prepare_end, end_lsn, prepare_time, time, xid, gid):
            ends = struct.pack("!BQQ", 0, prepare_end, end_lsn)
            return b"r" + ends + struct.pack("!qqI", prepare_time, time, xid) + _string(gid)


def _streamable(
    message: Relation | Type | Insert | Update | Delete | Truncate | Message,
) -> bytes:
    xid = b"" if message.xid is None else struct.pack("!I", message.xid)
    match message:
        case Relation():
            return b"R" + xid + _relation(message)
        case Type(oid, schema, name):
            return b"Y" + xid + struct.pack("!I", oid) + _namespace(schema) + _string(name)
        case Truncate(relations, cascade, restart_identity):
            head = struct.pack("!iB", len(relations), cascade | restart_identity << 1)
            return b"T" + xid + head + b"".join(struct.pack("!I", r.oid) for r in relations)
        case Message(transactional, lsn, prefix, content):
            head = struct.pack("!BQ", transactional, lsn) + _string(prefix)
            return b"M" + xid + head + struct.pack("!i", len(content)) + content
        case Insert() | Update() | Delete():
            return _change(message, xid)


def encode_row(relation: Relation, row: Row) -> bytes:
    """Return the tuple of a row; a key-only one gets the relation's other columns as NULL."""
    values = iter(row.values())
    places = {*row.places}
    whole = [next(values) if i in places else None for i in range(len(relation.columns))]
    return struct.pack("!h", len(whole)) + b"".join(_value(value) for value in whole)


def _change(change: Insert | Update | Delete, xid: bytes) -> bytes:
    letter = {Insert: b"I", Update: b"U", Delete: b"D"}[type(change)]
    parts = [letter, xid, struct.pack("!I", change.relation.oid)]
    for mark, row in _tuples(change):
        if row is not None:
            parts += [mark, encode_row(change.relation, row)]
    return b"".join(parts)


def _tuples(change: Insert | Update | Delete) -> Iterator[tuple[bytes, Row | None]]:
    if not isinstance(change, Insert):
        yield b"K", change.key
        yield b"O", change.old
    if not isinstance(change, Delete):
        yield b"N", change.new


def _relation(relation: Relation) -> bytes:
    return b"".join(
        (
            struct.pack("!I", relation.oid),
            _namespace(relation.schema),
            _string(relation.name),
            relation.replica_identity.encode("ascii"),
            struct.pack("!h", len(relation.columns)),
            *map(_attribute, relation.columns),
        )
    )


def _attribute(column: Column) -> bytes:
    return (
        struct.pack("!B", column.is_key)
        + _string(column.name)
        + struct.pack("!Ii", column.type_oid, column.type_modifier)
    )


def _value(value: Any) -> bytes:
    if value is None:
        return b"n"
    if value is UNCHANGED:
        return b"u"
    kind, data = (b"t", value.encode()) if isinstance(value, str) else (b"b", bytes(value))
    return kind + struct.pack("!i", len(data)) + data


def _namespace(schema: str) -> bytes:
    return _string("" if schema == "pg_catalog" else schema)


def _string(text: str) -> bytes:
    data = text.encode()
    if 0 in data:
        raise ValueError(f"expected a string without NUL, got {text!r}")
    return data + b"\0"
