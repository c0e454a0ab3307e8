"""What a transaction consists of, pure Python: the twin of pgrepl/codec/_native/changes.pyx.

Insert, Update, Delete, Truncate and Message are read and made here, for whoever knows what the OIDs
in them mean: the decoder when they come, a replay when they were put aside.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from ...lsn import Lsn
from ...messages import Delete, Insert, Message, Truncate, Update
from ..faults import Fault
from .cursor import BINARY, I32, TEXT, U8, Cursor, Tuple
from .rows import Layout, Row, Sent

__all__ = ["READERS", "Change", "Find"]

Change: TypeAlias = Insert | Update | Delete | Truncate | Message

Find: TypeAlias = Callable[[Cursor, int, int], Layout]
"""Returns the layout of a relation by its OID, which stands at an offset; raises `Flaw`."""

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_NEW, _KEY, _OLD = b"NKO"


def _insert(cursor: Cursor, find: Find, lsn: int | None) -> Insert:
    offset, oid = cursor.at, cursor.one(_U32)
    new = _marked_tuple(cursor, _NEW)
    cursor.finish()
    layout = find(cursor, oid, offset)
    return Insert(layout.relation, _row(cursor, layout, new, lsn), cursor.xid)


def _update(cursor: Cursor, find: Find, lsn: int | None) -> Update:
    offset, oid = cursor.at, cursor.one(_U32)
    old = None
    new = _marked_tuple(cursor, _NEW, _KEY, _OLD)
    if new.mark != _NEW:
        old, new = new, _marked_tuple(cursor, _NEW)
    cursor.finish()
    layout = find(cursor, oid, offset)
    key_row, old_row = _old_rows(cursor, layout, old, lsn) if old else (None, None)
    new_row = _row(cursor, layout, new, lsn)
    return Update(layout.relation, key_row, old_row, new_row, cursor.xid)


def _delete(cursor: Cursor, find: Find, lsn: int | None) -> Delete:
    offset, oid = cursor.at, cursor.one(_U32)
    old = _marked_tuple(cursor, _KEY, _OLD)
    cursor.finish()
    layout = find(cursor, oid, offset)
    return Delete(layout.relation, *_old_rows(cursor, layout, old, lsn), cursor.xid)


def _truncate(cursor: Cursor, find: Find, lsn: int | None) -> Truncate:
    count = cursor.count(I32)
    flags = cursor.flags(known=3)
    start, stop = cursor.span(count * 4)
    cursor.finish()
    relations = (
        find(cursor, _U32.unpack_from(cursor.data, offset)[0], offset).relation
        for offset in range(start, stop, 4)
    )
    position = None if lsn is None else Lsn(lsn)
    return Truncate(tuple(relations), flags & 1 != 0, flags & 2 != 0, cursor.xid, lsn=position)


def _message(cursor: Cursor, find: Find, lsn: int | None) -> Message:
    transactional = cursor.transactional = bool(cursor.flags(known=1))
    position = cursor.one(_U64)
    prefix = cursor.cstr()
    start, stop = cursor.span(cursor.count(I32))
    cursor.finish()
    content = cursor.data[start:stop]
    text = cursor.text(prefix)
    return Message(transactional, Lsn(position), text, content, cursor.xid)


def _marked_tuple(cursor: Cursor, *allowed: int) -> Tuple:
    mark = cursor.one(U8)
    if mark not in allowed:
        raise cursor.flaw(Fault.TUPLE_MARK, cursor.at - 1, 0, mark)
    return cursor.row(mark)


def _old_rows(
    cursor: Cursor, layout: Layout, old: Tuple, lsn: int | None
) -> tuple[Row | None, Row | None]:
    """Return (key, old) of an Update or Delete: one of them is there, as the mark says."""
    if old.mark == _KEY:
        return _row(cursor, layout, old, lsn, key_only=True), None
    return None, _row(cursor, layout, old, lsn)


def _row(
    cursor: Cursor, layout: Layout, source: Tuple, lsn: int | None, key_only: bool = False
) -> Row:
    columns = layout.relation.columns
    if len(source.columns) != len(columns):
        counts = len(columns), len(source.columns)
        raise cursor.flaw(Fault.COLUMN_COUNT, source.offset, *counts)
    sent = [(place, *column) for place, column in enumerate(source.columns)]
    if not key_only:
        return Row(layout.relation, Sent(layout, layout.whole, cursor.data, sent), lsn=lsn)
    # A key tuple has all columns on the wire, and a value for those alone that identify the row:
    # they cannot be NULL. Which those are the relation does not always tell, since a change of a
    # partition that is published as its root's has the partition's key.
    sent = [column for column in sent if column[1] in (TEXT, BINARY)]
    selection = layout.columns_at([place for place, *_ in sent])
    return Row(layout.relation, Sent(layout, selection, cursor.data, sent), lsn=lsn)


READERS: Final[dict[int, Callable[[Cursor, Find, int | None], Change]]] = {
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _message,
}
"""By tag; each reads from behind the xid to the end of the message."""
