"""Where transactions wait: for their end, those that are streamed, or for somebody to read them.

Law: what was put aside comes back whole and in order, or an error does. A record is complete
before it counts; whatever cuts off a change of this state, a full disk or Ctrl-C, leaves the spool
unusable for good, so that nothing is missing or comes twice. All transactions share one limit, the
one that is being read included. When it is passed, the one that holds most memory goes to a
temporary file of its own, which has no name where the system allows that, and what comes later
follows piece by piece; unless those that are whole and wait for a reader hold more: they go to a
file that many of them share, those that will be read last first. What no file can take counts too:
what the transactions' relations mean and which subtransactions are void. Where that passes its
share, the stream ends. Memory, file and descriptor go with the transaction.

One thread puts aside; only its accounts are exact. Others may read what is kept, let it go, and
close the spool: what they let go is noted, for that one thread to strike off its accounts.

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
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, final
from weakref import ref

from ..errors import Error, SpoolError
from ..ownership import Owner
from .spool_file import SpoolFile
from .stored import Account, Layout, Stored, size_of, stopped

__all__ = ["LEAST_LIMIT", "Spool", "cut_off", "mixed"]

LEAST_LIMIT: Final = 1 << 20
# Not all of the last page: what the allocator and Python put beside it would begin another one.
_LARGEST_PIECE: Final = (256 << 10) - 64
# The part of the limit that is for what is not counted: what a batch brings and its decoded
# changes, rounding.
_BESIDES: Final = 8
# Bytes of the limit for each transaction: what is known of one takes up to half as many, with
# nothing put aside yet. No server has as many under way as the default limit has room for.
_EACH: Final = 2048
# Of a whole one that waits for a reader: its objects, seen on 64-bit systems.
_WAITING: Final = 1024
# How many limits a shared file takes, so that there are few of them, and none is kept for long by
# one transaction of many.
_SHARED: Final = 16

mixed: Final = (
    "expected to read a stream either message by message or by transactions: a block of a streamed "
    "transaction has begun in one way and cannot be read on in the other"
)

cut_off: Final = (
    "expected to finish with decoding a message, but that was cut off in the middle: start the "
    "stream again, which brings what was not acknowledged once more"
)

_INTERRUPTED: Final = (
    "expected to finish with what was being put aside of a streamed transaction, but that was cut "
    "off in the middle: start the stream again, which brings what was not acknowledged once more"
)


@final
class Spool:
    """What streamed transactions have sent so far, by their xids, and whole ones that wait.

    `memory_limit`: bytes for all of them together, at least 1 MiB. `directory`: where to put
    temporary files, None for the system's place. Raises `ValueError` for a limit below that.
    """

    __slots__ = (
        "_closed",
        "_fault",
        "_gone",
        "_kept",
        "_known",
        "_layouts",
        "_limit",
        "_memory",
        "_most",
        "_most_kept",
        "_shared",
        "_taken",
        "_waiting",
        "_waiting_count",
        "directory",
        "owner",
        "piece_size",
    )

    def __init__(self, memory_limit: int = 64 << 20, directory: str | Path | None = None) -> None:
        if memory_limit < LEAST_LIMIT:
            raise ValueError(
                f"expected a memory limit of at least {LEAST_LIMIT} bytes, got {memory_limit!r}"
            )
        self._limit = memory_limit - memory_limit // _BESIDES
        self._most = max(memory_limit, 1 << 20) // _EACH
        self._most_kept = max(self._limit, 1 << 20) // 4 * 3
        self.piece_size: Final = min(_LARGEST_PIECE, memory_limit // 16)
        self.directory: Final = directory
        self.owner: Final = Owner()
        self._known: dict[int, Stored] = {}
        self._taken: dict[int, ref[Stored]] = {}  # that are being read
        self._waiting: dict[int, ref[Stored]] = {}  # that are in memory, in order
        self._waiting_count = 0  # of all that wait, in memory or not
        self._shared: ref[SpoolFile] | None = None
        self._gone: deque[Account] = deque()  # not struck off yet
        self._fault: str | None = None  # after which no record is certain
        self._kept = 0  # bytes of what no file can take
        self._layouts: dict[int, int] = {}  # by identity: how many transactions use one
        self._memory = 0
        self._closed = False

    @property
    def memory(self) -> int:
        """Bytes of all pieces in memory now, those that are being read included."""
        self._settle()
        return self._memory

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
                f"{self.directory or 'the default directory'}, and to read them back, but the "
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

    # Streamed transactions

    def begin(self, xid: int, first_segment: bool) -> Stored | None:
        """Go on with a transaction, or begin it; None: it was not begun."""
        if self._closed:
            raise stopped()
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
        found = self._known.get(xid)
        if found is None and self._closed:
            raise stopped()
        return found

    def abort(self, xid: int, subxid: int) -> None:
        """Declare a subtransaction void, or all of the transaction if `subxid` is its xid."""
        if subxid == xid:
            self._drop(xid)
            return
        stored = self._known.get(xid)
        if stored is not None:
            stored.abort(subxid)

    def __contains__(self, xid: int) -> bool:
        if xid in self._known:
            return True
        if self._closed:
            raise stopped()
        return False

    def __len__(self) -> int:
        return len(self._known)

    def take(self, xid: int) -> Stored:
        """Hand out a transaction that is to be read; one without changes if it is not known."""
        stored = self._known.pop(xid, None)
        if stored is None:
            if self._closed:
                raise stopped()
            stored = Stored(self)
        stored.writer = None
        self._taken[id(stored)] = ref(stored)
        return stored

    def _drop(self, xid: int) -> None:
        stored = self._known.pop(xid, None)
        if stored is not None:
            stored.close()

    # Whole ones that wait for a reader

    def put_aside(self) -> Stored:
        """Return where a transaction is to be put that is not streamed."""
        return Stored(self)

    def await_reader(self, stored: Stored) -> None:
        """Have a transaction that is whole wait, as long as somebody has it."""
        self._taken.pop(id(stored), None)
        self._waiting_count += 1
        if stored.memory:
            self._waiting[id(stored)] = ref(stored)

    def _shelve(self) -> None:
        """Move those that wait to a file, the last ones first, until half of the limit is free."""
        for key in reversed([*self._waiting]):
            if self._taken_up <= self._limit // 2:
                return
            found = self._waiting.pop(key, None)
            stored = None if found is None else found()
            if stored is not None:
                stored.shelve(self._shared_file())

    def _shared_file(self) -> SpoolFile:
        file = None if self._shared is None else self._shared()
        if file is None or file.size >= _SHARED * self._limit:
            file = SpoolFile(self.directory)
            self._shared = ref(file)
        return file

    # Accounts

    @property
    def _taken_up(self) -> int:
        return self.memory + self._kept + self._waiting_count * _WAITING

    def count(self, size: int) -> None:
        """Count bytes of pieces in memory."""
        self._memory += size

    def keep(self, size: int) -> None:
        """Count what no file can take. Raises `SpoolError` where that is too much."""
        if self._kept + size > self._most_kept:
            self._settle()
        if self._kept + size > self._most_kept:
            raise SpoolError(
                "expected what streamed transactions say of tables, and which of their savepoints "
                f"were rolled back, to take at most {self._most_kept} bytes of the "
                "memory_limit of this stream, got more; raise it, if there is so much"
            )
        self._kept += size

    def use(self, layout: Layout) -> None:
        """Count a description, which many transactions may use."""
        users = self._layouts
        if id(layout) not in users:
            self.keep(size_of(layout.relation))
        users[id(layout)] = users.get(id(layout), 0) + 1

    def make_room(self, size: int, writing: Stored) -> None:
        """Have so many bytes fit into the limit, for one that is being written."""
        while self._taken_up + size > self._limit:
            under_way: Iterable[Stored] = (*self._known.values(), writing)
            largest = max(under_way, key=lambda stored: stored.memory)
            waiting = (found() for found in [*self._waiting.values()])
            if sum(stored.memory for stored in waiting if stored) > largest.memory:
                self._shelve()
            elif largest.memory:
                largest.spill()
            else:
                return  # for a record that is larger than the limit

    def let_go(self, stored: Stored, account: Account) -> None:
        """Take note of what a transaction took that nobody has any more. From any thread."""
        self._taken.pop(id(stored), None)
        self._waiting.pop(id(stored), None)
        self._gone.append(account)

    def _settle(self) -> None:
        """Strike off what was let go."""
        while self._gone:
            account = self._gone.popleft()
            self._memory -= account.memory
            self._kept -= account.kept
            self._waiting_count -= account.is_waiting
            for layout in account.bound:
                users = self._layouts
                users[id(layout)] -= 1
                if not users[id(layout)]:
                    del users[id(layout)]
                    self._kept -= size_of(layout.relation)

    def close(self) -> None:
        """Give back all memory, files and descriptors but those of whole transactions, which can
        be read on. From any thread: who is at work on one gives it back when that is done.
        """
        self._closed = True  # first: what is not found from now on has not been forgotten
        known, self._known = self._known, {}
        taken = [found() for found in [*self._taken.values()]]
        for stored in (*known.values(), *taken):
            if stored is not None:
                stored.close()
