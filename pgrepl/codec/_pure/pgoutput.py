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

from ...errors import Error, UsageError
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
from .. import abc as contract
from ..dialect import Dialect
from ..faults import Fault, fault_error
from ..relations import Relations
from ..spool import Spool, cut_off, mixed
from ..stored import Stored, entered
from .changes import READERS, Change
from .cursor import I16, U8, Cursor, Flaw
from .rows import Layout
from .spool import Kept, Replay, Writer
from .unpicklable import Unpicklable
from .values import Override, Types
from .wal import WalBatch, XLogData

__all__ = ["Decoder"]

_UNFINISHED: Final = partial(UsageError, cut_off)
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_BEGIN: Final = struct.Struct(">QqI")
_COMMIT: Final = struct.Struct(">QQq")
_ABORT: Final = struct.Struct(">II")
_ABORT_DETAILS: Final = struct.Struct(">Qq")
_PREPARED: Final = struct.Struct(">QQqI")
_ROLLBACK_PREPARED: Final = struct.Struct(">QQqqI")
_ATTRIBUTE_TYPE: Final = struct.Struct(">Ii")


@final
class Decoder(Unpicklable):
    __doc__ = contract.Decoder.__doc__

    __slots__ = (
        "_block",
        "_busy",
        "_changes",
        "_dialect",
        "_failed",
        "_lsn",
        "_relations",
        "_transaction",
        "_types",
        "_ordered",
        "_spool",
        "_spooled",
        "_time",
        "_transactions",
        "_unsettled",
        "_writer",
        "delivered",
    )

    def __init__(
        self,
        proto_version: int = 1,
        streaming: str = "off",
        types: Mapping[int | str, Override] | None = None,
        typed: bool = True,
        ordered: bool = False,
        encoding: str = "utf-8",
    ) -> None:
        self._dialect = Dialect.of(proto_version, streaming)
        self._types = Types(types, typed, encoding)
        self._relations: Relations[Layout] = Relations()
        self._busy = False  # a message is being decoded
        self._block: int | None = None  # the transaction whose stream block is open
        self._transaction = 0  # the tag that began the one that is open
        self._ordered = ordered
        self.delivered = 0
        self._lsn: int | None = None  # of the message that is being decoded
        self._failed: Callable[[], Error] | None = None
        self._spool: Spool | None = None  # for the batch that is being decoded
        self._spooled = False  # whether there ever was one
        self._writer: Writer | None = None  # of the block that is open and put aside
        self._unsettled = 0  # the end of a streamed transaction whose changes are being read
        self._changes = 0  # how many were decoded or put aside
        self._transactions = 0  # how many have ended
        self._time: int | None = None  # of the last one's end

    def feed(self, payload: Any, lsn: int | None = None) -> LogicalMessage:
        """Decode one message from any bytes-like object or an `XLogData`.

        Raises `DecodeError`, and raises it again for whatever comes after that.
        """
        self._alone()
        if self._failed is not None:
            raise self._failed()
        if lsn is None:
            # Messages that are not the last of a record have no position in their header.
            lsn = getattr(payload, "wal_start", None) or None
        position = None if lsn is None else Lsn(lsn)
        data = _contents(payload)
        self._alone()
        self._lsn = position
        self._spool = None
        return self._take(data)

    def _alone(self) -> None:
        """A finalizer or a thread may come here while a message is decoded, and must not."""
        if self._busy:
            raise UsageError(entered)

    def _take(self, data: bytes) -> LogicalMessage:
        self._busy = True
        # Until it is done: what cuts it off, memory that is short above all, may leave no room to
        # say so.
        self._failed = _UNFINISHED
        try:
            made = self._message(data)
            self._failed = None
            return made
        except Flaw as flaw:
            *numbers, where = flaw.args
        except Error:
            self._failed = None
            raise
        finally:
            self._busy = False
        # Not the error is kept but how to make it: its traceback would hold on to the payload.
        self._failed = partial(fault_error, *numbers, where=where, lsn=self._lsn)
        raise self._failed()

    def _take_aside(self, payload: XLogData, spool: Spool) -> LogicalMessage | None:
        """As `feed`; None: it belongs to a streamed transaction and was put aside."""
        if self._failed is not None:
            raise self._failed()
        self._lsn = Lsn(payload.wal_start) if payload.wal_start else None
        data = _contents(payload)
        self._spool, block = spool, self._block
        message = self._take(data)
        if block is None or isinstance(message, StreamStop):
            return message
        if self._writer is None:
            raise UsageError(mixed)
        if isinstance(message, Message) and not message.transactional:
            return message  # which a rollback does not take along
        if isinstance(message, Insert | Update | Delete | Truncate | Message):
            self._writer.append(data, self._lsn, self._layouts(block, message))
        elif isinstance(message, Origin):
            self._writer.stored.come_from(message)
        return None

    def _layouts(self, block: int | None, change: Change) -> list[Layout]:
        """Return what the OIDs of a change mean, in their order."""
        if isinstance(change, Message):
            return []
        relations = change.relations if isinstance(change, Truncate) else (change.relation,)
        if block is None:
            return [self._relations.described[relation.oid] for relation in relations]
        found = (self._relations.find_streamed(block, relation.oid) for relation in relations)
        return [layout for layout in found if layout is not None]

    def decode_batch(self, batch: WalBatch, spool: Spool | None = None) -> Changes:
        """Decode the payloads of a `WalBatch` of the same twin, one at a time.

        With a `spool`, what stream blocks hold is checked, put aside, and not given: see `Changes`.
        A stream is decoded with one spool from its beginning, or without.
        """
        return Changes(self, [each for each in batch if isinstance(each, XLogData)], spool)

    def _message(self, data: bytes) -> LogicalMessage:
        if not data:
            raise Flaw(Fault.LOGICAL_EMPTY, 0, 0, 1, 0, "")
        rule = _RULES.get(data[0])
        version = self._dialect.proto_version
        if rule is None or version < rule.since:
            raise Flaw(Fault.LOGICAL_TAG, data[0], 0, version, data[0], "")
        if self._spooled and self._spool is None and data[0] in b"SEcAp":
            raise UsageError(mixed)
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
        """Take in what the catalogue says of types, before the relations that use them come."""
        self._types.define(definitions)

    @property
    def totals(self) -> tuple[int, int, int | None]:
        """How many changes and transactions there were, and when the last one was committed."""
        return self._changes, self._transactions, self._time

    @property
    def is_between(self) -> bool:
        """Whether no transaction is open or being read, and no stream block is open."""
        return not self._transaction and self._block is None and not self._unsettled

    def _end(self, position: int) -> None:
        self._transactions += 1
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
        self._time = commit_time
        return Commit(Lsn(commit_lsn), Lsn(end_lsn), commit_time)

    def _origin(self, cursor: Cursor) -> Origin:
        commit_lsn = cursor.one(_U64)
        name = cursor.cstr()
        cursor.finish()
        return Origin(Lsn(commit_lsn), cursor.text(name))

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

        schema_name = cursor.text(schema) or "pg_catalog"
        relation_name = cursor.text(name)
        columns = []
        for is_key, name, (type_oid, type_modifier) in attributes:
            column_name = cursor.text(name)
            type_name = self._types.name_of(type_oid)
            columns.append(
                Column(column_name, type_oid, type_modifier, is_key, type_name=type_name)
            )
        relation = Relation(
            oid, schema_name, relation_name, chr(identity), tuple(columns), cursor.xid
        )
        types = self._types
        layout = Layout(relation, [types.of_column(c.type_oid) for c in columns], types.edition)
        if self._block is None or cursor.xid is None:
            self._relations.describe(oid, layout)
        else:
            if self._writer is not None:
                layout = self._writer.known(layout)
            self._relations.describe_streamed(self._block, oid, layout, cursor.xid)
        return relation

    def _type(self, cursor: Cursor) -> Type:
        oid = cursor.one(_U32)
        schema, name = cursor.cstr(), cursor.cstr()
        cursor.finish()
        schema_name = cursor.text(schema) or "pg_catalog"
        type_name = cursor.text(name)
        self._types.describe(oid, schema_name, type_name)
        return Type(oid, schema_name, type_name, cursor.xid)

    def _change(self, cursor: Cursor) -> Change:
        change = READERS[cursor.data[0]](cursor, self._described, self._lsn)
        self._changes += 1
        if isinstance(change, Message) and not change.transactional:
            self._end(change.lsn)
        return change

    def _stream_start(self, cursor: Cursor) -> StreamStart:
        xid = cursor.one(_U32)
        first_segment = bool(cursor.flags(known=1))
        cursor.finish()
        if first_segment:
            self._relations.abort(xid, xid)
        self._block = xid
        if self._spool is not None:
            stored = self._spool.begin(xid, first_segment)
            if stored is None:
                raise cursor.flaw(Fault.STREAM_UNKNOWN, 1, 0, xid)
            self._spooled = True
            self._writer = stored.writer = Writer.of(stored)
        return StreamStart(xid, first_segment)

    def _stream_stop(self, cursor: Cursor) -> StreamStop:
        cursor.finish()
        self._block = self._writer = None
        return StreamStop()

    def _stream_commit(self, cursor: Cursor) -> StreamCommit:
        xid = cursor.one(_U32)
        cursor.flags(known=0)
        commit_lsn, end_lsn, commit_time = cursor.take(_COMMIT)
        cursor.finish()
        self._relations.settle(xid)
        if self._spool is not None and xid not in self._spool:
            raise cursor.flaw(Fault.STREAM_UNKNOWN, 1, 0, xid)
        self._end_streamed(end_lsn)
        self._time = commit_time
        return StreamCommit(xid, Lsn(commit_lsn), Lsn(end_lsn), commit_time)

    def _stream_abort(self, cursor: Cursor) -> StreamAbort:
        xid, subxid = cursor.take(_ABORT)
        abort_lsn = abort_time = None
        if self._dialect.parallel:
            position, abort_time = cursor.take(_ABORT_DETAILS)
            abort_lsn = Lsn(position)
        cursor.finish()
        self._relations.abort(xid, subxid)
        if self._spool is not None:
            self._spool.abort(xid, subxid)
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
        self._time = time
        return RollbackPrepared(Lsn(prepare_end), Lsn(end), prepare_time, time, xid, gid)

    def _stream_prepare(self, cursor: Cursor) -> StreamPrepare:
        cursor.flags(known=0)
        prepare = StreamPrepare(*_prepared(cursor))
        self._relations.settle(prepare.xid)
        self._end_streamed(prepare.end_lsn)
        self._time = prepare.prepare_time
        return prepare

    def _end_streamed(self, position: int) -> None:
        """Take note of the end, which counts once what was put aside has been read."""
        if self._spool is None:
            self._end(position)
        else:
            self._unsettled = position

    def _ended(self, cursor: Cursor) -> tuple[Lsn, Lsn, int, int, str]:
        prepared = _prepared(cursor)
        self._end(prepared[1])
        self._time = prepared[2]
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


