"""What one transaction has sent: pieces in a file, if there is one, and then those in memory.

Law: one thread writes, and reads what it does not keep. Others may read what is kept, and let it
go: either replaces a reference or reads one, and who is at work on a piece or a file holds it.

Records are the twins' business; here are the pieces that they are written to, and what the OIDs in
them mean. A piece begins with the number of its bytes in use, these four included, and is in a file
as it is in memory. A record is never divided, so there are pieces of one record that are larger
than others.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from ..errors import SpoolError, UsageError
from ..messages import Origin, Relation
from ..ownership import Uncopied
from .spool_file import SpoolFile, damaged

if TYPE_CHECKING:
    from .spool import Spool

__all__ = ["HEADER", "RECORD", "Stored", "damaged", "entered", "stopped"]

HEADER: Final = struct.Struct("=I")
"""Before the records of a piece: how many of its bytes are used."""

RECORD: Final = struct.Struct("=IIQ")
"""Before a payload: the record's size behind this, what its relation means (an index), its LSN, 0
for none. A Truncate has the number of its relations in place of the index, and theirs behind it."""

_FIRST_PIECE: Final = 4 << 10
# Bytes that a description takes, seen on 64-bit systems: besides its names, and for each column.
_DESCRIPTION: Final = 1536
_COLUMN: Final = 256
_XID: Final = 4
_NONE: Final[frozenset[int]] = frozenset()

entered: Final = (
    "expected one reader at a time: the next message is being decoded already, in another thread "
    "or by what has called this one"
)


def stopped() -> UsageError:
    """Return the error for who goes on with what `stop()` has ended, in another thread perhaps."""
    return UsageError("the stream was stopped in the middle of this transaction")


class Layout(Protocol):
    """What a twin knows of a relation."""

    @property
    def relation(self) -> Relation: ...

    @property
    def edition(self) -> int:
        """How often types had changed their meaning when it was described."""


class Writer(Protocol):
    """A twin's writer, which keeps hold of the piece that it fills."""

    def release(self) -> None:
        """Let the piece go; ask for another one before the next record."""


@final
class Aborted:
    """Subtransactions that are void, at four bytes each: there can be millions in a transaction."""

    __slots__ = ("_xids",)

    def __init__(self) -> None:
        self._xids = array("I")  # in order

    def add(self, xid: int) -> bool:
        """Take note of one; False: it was known. They come nearly in order: this moves little."""
        if xid in self:
            return False
        self._xids.insert(bisect_left(self._xids, xid), xid)
        return True

    def __contains__(self, xid: int) -> bool:
        at = bisect_left(self._xids, xid)
        return at < len(self._xids) and self._xids[at] == xid


class Place(NamedTuple):
    """Where the pieces of a transaction are. It is replaced, not changed, but that pieces are added
    to the list while it is written."""

    file: SpoolFile | None
    start: int  # in the file
    size: int  # how many bytes are there
    begins: int  # how many bytes come before the pieces in memory
    pieces: list[bytearray]


class Account(NamedTuple):
    """What a transaction took that was let go."""

    memory: int
    kept: int
    bound: list[Any]
    is_waiting: bool


