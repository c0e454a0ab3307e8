"""Streamed transactions put aside and replayed, pure Python: the twin of _native/spool.pyx."""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, final

from ...errors import UsageError
from ...messages import Origin
from .. import abc as contract
from ..faults import Flaw
from ..stored import HEADER, RECORD, Stored, damaged, entered
from ..unpicklable import Unpicklable
from .changes import READERS, Change
from .cursor import Cursor
from .rows import Layout

__all__ = ["Kept", "Replay", "Writer"]

_MARK: Final = struct.Struct(">BI")  # how a payload begins: its tag, and the xid of its part
_TAG_SIZE: Final = 1  # where it has no xid, outside of stream blocks
_TRUNCATE, _MESSAGE = b"TM"
_INDEX_SIZE: Final = 4


@final
class Writer(Unpicklable):
    """Puts a transaction's records into its pieces. Needs `Stored.moving`."""

    __slots__ = ("_piece", "_recent", "stored")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._piece: bytearray | None = None
        self._recent: dict[int, tuple[Layout, int]] = {}  # by OID: what it means now, its index

    @classmethod
    def of(cls, stored: Stored) -> Writer:
        """Return the writer of a transaction, which has one from its first block on."""
        writer = stored.writer
        return writer if isinstance(writer, Writer) else cls(stored)

    def append(self, payload: bytes, lsn: int | None, layouts: Sequence[Layout]) -> None:
        """Put a checked payload aside, with what its OIDs mean now, in their order."""
        indexes = [self._bind(layout) for layout in layouts]
        binding = indexes[0] if indexes else 0
        if payload[0] == _TRUNCATE:
            binding = len(indexes)
            payload += array("I", indexes).tobytes()
        size = RECORD.size + len(payload)
        piece, used = self._piece, 0
        if piece is not None:
            (used,) = HEADER.unpack_from(piece)
        if piece is None or len(piece) - used < size:
            piece = self._piece = self.stored.room(size)
            used = HEADER.size
        RECORD.pack_into(piece, used, len(payload), binding, lsn or 0)
        piece[used + RECORD.size : used + size] = payload
        HEADER.pack_into(piece, 0, used + size)

    def known(self, layout: Layout) -> Layout:
        """Return the layout that is kept already, where one says the same as this one."""
        known: Layout = self.stored.bound[self.stored.bind(layout)]
        return known

    def _bind(self, layout: Layout) -> int:
        oid = layout.relation.oid
        recent = self._recent.get(oid)
        if recent is None or recent[0] is not layout:
            recent = self._recent[oid] = layout, self.stored.bind(layout)
        return recent[1]

    def release(self) -> None:
        """Let the piece go; ask for another one before the next record."""
        self._piece = None


@final
class Kept(Unpicklable):
    __doc__ = contract.Kept.__doc__

    __slots__ = ("_in_block", "_stored")

    def __init__(self, stored: Stored, in_block: bool) -> None:
        self._stored = stored
        self._in_block = in_block
        stored.finish()

    def __iter__(self) -> Replay:
        return Replay(self._stored, self._in_block, keeps=True)


@final
class Replay(Unpicklable):
    __doc__ = contract.Replay.__doc__

    __slots__ = (
        "_at",
        "_behind",
        "_bound",
        "_ended",
        "_in_block",
        "_keeps",
        "_piece",
        "_reading",
        "_stored",
        "_void",
    )

    def __init__(self, stored: Stored, in_block: bool = True, keeps: bool = False) -> None:
        self._stored = stored
        self._in_block = in_block
        self._keeps = keeps
        self._behind = 0  # bytes of the pieces before the one that is being read
        self._bound: list[Layout] = stored.bound
        self._void = stored.aborted
        self._piece: bytearray | None = None
        self._at = 0
        self._ended = False
        self._reading = False

    @property
    def origin(self) -> Origin | None:
        """Where the transaction comes from, or None."""
        return self._stored.origin

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> Change:
        with self._alone():
            found = self._find()
            if found is None:
                raise StopIteration
            payload, lsn, layouts, end = found
            of = {layout.relation.oid: layout for layout in layouts}
            cursor = Cursor(payload)
            tag = payload[0]
            cursor.at = _TAG_SIZE
            if self._in_block:
                tag, cursor.xid = _MARK.unpack_from(payload)
                cursor.at = _MARK.size
            try:
                change = READERS[tag](cursor, lambda cursor, oid, offset: of[oid], lsn or None)
            except (Flaw, KeyError):
                raise damaged() from None
            self._at = end
            return change

    def peek(self) -> str | None:
        """Return the tag of the next change, None behind the last one."""
        with self._alone():
            found = self._find()
            return None if found is None else chr(found[0][0])

    def release(self) -> None:
        """Pass over what was not read, and give back what it takes."""
        self._ended = True
        self._piece = None
        if not self._keeps:
            self._stored.close()

    def keep(self) -> Kept:
        """Have the changes kept, to be read as often as wanted, but not by this."""
        self._ended = True
        return Kept(self._stored, self._in_block)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._reading:
            raise UsageError(entered)
        self._reading = True
        try:
            yield
        finally:
            self._reading = False

    def _find(self) -> tuple[bytes, int, Sequence[Layout], int] | None:
        """Return payload, LSN, layouts and end of the next record that counts; None: no more."""
        while not self._ended:
            piece, start = self._piece, self._at + RECORD.size
            used = 0 if piece is None else HEADER.unpack_from(piece)[0]
            if piece is None or self._at == used:
                self._turn()
                continue
            if start > used:
                raise damaged()
            size, binding, lsn = RECORD.unpack_from(piece, self._at)
            end = start + size
            least = _MARK.size if self._in_block else _TAG_SIZE
            if end > used or size < least:
                raise damaged()
            tag = piece[start]
            if self._in_block and _MARK.unpack_from(piece, start)[1] in self._void:
                self._at = end
                continue
            stop = end - _INDEX_SIZE * binding if tag == _TRUNCATE else end
            if stop < start + least:
                raise damaged()
            indexes = array("I", bytes(piece[stop:end])) if tag == _TRUNCATE else (binding,)
            if tag != _MESSAGE and any(index >= len(self._bound) for index in indexes):
                raise damaged()
            layouts = () if tag == _MESSAGE else [self._bound[index] for index in indexes]
            return bytes(piece[start:stop]), lsn, layouts, end
        return None

    def _turn(self) -> None:
        """Go on to the next piece, or to the end."""
        if self._piece is not None:
            self._behind += HEADER.unpack_from(self._piece)[0]
        if self._keeps:
            self._piece = self._stored.piece_at(self._behind)
        else:
            self._piece = self._stored.take_piece(self._behind, self._piece)
        self._at = HEADER.size
        if self._piece is None:
            self.release()
