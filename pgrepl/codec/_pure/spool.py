"""Streamed transactions put aside and replayed, pure Python: the twin of _native/spool.pyx."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, final

from ...messages import Origin
from ..spool import HEADER, RECORD, Stored, damaged
from .changes import READERS, Change
from .cursor import Cursor, Flaw
from .rows import Layout

__all__ = ["Replay", "Writer"]

_MARK: Final = struct.Struct(">BI")  # how a payload begins: its tag, and the xid of its part


@final
class Writer:
    """Puts a transaction's records into its pieces. Needs `Stored.moving`."""

    __slots__ = ("_bound", "_piece", "stored")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._piece: bytearray | None = None
        self._bound: dict[tuple[int, ...], int] = {}

    @classmethod
    def of(cls, stored: Stored) -> Writer:
        """Return the writer of a transaction, which has one from its first block on."""
        writer = stored.writer
        return writer if isinstance(writer, Writer) else cls(stored)

    def append(self, payload: bytes, lsn: int | None, layouts: Sequence[Layout]) -> None:
        """Put a checked payload aside, with what its OIDs mean now, in their order."""
        binding = self._bind(layouts)
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

    def _bind(self, layouts: Sequence[Layout]) -> int:
        # One that was described again as it was before is not kept twice, or a transaction whose
        # savepoints are rolled back again and again would fill the memory with descriptions.
        oids = tuple([layout.relation.oid for layout in layouts])
        bound = self.stored.bound
        found = self._bound.get(oids)
        if found is None or bound[found] != layouts:
            found = self._bound[oids] = len(bound)
            bound.append(layouts)
        return found

    def release(self) -> None:
        """Let the piece go; ask for another one before the next record."""
        self._piece = None


@final
class Replay:
    """The changes of a transaction that was put aside; see `pgrepl.codec.abc.Replay`."""

    __slots__ = ("_at", "_ended", "_piece", "_stored", "_void")

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._void = stored.aborted
        self._piece: bytearray | None = None
        self._at = 0
        self._ended = False

    @property
    def origin(self) -> Origin | None:
        """Where the transaction comes from, or None."""
        return self._stored.origin

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> Change:
        found = self._find()
        if found is None:
            raise StopIteration
        payload, lsn, layouts, end = found
        of = {layout.relation.oid: layout for layout in layouts}
        cursor = Cursor(payload)
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
        found = self._find()
        return None if found is None else chr(found[0][0])

    def release(self) -> None:
        """Pass over what was not read, and give back what it takes."""
        self._ended = True
        self._piece = None
        self._stored.close()

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
            bound = self._stored.bound
            if end > used or size < _MARK.size or binding >= len(bound):
                raise damaged()
            if _MARK.unpack_from(piece, start)[1] in self._void:
                self._at = end
                continue
            return bytes(piece[start:end]), lsn, bound[binding], end
        return None

    def _turn(self) -> None:
        """Go on to the next piece, or to the end."""
        with self._stored.moving():
            self._piece = self._stored.next_piece(self._piece)
            self._at = HEADER.size
        if self._piece is None:
            self.release()