class Stored(Uncopied):
    """What one transaction has sent.

    It is written first. Then it is taken from the spool and read once, or finished and kept, to be
    read as often as wanted.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_handed_out",
        "_indexes",
        "_is_waiting",
        "_kept",
        "_place",
        "_spool",
        "aborted",
        "bound",
        "memory",
        "origin",
        "writer",
    )

    def __init__(self, spool: Spool) -> None:
        self.writer: Writer | None = None
        self.bound: list[Any] = []
        """What relations mean, a twin's layouts; records refer to it by index."""
        self.aborted: Aborted | frozenset[int] = _NONE
        """Subtransactions whose records are void."""
        self.origin: Origin | None = None
        self.memory = 0
        """Bytes of its pieces in memory now, the one that is being read included."""
        self._spool = spool
        # In `bound`, of what it says; made for the second one.
        self._indexes: dict[tuple[Relation, int], int] | None = None
        self._kept = 0  # bytes of what no file can take, layouts left out
        self._place = Place(None, 0, 0, 0, [])
        self._handed_out = 0  # bytes of the piece that is being read
        self._is_waiting = False
        self._closed = False

    # Writing

    def moving(self) -> contextlib.AbstractContextManager[None]:
        """See `Spool.moving`. Both `room` and `next_piece` need it.

        Raises `UsageError` when the spool was closed, and in a forked child for what is in a file:
        both processes would write at one position.
        """
        if self._closed:
            raise stopped()
        if self._place.file is not None and self._spool.owner.is_parent:
            raise self._spool.owner.refusal()
        return self._spool.moving()

    def bind(self, layout: Layout) -> int:
        """Return the index in `bound` of what a relation means.

        One that was described again as it was before is not kept twice, or a transaction whose
        savepoints are rolled back again and again would fill the memory with descriptions. Raises
        `SpoolError` where they take more than their share of the limit.
        """
        bound = self.bound
        if not bound:
            # Most transactions have one, and to find it again costs more than to keep it.
            self._spool.use(layout)
            bound.append(layout)
            return 0
        indexes = self._indexes
        if indexes is None:
            indexes = self._indexes = {(bound[0].relation, bound[0].edition): 0}
        said = layout.relation, layout.edition
        found = indexes.get(said)
        if found is None:
            self._spool.use(layout)
            found = indexes[said] = len(bound)
            bound.append(layout)
        return found

    def abort(self, subxid: int) -> None:
        """Declare a subtransaction void."""
        if isinstance(self.aborted, frozenset):
            self.aborted = Aborted()
        if self.aborted.add(subxid):
            self.keep(_XID)

    def come_from(self, origin: Origin) -> None:
        """Take note of where the transaction comes from."""
        before = 0 if self.origin is None else sys.getsizeof(self.origin.name)
        self.keep(sys.getsizeof(origin.name) - before)
        self.origin = origin

    def keep(self, size: int) -> None:
        """Count what is kept of the transaction and cannot go to a file."""
        self._spool.keep(size)
        self._kept += size

    def room(self, size: int) -> bytearray:
        """Return an empty piece with room for a record; the one before is full."""
        wanted = self._spool.piece_size
        if self._place.file is not None:
            self.spill()
        else:
            wanted = min(wanted, max(self.memory, _FIRST_PIECE))
        wanted = max(wanted, HEADER.size + size)
        self._spool.make_room(wanted, self)
        piece = bytearray(wanted)
        HEADER.pack_into(piece, 0, HEADER.size)
        place = self._place
        if self._closed:
            raise stopped()
        place.pieces.append(piece)
        self._count(wanted)
        return piece

    def new_piece(self, size: int) -> bytearray:
        """As `room`, within `moving`."""
        with self.moving():
            return self.room(size)

    def spill(self) -> None:
        """Write what is in memory to the transaction's own file."""
        self._move_to(self._place.file or SpoolFile(self._spool.directory))

    def shelve(self, file: SpoolFile) -> None:
        """Write what is in memory to a file that others share, or to its own, if it has one."""
        self._move_to(self._place.file or file)

    def _move_to(self, file: SpoolFile) -> None:
        if self.writer is not None:
            self.writer.release()
        place = self._place
        start = file.size if place.file is None else place.start
        for piece in place.pieces:
            with memoryview(piece)[: HEADER.unpack_from(piece)[0]] as used:
                file.append(used)
        size = file.size - start
        self._replace(Place(file, start, size, size, []))
        self._count(-self.memory)

    def _replace(self, place: Place) -> None:
        self._place = place
        if self._closed:  # by another thread, meanwhile
            self._place = _NOWHERE

    def finish(self) -> None:
        """Keep it as it is, to be read as often as wanted, and as long as somebody has it."""
        if self.writer is not None:
            self.writer.release()
            self.writer = None
        pieces = self._place.pieces
        if pieces:
            # Most transactions are small, and there may be many.
            (used,) = HEADER.unpack_from(pieces[-1])
            self._count(used - len(pieces[-1]))
            pieces[-1] = pieces[-1][:used]
        self._is_waiting = True
        self._spool.await_reader(self)

    # Reading

    def next_piece(self, offset: int, last: bytearray | None) -> bytearray | None:
        """Return the next piece and let go of the one before; None behind the last one.

        `offset`: how many bytes the pieces before it have; `last`: the one before, which may be
        used again. Raises `SpoolError` when the file is not as it was written.
        """
        place = self._place
        piece: bytearray | None = None
        if offset < place.size:
            piece = _read_piece(place, offset, last)
            self._count(len(piece) - self._handed_out)
        else:
            # Those in memory are counted as long as they are there.
            if place.pieces:
                piece = place.pieces[0]
                begins = place.begins + HEADER.unpack_from(piece)[0]
                self._replace(Place(None, 0, 0, begins, place.pieces[1:]))
            self._count(-self._handed_out)
        self._handed_out = 0 if piece is None else len(piece)
        return piece

    def take_piece(self, offset: int, last: bytearray | None) -> bytearray | None:
        """As `next_piece`, within `moving`."""
        with self.moving():
            return self.next_piece(offset, last)

    def piece_at(self, offset: int) -> bytearray | None:
        """Return the piece before which others have so many bytes; None behind the last one.

        Of a transaction that is kept. From any thread; raises as `next_piece`.
        """
        place = self._place
        if offset < place.size:
            try:
                return _read_piece(place, offset, None)
            except OSError as error:
                raise SpoolError(
                    "expected to read a transaction back from a temporary file, but the system "
                    f"says: {error.strerror or type(error).__name__}"
                ) from error
        at = place.begins
        for piece in place.pieces:
            if at == offset:
                return piece
            at += HEADER.unpack_from(piece)[0]
        return None

    def close(self) -> None:
        """Give back memory, file and descriptor, as soon as nobody is at work on them."""
        if self._closed:
            return
        self._closed = True
        self._place = _NOWHERE
        self.writer = None
        bound, self.bound = self.bound, []  # who still reads keeps the list
        self._indexes = None
        self._spool.let_go(self, Account(self.memory, self._kept, bound, self._is_waiting))
        self.memory = self._kept = self._handed_out = 0

    def __del__(self) -> None:
        if hasattr(self, "_closed"):  # which comes last
            self.close()

    def _count(self, size: int) -> None:
        if not self._closed:
            self.memory += size
            self._spool.count(size)


_NOWHERE: Final = Place(None, 0, 0, 0, [])


def _read_piece(place: Place, offset: int, last: bytearray | None) -> bytearray:
    file, at, left = place.file, place.start + offset, place.size - offset
    if file is None or left < HEADER.size:
        raise damaged()
    header = bytearray(HEADER.size)
    file.read(at, memoryview(header))
    size = int.from_bytes(header, sys.byteorder)
    if not HEADER.size <= size <= left:
        raise damaged()
    piece = last if last is not None and len(last) >= size else bytearray(size)
    piece[: HEADER.size] = header
    with memoryview(piece)[HEADER.size : size] as rest:
        file.read(at + HEADER.size, rest)
    return piece


def size_of(relation: Relation) -> int:
    """Return how many bytes a description takes."""
    # A list: where memory is short, CPython 3.12 gives a generator's code back once too often.
    names = [column.name for column in relation.columns]
    names += (relation.schema, relation.name)
    return _DESCRIPTION + _COLUMN * len(relation.columns) + sum(map(sys.getsizeof, names))