@final
class Changes(Unpicklable):
    __doc__ = contract.Changes.__doc__

    __slots__ = ("_decoder", "_next", "_payloads", "_spool", "end", "origin")

    def __init__(self, decoder: Decoder, payloads: list[XLogData], spool: Spool | None) -> None:
        self._decoder = decoder
        self._payloads = payloads
        self._spool = spool
        self._next = 0
        self.end: LogicalMessage | None = None
        self.origin: Origin | None = None

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> LogicalMessage:
        while self._next < len(self._payloads):
            message = self._decoded()
            if message is not None:
                return message
        raise StopIteration

    def _decoded(self) -> LogicalMessage | None:
        """Decode the next message; None: it was put aside."""
        spool = self._spool
        self._decoder._alone()
        if spool is None:
            at = self._next
            if at == len(self._payloads):
                return None  # somebody was here since our caller looked
            self._next = at + 1
            return self._decoder.feed(self._payloads[at])
        with spool.moving():
            self._next += 1
            return self._decoder._take_aside(self._payloads[self._next - 1], spool)

    def peek(self) -> str | None:
        """Return the tag of the next message, None at the end of the batch."""
        if self._next == len(self._payloads):
            return None
        return chr((self._payloads[self._next].data[:1] or b"\0")[0])

    def streamed(self, xid: int) -> Replay:
        """Iterate over what a streamed transaction consists of, whose end was just decoded."""
        if self._spool is None:
            raise ValueError("expected changes that were decoded with a spool")
        return Replay(self._spool.take(xid))

    def put_aside(self, stored: Stored) -> None:
        """Put the changes of the transaction that is open aside."""
        writer = stored.writer = Writer.of(stored)
        self.end = self.origin = None
        while self._next < len(self._payloads):
            payload = self._payloads[self._next]
            message = self._decoded()
            if isinstance(message, Insert | Update | Delete | Truncate | Message):
                with stored.moving():
                    layouts = self._decoder._layouts(None, message)
                    writer.append(_contents(payload), self._decoder._lsn, layouts)
            elif message is not None and self._ends(message):
                return

    def kept(self, stored: Stored) -> Kept:
        """Iterate over what was put aside as often as wanted."""
        return Kept(stored, in_block=False)

    def settle(self) -> None:
        """Count the streamed transaction as delivered: its changes have been read."""
        decoder = self._decoder
        if decoder._unsettled:
            decoder._end(decoder._unsettled)
            decoder._unsettled = 0

    def of_transaction(self) -> Iterator[LogicalMessage]:
        """Iterate over the changes of the transaction that is open."""
        self.end = self.origin = None
        while self._next < len(self._payloads):
            message = self._decoded()
            if isinstance(message, Insert | Update | Delete | Truncate | Message):
                yield message
            elif message is not None and self._ends(message):
                return

    def _ends(self, message: LogicalMessage) -> bool:
        """Take note of what is no change; say whether it ends the transaction."""
        if isinstance(message, Origin):
            self.origin = message
        elif isinstance(message, Commit | Prepare):
            self.end = message
            return True
        return False


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
    ord("I"): _Rule(Decoder._change, inside=True, marked=True, order=_Order.WITHIN),
    ord("U"): _Rule(Decoder._change, inside=True, marked=True, order=_Order.WITHIN),
    ord("D"): _Rule(Decoder._change, inside=True, marked=True, order=_Order.WITHIN),
    ord("T"): _Rule(Decoder._change, inside=True, marked=True, order=_Order.WITHIN),
    ord("M"): _Rule(Decoder._change, inside=True, marked=True),
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
    return cursor.text(gid)
