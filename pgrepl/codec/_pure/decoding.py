"""What a decoder keeps from one pgoutput message to the next, pure Python.

A payload is checked to its last byte before anything of it is decoded, and fields in the order of
the wire, so that of several faults both twins find the same one first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, final

from ...errors import Error, UsageError
from ...lsn import Lsn
from ...messages import (
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    StreamStop,
    Truncate,
    Update,
)
from ..dialect import Dialect
from ..faults import Fault, Flaw, fault_error
from ..relations import Relations
from ..spool import Spool, cut_off, mixed
from ..stored import entered
from ..unpicklable import Unpicklable
from .changes import Change
from .cursor import Cursor
from .readers import BEGUN_BY, RULES, Order
from .rows import Layout
from .spool import Writer
from .values import Override, Types
from .wal import XLogData

__all__ = ["Decoding", "contents_of"]

_UNFINISHED: Final = partial(UsageError, cut_off)
_U32: Final = struct.Struct(">I")


@final
class Decoding(Unpicklable):
    """The state of a `Decoder`, which `Changes` shares."""

    __slots__ = (
        "block",
        "busy",
        "changes",
        "delivered",
        "dialect",
        "failed",
        "lsn",
        "ordered",
        "relations",
        "spool",
        "spooled",
        "time",
        "transaction",
        "transactions",
        "types",
        "unsettled",
        "writer",
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
        self.dialect = Dialect.of(proto_version, streaming)
        self.types = Types(types, typed, encoding)
        self.relations: Relations[Layout] = Relations()
        self.busy = False  # a message is being decoded
        self.block: int | None = None  # the transaction whose stream block is open
        self.transaction = 0  # the tag that began the one that is open
        self.ordered = ordered
        self.delivered = 0
        self.lsn: int | None = None  # of the message that is being decoded
        self.failed: Callable[[], Error] | None = None
        self.spool: Spool | None = None  # for the batch that is being decoded
        self.spooled = False  # whether there ever was one
        self.writer: Writer | None = None  # of the block that is open and put aside
        self.unsettled = 0  # the end of a streamed transaction whose changes are being read
        self.changes = 0  # how many were decoded or put aside
        self.transactions = 0  # how many have ended
        self.time: int | None = None  # of the last one's end

    def feed(self, payload: Any, lsn: int | None = None) -> LogicalMessage:
        """Decode one message from any bytes-like object or an `XLogData`.

        Raises `DecodeError`, and raises it again for whatever comes after that.
        """
        self.check_alone()
        if self.failed is not None:
            raise self.failed()
        if lsn is None:
            # Messages that are not the last of a record have no position in their header.
            lsn = getattr(payload, "wal_start", None) or None
        position = None if lsn is None else Lsn(lsn)
        data = contents_of(payload)
        self.check_alone()
        self.lsn = position
        self.spool = None
        return self._take(data)

    def check_alone(self) -> None:
        """A finalizer or a thread may come here while a message is decoded, and must not."""
        if self.busy:
            raise UsageError(entered)

    def _take(self, data: bytes) -> LogicalMessage:
        self.busy = True
        # Until it is done: what cuts it off, memory that is short above all, may leave no room to
        # say so.
        self.failed = _UNFINISHED
        try:
            made = self._message(data)
            self.failed = None
            return made
        except Flaw as flaw:
            *numbers, where = flaw.args
        except Error:
            self.failed = None
            raise
        finally:
            self.busy = False
        # Not the error is kept but how to make it: its traceback would hold on to the payload.
        self.failed = partial(fault_error, *numbers, where=where, lsn=self.lsn)
        raise self.failed()

    def take_aside(self, payload: XLogData, spool: Spool) -> LogicalMessage | None:
        """As `feed`; None: it belongs to a streamed transaction and was put aside."""
        if self.failed is not None:
            raise self.failed()
        self.lsn = Lsn(payload.wal_start) if payload.wal_start else None
        data = contents_of(payload)
        self.spool, block = spool, self.block
        message = self._take(data)
        if block is None or isinstance(message, StreamStop):
            return message
        if self.writer is None:
            raise UsageError(mixed)
        if isinstance(message, Message) and not message.transactional:
            return message  # which a rollback does not take along
        if isinstance(message, Insert | Update | Delete | Truncate | Message):
            self.writer.append(data, self.lsn, self.layouts_of(block, message))
        elif isinstance(message, Origin):
            self.writer.stored.come_from(message)
        return None

    def layouts_of(self, block: int | None, change: Change) -> list[Layout]:
        """Return what the OIDs of a change mean, in their order."""
        if isinstance(change, Message):
            return []
        relations = change.relations if isinstance(change, Truncate) else (change.relation,)
        if block is None:
            return [self.relations.described[relation.oid] for relation in relations]
        found = (self.relations.find_streamed(block, relation.oid) for relation in relations)
        return [layout for layout in found if layout is not None]

    def _message(self, data: bytes) -> LogicalMessage:
        if not data:
            raise Flaw(Fault.LOGICAL_EMPTY, 0, 0, 1, 0, "")
        rule = RULES.get(data[0])
        version = self.dialect.proto_version
        if rule is None or version < rule.since:
            raise Flaw(Fault.LOGICAL_TAG, data[0], 0, version, data[0], "")
        if self.spooled and self.spool is None and data[0] in b"SEcAp":
            raise UsageError(mixed)
        cursor = Cursor(data, self._advance)
        if self.block is None:
            if not rule.outside:
                raise cursor.flaw(Fault.STREAM_CLOSED, 0)
        elif not rule.inside:
            raise cursor.flaw(Fault.STREAM_OPEN, 0, 0, self.block)
        elif rule.marked:
            cursor.xid = cursor.one(_U32)
        return rule.read(self, cursor)

    def end(self, position: int) -> None:
        """Count what has ended at a position by which it can be acknowledged."""
        self.transactions += 1
        self.delivered = max(self.delivered, position)

    def _advance(self, cursor: Cursor) -> None:
        """Take note of what begins or ends with a whole message, which may be out of order."""
        tag = cursor.data[0]
        order = RULES[tag].order
        if self.ordered:
            self._check_order(cursor, tag, order)
        if order is Order.BEGINS:
            self.transaction = tag
        elif order is Order.ENDS:
            self.transaction = 0

    def _check_order(self, cursor: Cursor, tag: int, order: Order) -> None:
        begun = self.transaction
        if self.block is not None:
            return  # a block holds part of another transaction
        if (order in (Order.WITHIN, Order.ENDS) or cursor.transactional) and not begun:
            raise cursor.flaw(Fault.TRANSACTION_CLOSED, 0)
        if begun and (
            order in (Order.BETWEEN, Order.BEGINS)
            or (order is Order.ENDS and begun != BEGUN_BY[tag])
        ):
            raise cursor.flaw(Fault.TRANSACTION_OPEN, 0, 0, begun)

    def end_streamed(self, position: int) -> None:
        """Take note of the end, which counts once what was put aside has been read."""
        if self.spool is None:
            self.end(position)
        else:
            self.unsettled = position

    def settle(self) -> None:
        """Count the streamed transaction as delivered: its changes have been read."""
        if self.unsettled:
            self.end(self.unsettled)
            self.unsettled = 0

    def described(self, cursor: Cursor, oid: int, offset: int) -> Layout:
        """Return what an OID means, which stands at an offset."""
        relations = self.relations
        if self.block is None:
            layout = relations.described.get(oid)
        else:
            layout = relations.find_streamed(self.block, oid)
        if layout is None:
            raise cursor.flaw(Fault.RELATION_UNKNOWN, offset, 0, oid)
        return layout


def contents_of(payload: Any) -> bytes:
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
