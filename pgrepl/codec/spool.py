"""Where streamed transactions wait for their end: in memory up to a limit, beyond it in files.

Law: what was put aside comes back whole and in order, or an error does. A record is complete
before it counts; whatever cuts off a change of this state, a full disk or Ctrl-C, leaves the spool
unusable for good, so that nothing is missing or comes twice. All transactions share one limit, the
one that is being read included. When it is passed, the one that holds most memory goes to a
temporary file of its own, which has no name where the system allows that, and what comes later
follows piece by piece. What no file can take counts too: what the transactions' relations mean and
which subtransactions are void. Where that passes its share, the stream ends. Memory, file and
descriptor go with the transaction.

Records are the twins' business; here are the pieces that they are written to, and what the OIDs in
them mean. A piece begins with
the number of its bytes in use, these four included, and is in a file as it is in memory. A record
is never divided, so there are pieces of one record that are larger than others.

What the server does, by its sources (reorderbuffer.c and pgoutput.c, versions 14 to 18):

StreamStart
    The first segment comes before any other. It may come for a transaction that is known, then all
    of it is sent anew.
StreamAbort
    One for each subtransaction of which the server may have sent something, nested ones too, and
    one for the transaction. From 18 on they also come where nothing was sent, since a transaction
    that is found to have been aborted then counts as streamed.
StreamCommit
    Only of transactions of which a block was sent, be it an empty one.
StreamPrepare
    The same, except that from 18 on it may come where nothing was sent: of a transaction that was
    prepared and rolled back before it was decoded.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import tempfile
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol, final
from weakref import WeakSet

from ..errors import Error, SpoolError, UsageError
from ..messages import Origin, Relation
from ..ownership import Owner, Uncopied

__all__ = [
    "HEADER",
    "LEAST_LIMIT",
    "RECORD",
    "Spool",
    "Stored",
    "cut_off",
    "damaged",
    "entered",
    "mixed",
]

HEADER: Final = struct.Struct("=I")
"""Before the records of a piece: how many of its bytes are used."""

RECORD: Final = struct.Struct("=IIQ")
"""Before a payload: the record's size behind this, what its relation means (an index), its LSN, 0
for none. A Truncate has the number of its relations in place of the index, and theirs behind it."""

LEAST_LIMIT: Final = 1 << 20
_FIRST_PIECE: Final = 4 << 10
# Not all of the last page: what the allocator and Python put beside it would begin another one.
_LARGEST_PIECE: Final = (256 << 10) - 64
# The part of the limit that is for what is not counted: what a batch brings and its decoded
# changes, rounding.
_BESIDES: Final = 8
# Bytes of the limit for each transaction: what is known of one takes up to half as many, with
# nothing put aside yet. No server has as many under way as the default limit has room for.
_EACH: Final = 2048
# Bytes that a description takes, seen on 64-bit systems: besides its names, and for each column.
_DESCRIPTION: Final = 1536
_COLUMN: Final = 256
_XID: Final = 4

mixed: Final = (
    "expected to read a stream either message by message or by transactions: a block of a streamed "
    "transaction has begun in one way and cannot be read on in the other"
)

entered: Final = (
    "expected one reader at a time: the next message is being decoded already, in another thread "
    "or by what has called this one"
)

cut_off: Final = (
    "expected to finish with decoding a message, but that was cut off in the middle: start the "
    "stream again, which brings what was not acknowledged once more"
)

_INTERRUPTED: Final = (
    "expected to finish with what was being put aside of a streamed transaction, but that was cut "
    "off in the middle: start the stream again, which brings what was not acknowledged once more"
)


def damaged() -> SpoolError:
    """Return the error for a file in which something else stands than was written."""
    return SpoolError(
        "expected to read from a temporary file what was written to it, got something else: "
        "another program or the disk has damaged it; start the stream again, which brings what was "
        "not acknowledged once more"
    )


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
class Spool:
    """What streamed transactions have sent so far, by their xids.

    `memory_limit`: bytes for all of them together, at least 1 MiB. `directory`: where to put
    temporary files, None for the system's place. Raises `ValueError` for a limit below that.
    """

    __slots__ = (
        "_directory",
        "_fault",
        "_kept",
        "_known",
        "_layouts",
        "_limit",
        "_most",
        "_most_kept",
        "_owner",
        "_piece_size",
        "_taken",
        "memory",
    )

    def __init__(self, memory_limit: int = 64 << 20, directory: str | Path | None = None) -> None:
        if memory_limit < LEAST_LIMIT:
            raise ValueError(
                f"expected a memory limit of at least {LEAST_LIMIT} bytes, got {memory_limit!r}"
            )
        self._limit = memory_limit - memory_limit // _BESIDES
        self._most = max(memory_limit, 1 << 20) // _EACH
        self._most_kept = max(self._limit, 1 << 20) // 4 * 3
        self._piece_size = min(_LARGEST_PIECE, memory_limit // 16)
        self._directory = directory
        self._owner = Owner()
        self._known: dict[int, Stored] = {}
        self._taken: WeakSet[Stored] = WeakSet()  # that are being read
        self._fault: str | None = None  # after which no record is certain
        self._kept = 0  # bytes of what no file can take
        self._layouts: dict[int, int] = {}  # by identity: how many transactions use one
        self.memory = 0
        """Bytes of all pieces in memory now, those that are being read included."""

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Do what must be done to its end, or else must never be relied upon.

        Raises `SpoolError` for what the system says, and from then on at every call.
        """
        if self._fault is not None:
            raise SpoolError(self._fault)
        self._fault = _INTERRUPTED
        try:
            yield
        except OSError as error:
            self._fault = (
                "expected to put streamed transactions aside in a temporary file, in "
                f"{self._directory or 'the default directory'}, and to read them back, but the "
                f"system says: {error.strerror or type(error).__name__}. Make room there, or raise "
                "memory_limit, and start the stream again"
            )
            raise SpoolError(self._fault) from error
        except SpoolError as error:
            self._fault = str(error)
            raise
        except Error:
            self._fault = None  # the message was at fault, which its decoder remembers
            raise
        self._fault = None

    def begin(self, xid: int, first_segment: bool) -> Stored | None:
        """Go on with a transaction, or begin it; None: it was not begun."""
        if first_segment:
            self._drop(xid)
            if len(self._known) == self._most:
                raise SpoolError(
                    f"expected at most {self._most} streamed transactions under way at a time in "
                    "the memory_limit of this stream, got more; raise it, if there are so many"
                )
            stored = Stored(self)
            stored.keep(_EACH // 2)
            self._known[xid] = stored
        return self._known.get(xid)

    def abort(self, xid: int, subxid: int) -> None:
        """Declare a subtransaction void, or all of the transaction if `subxid` is its xid."""
        if subxid == xid:
            self._drop(xid)
        elif xid in self._known and self._known[xid].aborted.add(subxid):
            self._known[xid].keep(_XID)

    def __contains__(self, xid: int) -> bool:
        return xid in self._known

    def __len__(self) -> int:
        return len(self._known)

    def take(self, xid: int) -> Stored:
        """Hand out a transaction that is to be read; one without changes if it is not known."""
        stored = self._known.pop(xid, None) or Stored(self)
        stored.writer = None
        self._taken.add(stored)
        return stored

    def close(self) -> None:
        """Give back all memory, files and descriptors. What is being read cannot be read on."""
        for stored in [*self._known.values(), *self._taken]:
            stored.close()
        self._known.clear()

    def _drop(self, xid: int) -> None:
        stored = self._known.pop(xid, None)
        if stored is not None:
            stored.close()

    def _keep(self, size: int) -> None:
        if self._kept + size > self._most_kept:
            raise SpoolError(
                "expected what streamed transactions say of tables, and which of their savepoints "
                f"were rolled back, to take at most {self._most_kept} bytes of the "
                "memory_limit of this stream, got more; raise it, if there is so much"
            )
        self._kept += size

    def _make_room(self, size: int) -> None:
        while self.memory + self._kept + size > self._limit:
            largest = max(self._known.values(), key=lambda stored: stored.memory, default=None)
            if largest is None or not largest.memory:
                return  # for a record that is larger than the limit
            largest.spill()


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


class Stored(Uncopied):
    """What one transaction has sent: pieces in a file, if there is one, and then those in memory.

    It is written first, and taken from the spool before it is read.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_file",
        "_handed_out",
        "_indexes",
        "_kept",
        "_pieces",
        "_spool",
        "_unread",
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
        self.aborted: Final = Aborted()
        """Subtransactions whose records are void."""
        self.origin: Origin | None = None
        self.memory = 0
        """Bytes of its pieces in memory now, the one that is being read included."""
        self._spool = spool
        self._indexes: dict[tuple[Relation, int], int] = {}  # in `bound`, of what it says
        self._kept = 0  # bytes of what no file can take, layouts left out
        self._pieces: deque[bytearray] = deque()
        self._handed_out = 0  # bytes of the piece that is being read
        self._file: IO[bytes] | None = None
        self._unread: int | None = None  # bytes in the file; None: it was not rewound yet
        self._closed = False

    def moving(self) -> contextlib.AbstractContextManager[None]:
        """See `Spool.moving`. Both `room` and `next_piece` need it.

        Raises `UsageError` when the spool was closed, and in a forked child for what is in a file:
        both processes would read and write at one position.
        """
        if self._closed:
            raise UsageError("the stream was stopped in the middle of this transaction")
        if self._file is not None and self._spool._owner.is_parent:
            raise self._spool._owner.refusal()
        return self._spool.moving()

    def bind(self, layout: Layout) -> int:
        """Return the index in `bound` of what a relation means.

        One that was described again as it was before is not kept twice, or a transaction whose
        savepoints are rolled back again and again would fill the memory with descriptions. Raises
        `SpoolError` where they take more than their share of the limit.
        """
        said = layout.relation, layout.edition
        found = self._indexes.get(said)
        if found is None:
            users = self._spool._layouts
            if id(layout) not in users:
                self._spool._keep(_size_of(layout.relation))
            users[id(layout)] = users.get(id(layout), 0) + 1
            found = self._indexes[said] = len(self.bound)
            self.bound.append(layout)
        return found

    def come_from(self, origin: Origin) -> None:
        """Take note of where the transaction comes from."""
        before = 0 if self.origin is None else sys.getsizeof(self.origin.name)
        self.keep(sys.getsizeof(origin.name) - before)
        self.origin = origin

    def keep(self, size: int) -> None:
        """Count what is kept of the transaction and cannot go to a file."""
        self._spool._keep(size)
        self._kept += size

    def room(self, size: int) -> bytearray:
        """Return an empty piece with room for a record; the one before is full."""
        wanted = self._spool._piece_size
        if self._file is not None:
            self.spill()
        else:
            wanted = min(wanted, max(self.memory, _FIRST_PIECE))
        wanted = max(wanted, HEADER.size + size)
        self._spool._make_room(wanted)
        piece = bytearray(wanted)
        HEADER.pack_into(piece, 0, HEADER.size)
        self._pieces.append(piece)
        self._count(wanted)
        return piece

    def spill(self) -> None:
        """Write what is in memory to the transaction's file."""
        if self.writer is not None:
            self.writer.release()
        if self._file is None:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - closed with the transaction
                buffering=0, prefix="pgrepl-", dir=self._spool._directory
            )
        for piece in self._pieces:
            with memoryview(piece)[: HEADER.unpack_from(piece)[0]] as used:
                _write(self._file, used)
        self._pieces.clear()
        self._count(-self.memory)

    def next_piece(self, last: bytearray | None) -> bytearray | None:
        """Return the next piece, None behind the last one.

        `last`: the one before, which may be used again. Raises `SpoolError` when the file is not
        as it was written.
        """
        piece = self._from_file(last)
        if piece is not None:
            self._count(len(piece) - self._handed_out)
        else:
            # Those in memory are counted as long as they are there.
            piece = self._pieces.popleft() if self._pieces else None
            self._count(-self._handed_out)
        self._handed_out = 0 if piece is None else len(piece)
        return piece

    def _from_file(self, last: bytearray | None) -> bytearray | None:
        if self._file is None:
            return None
        if self._unread is None:
            self._unread = self._file.tell()
            self._file.seek(0)
        if self._unread:
            return self._read_piece(self._file, last)
        self._file.close()
        self._file = None
        return None

    def _read_piece(self, file: IO[bytes], last: bytearray | None) -> bytearray:
        size = int.from_bytes(file.read(HEADER.size), sys.byteorder)
        left = self._unread or 0
        if not HEADER.size <= size <= left:
            raise damaged()
        piece = last if last is not None and len(last) >= size else bytearray(size)
        HEADER.pack_into(piece, 0, size)
        with memoryview(piece)[HEADER.size : size] as rest:
            _read(file, rest)
        self._unread = left - size
        return piece

    def close(self) -> None:
        """Give back memory, file and descriptor."""
        self._closed = True
        self.writer = None
        self._pieces.clear()
        self._count(-self.memory)
        self._handed_out = 0
        self._let_go()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        if hasattr(self, "_closed"):  # which comes last
            self.close()

    def _let_go(self) -> None:
        users = self._spool._layouts
        for layout in self.bound:
            users[id(layout)] -= 1
            if not users[id(layout)]:
                del users[id(layout)]
                self._spool._kept -= _size_of(layout.relation)
        self.bound = []  # who still reads keeps the list
        self._indexes = {}
        self._spool._kept -= self._kept
        self._kept = 0

    def _count(self, size: int) -> None:
        self.memory += size
        self._spool.memory += size


def _size_of(relation: Relation) -> int:
    names = (relation.schema, relation.name, *(column.name for column in relation.columns))
    return _DESCRIPTION + _COLUMN * len(relation.columns) + sum(map(sys.getsizeof, names))


def _write(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _read(file: Any, room: memoryview) -> None:
    while room:
        size = file.readinto(room)
        if not size:
            raise damaged()
        room = room[size:]
