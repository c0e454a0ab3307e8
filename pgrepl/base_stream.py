"""What the blocking and the asyncio flavour of a stream have in common: all but waiting.

Law: a position is reported to the server as flushed when the application has acknowledged it, and
never before. What was not acknowledged comes again when the slot is streamed again.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from .codec.abc import Changes
from .errors import ConnectionFailed, Error, UsageError
from .lsn import Lsn
from .messages import (
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    Message,
    Prepare,
    RollbackPrepared,
    StreamCommit,
    StreamPrepare,
    Truncate,
    Update,
)
from .session.opening import Opened
from .session.session import Session
from .session.transactions import BaseTransaction, Transactions
from .token import ResumeToken

__all__ = ["Acknowledgeable", "BaseStream", "Batch", "Change", "ReadTransaction", "Stats"]

Change: TypeAlias = Insert | Update | Delete | Truncate | Message
"""What a transaction consists of."""


class Batch:
    """Changes of one or more transactions, in order.

    `end_lsn`: of the last transaction that ends in it or ended before. Acknowledging the batch
    acknowledges everything up to there, and the transaction that goes on behind it as soon as that
    turns out to have no further changes.
    """

    __slots__ = ("_acknowledged", "changes", "end_lsn")

    def __init__(self, changes: list[Change], end_lsn: Lsn) -> None:
        self.changes = changes
        self.end_lsn = end_lsn
        self._acknowledged: tuple[bool, bool, bool] | None = None

    def __repr__(self) -> str:
        return f"<Batch of {len(self.changes)} changes, end_lsn={self.end_lsn}>"

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)


Acknowledgeable: TypeAlias = (
    BaseTransaction
    | Batch
    | Commit
    | StreamCommit
    | Prepare
    | StreamPrepare
    | CommitPrepared
    | RollbackPrepared
    | Message
    | ResumeToken
    | int
)
"""What `ack` takes: something that ends at a position, or the position itself."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Where a stream stands.

    `received`: the highest position that came; `delivered`: the end of the last transaction that
    the application was given; `written`, `flushed`, `applied`: as last reported to the server;
    `statuses`: how many reports were sent.
    """

    received: Lsn
    delivered: Lsn
    written: Lsn
    flushed: Lsn
    applied: Lsn
    statuses: int


class ReadTransaction(BaseTransaction):
    """A transaction that is read from a stream."""

    __slots__ = ("_acknowledged", "_stream")

    def __init__(self, stream: Any, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._stream = stream
        # Which positions an acknowledgement moves, where it came before the end.
        self._acknowledged: tuple[bool, bool, bool] | None = None


T = TypeVar("T", bound=ReadTransaction)


class Closable(Protocol):
    """What a stream knows of its connection here."""

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""


class Feedback(Protocol):
    """What a stream knows of its feedback here."""

    def acknowledge(
        self, delivered: int, position: int, written: bool, flushed: bool, applied: bool
    ) -> None:
        """Take an acknowledgement. Waits for nobody."""

    def wait_begins(self, delivered: int, idle: bool) -> float | None:
        """Send what is due before the application waits; return for how long at most it should."""

    def stop(self) -> None:
        """Send nothing more."""


class BaseStream(ABC, Generic[T]):
    """The decoded changes of a slot: what has come of them, and what is acknowledged."""

    _connection: Closable
    _feedback: Feedback

    def __init__(self, session: Session, opened: Opened, transaction: type[T]) -> None:
        self._session = session
        self._transaction = transaction
        self._decoder = opened.decoder
        self._system = opened.checked.system
        self._start = opened.checked.start
        self._handled = opened.handled  # changes of the first transaction, not to be given again
        self._spool = opened.spool
        self._by_transaction = False
        self._last_batch: Batch | None = None  # unless more was given since
        self._changes: Changes | None = None
        self._transactions: Transactions[T] = Transactions(self._make)
        self._ended = False

    # What a flavour adds

    @abstractmethod
    def _close(self) -> None:
        """Close the connection at once."""

    @property
    def _is_over(self) -> bool:
        return self._ended or self._connection.closed

    def _fail(self) -> None:
        """Close the connection, so that nothing more is sent, and give nothing more: of what has
        come, something may be missing in front."""
        self._changes = None
        self._transactions = Transactions(self._make)
        self._feedback.stop()
        self._close()
        self._let_go()

    # What has come

    def _make(self, *arguments: Any, **keywords: Any) -> T:
        return self._transaction(self, *arguments, **keywords)

    def _at_hand(self) -> Changes | None:
        """Return what was decoded and not read yet; None: nothing is left of it."""
        changes = self._changes
        return None if changes is None or changes.peek() is None else changes

    def _next_transaction(self) -> T | None:
        """Begin the next transaction; None: another batch is needed."""
        with self._handing_out():
            return self._transactions.next()

    def _changes_at_hand(self, transaction: T) -> Iterator[Change]:
        """Give what has come of a transaction; then it is whole, or another batch is needed."""
        if self._transactions.open is not transaction:
            raise UsageError(
                "expected to read the transaction that was given last; the others are over"
            )
        with self._handing_out():
            changes = self._transactions.at_hand()
            while self._handled and next(changes, None) is not None:
                self._handled -= 1
            yield from changes
        if transaction.is_whole:
            self._handled = 0
            if transaction._acknowledged is not None and transaction.end_lsn is not None:
                self._tell(transaction.end_lsn, *transaction._acknowledged)

    def _take(self, changes: list[Change], room: int) -> bool:
        """Add what is at hand to a batch, up to a limit; False: nothing is."""
        transaction = self._transactions.open
        if transaction is None or transaction.is_whole:
            transaction = self._next_transaction()
            if transaction is None:
                return False
        before = len(changes)
        changes += islice(self._changes_at_hand(transaction), room)
        if len(changes) > before:
            self._last_batch = None
            return True
        self._end_batch()
        return transaction.is_whole

    def _end_batch(self) -> None:
        """Acknowledge the transaction whose changes were all given in batches, once it ends.

        Its end may come when the batch with the last of them has long been acknowledged.
        """
        batch, transaction = self._last_batch, self._transactions.open
        if batch is None or batch._acknowledged is None or transaction is None:
            return
        if transaction.is_whole and transaction.end_lsn is not None:
            self._tell(transaction.end_lsn, *batch._acknowledged)

    def _batch(self, changes: list[Change]) -> Batch:
        """Make a batch, with the end of the transaction where that comes next."""
        transaction = self._transactions.open
        if transaction is not None and self._transactions.at_end:
            changes += self._changes_at_hand(transaction)
        self._last_batch = Batch(changes, Lsn(self._decoder.delivered))
        return self._last_batch

    def _begin_to_read(self, by_transaction: bool) -> None:
        """Go on from the boundary of a transaction, in this way or the other."""
        self._by_transaction = by_transaction
        transaction = self._transactions.open
        if transaction is not None and not transaction.is_whole:
            raise UsageError(
                f"expected the last transaction to be read to its end, {transaction!r} was left in "
                "the middle: read on in it, or stop the stream and start it again, which brings "
                "what was not acknowledged once more"
            )

    def _begin_batches(self, max_rows: int) -> None:
        if max_rows < 1:
            raise UsageError(f"expected batches of at least one row, got max_rows={max_rows}")
        self._begin_to_read(by_transaction=True)

    def _wait_begins(self, left: float | None) -> float | None:
        """Tell the server what it should know before a wait that has so many seconds; return for
        how long at most to wait."""
        decoder = self._decoder
        limit = self._feedback.wait_begins(decoder.delivered, decoder.is_between)
        return min((each for each in (limit, left) if each is not None), default=None)

    def _decoded(self, batch: Any) -> Changes | None:
        """Decode a batch as it is read; None: there is nothing in it to read."""
        if not len(batch):
            raise ConnectionFailed("the server ended the stream; its log may say why")
        spool = self._spool if self._by_transaction else None
        changes = self._decoder.decode_batch(batch, spool)
        return None if changes.peek() is None else changes

    def _let_go(self) -> None:
        """Give back what was put aside, and the room for it."""
        if self._spool is not None:
            self._spool.close()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """See to it that nothing more is sent after an error: what is wrong stays so."""
        try:
            yield
        except Error:
            self._fail()
            raise

    @contextlib.contextmanager
    def _handing_out(self) -> Iterator[None]:
        """The same where nothing waits, and where Ctrl-C as well may have cost a change."""
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException:
            self._fail()
            raise

    # Acknowledging

    def ack(
        self,
        upto: Acknowledgeable,
        *,
        written: bool = True,
        flushed: bool = True,
        applied: bool = True,
    ) -> None:
        """Acknowledge everything up to a transaction, commit, batch or position. From any thread.

        Cumulative, and never waits: the server is told as soon as the application waits for more,
        or within a tenth of a second. A transaction that was not read to its end is acknowledged
        when it is. A position beyond what was delivered counts as the end of what was.

        Flushed is what lets the server forget. For synchronous replication the three positions that
        the server waits for can be moved apart: ``ack(txn, applied=False)`` when it is durable,
        ``ack(txn)`` when others can see it.
        """
        if self._is_over:
            raise UsageError(
                "expected a stream that is on, this one has ended: the server cannot be told, and "
                "sends what was not acknowledged in time once more"
            )
        moved = (written, flushed, applied)
        if isinstance(upto, ReadTransaction | Batch):
            upto._acknowledged = moved
        if not isinstance(upto, ReadTransaction) or upto.is_whole:
            self._tell(_end_of(upto), *moved)
        if isinstance(upto, Batch):
            self._end_batch()

    def _tell(self, position: int, written: bool, flushed: bool, applied: bool) -> None:
        """Pass an acknowledgement on to the session."""
        self._feedback.acknowledge(self._decoder.delivered, position, written, flushed, applied)

    def token(self, upto: Acknowledgeable | None = None, index: int = 0) -> ResumeToken:
        """Return what to keep beside one's own data to go on behind `upto` later.

        Without `upto`: behind the last position before which nothing is left to acknowledge, which
        moves on while the stream is idle. `index`: how many changes of the transaction behind it
        are dealt with as well. Give the token as `start` to `stream()`, which then knows if it is
        the same system and if the slot still has all that is missing.

        Once a token was asked for, or the stream began with one, the slot no longer advances by
        itself while the stream is idle, since it would get ahead of the token that was kept: now
        and then keep ``token()`` and acknowledge that.
        """
        positions = self._session.positions
        positions.automatic = False
        position = _end_of(upto) if upto is not None else positions.safe or self._start
        return ResumeToken(self._system.systemid, self._system.timeline, Lsn(position), index)

    def stats(self) -> Stats:
        """Return where the stream stands. From any thread."""
        positions = self._session.positions
        return Stats(
            Lsn(positions.received),
            Lsn(self._decoder.delivered),
            Lsn(positions.last.written),
            Lsn(positions.last.flushed),
            Lsn(positions.last.applied),
            self._session.statuses,
        )

    def __repr__(self) -> str:
        state = "ended" if self._is_over else "on"
        return f"<pgrepl.{type(self).__name__} {state} {self.stats()!r}>"


def _end_of(upto: Any) -> int:
    """Return the position by which something is acknowledged."""
    if isinstance(upto, RollbackPrepared):
        return upto.rollback_end_lsn
    if isinstance(upto, Message):
        return upto.lsn
    if isinstance(upto, int):
        return upto
    end_lsn = getattr(upto, "end_lsn", None)
    if end_lsn is None or not getattr(upto, "is_whole", True):
        raise UsageError(
            "expected a transaction that was read to its end, a batch, a message that ends a "
            f"transaction or an Lsn, got {upto!r:.100}"
        )
    return int(end_lsn)
