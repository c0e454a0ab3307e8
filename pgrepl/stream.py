"""Level 2 of the API, the stream: decoded changes of a slot, blocking, and their acknowledgement.

A position is reported to the server as flushed when the application has acknowledged it, and never
before. What was not acknowledged comes again when the slot is streamed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from .codec.abc import Changes, Decoder
from .errors import ConnectionFailed, Error, UsageError
from .lsn import Lsn
from .messages import (
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Prepare,
    RollbackPrepared,
    StreamCommit,
    StreamPrepare,
    Truncate,
    Update,
)
from .protocol.preflight import Preflight
from .session.session import Session
from .session.transactions import BaseTransaction, Transactions
from .token import ResumeToken
from .transport.clock import Deadline
from .transport.feedback import Feedback

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Acknowledgeable", "Batch", "Change", "Stats", "Stream", "Transaction"]

Change: TypeAlias = Insert | Update | Delete | Truncate | Message
"""What a transaction consists of."""


class Transaction(BaseTransaction):
    """A transaction: iterate over its changes, once; what was not read yet comes next."""

    __slots__ = ("_acknowledged", "_stream")

    def __init__(self, stream: Stream, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._stream = stream
        self._acknowledged: tuple[bool, bool, bool] | None = None

    def __iter__(self) -> Iterator[Change]:
        while not self.is_whole:
            yield from self._stream._changes_at_hand(self)
            if not self.is_whole:
                self._stream._fetch_more()


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one or more transactions, in order.

    `end_lsn`: of the last transaction that ends in it or ended before; acknowledging the batch
    acknowledges everything up to there.
    """

    changes: list[Change]
    end_lsn: Lsn

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)


Acknowledgeable: TypeAlias = (
    Transaction
    | Batch
    | Commit
    | StreamCommit
    | Prepare
    | StreamPrepare
    | CommitPrepared
    | RollbackPrepared
    | Message
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


class Stream:
    """The decoded changes of a slot, made by `Connection.stream`; a context manager that stops.

    Iterate over it for what pgoutput says, message by message, or over `transactions` or `batches`.
    One thread reads; `ack` and `stats` are for any.
    """

    def __init__(
        self,
        connection: Connection,
        session: Session,
        decoder: Decoder,
        checked: Preflight,
        handled: int = 0,
    ) -> None:
        """`handled`: how many changes of the first transaction are not to be given again."""
        self._connection = connection
        self._session = session
        self._decoder = decoder
        self._changes: Changes | None = None
        self._transactions: Transactions[Transaction] = Transactions(self._make)
        self._ended = False
        self._checked = checked
        self._handled = handled
        self._feedback = Feedback(session, connection._transport, checked.slot.name)

    def _make(self, *arguments: Any, **keywords: Any) -> Transaction:
        return Transaction(self, *arguments, **keywords)

    # Reading

    def __iter__(self) -> Iterator[LogicalMessage]:
        """Iterate over the messages as they come: Begin, changes, Commit, and all others.

        Raises `DecodeError`, `ConnectionFailed`, `ServerShutdown` and other `ServerError`s; the
        stream has then ended, and what was not acknowledged comes again.
        """
        self._expect_transaction_read()
        while (changes := self._more()) is not None:
            with self._failing():
                yield from changes

    def transactions(self) -> Iterator[Transaction]:
        """Iterate over transactions in the order of their commits.

        Changes that were not read when the next transaction is asked for are passed over. Raises
        what iterating over the stream raises.
        """
        self._expect_transaction_read()
        while (changes := self._more()) is not None:
            self._transactions.feed(changes)
            with self._failing():
                transaction = self._transactions.next()
            while transaction is not None:
                self._pass_over_handled(transaction)
                yield transaction
                for _ in transaction:
                    pass
                with self._failing():
                    transaction = self._transactions.next()

    def _pass_over_handled(self, transaction: Transaction) -> None:
        if self._handled:
            for _ in islice(transaction, self._handled):
                pass
            self._handled = 0

    def batches(self, max_rows: int = 1000, max_wait: float = 1.0) -> Iterator[Batch]:
        """Iterate over batches of at most `max_rows` changes.

        A batch is given when it is full, and at the latest `max_wait` seconds after its first
        change has come. Raises what iterating over the stream raises.
        """
        if max_rows < 1:
            raise UsageError(f"expected batches of at least one row, got max_rows={max_rows}")
        self._expect_transaction_read()
        while True:
            changes: list[Change] = []
            deadline = Deadline.after(None)
            while len(changes) < max_rows and deadline.left() != 0.0:
                room = max_rows - len(changes)
                if self._take(changes, room):
                    continue
                if changes and deadline.timeout is None:
                    deadline = Deadline(max_wait)
                try:
                    if not self._fetched(deadline.left()):
                        break
                except TimeoutError:
                    break
            if not changes:
                return
            self._take_end()
            yield Batch(changes, Lsn(self._decoder.delivered))

    def _take(self, changes: list[Change], room: int) -> bool:
        """Add what is at hand, up to a limit; False: nothing is."""
        transaction = self._transactions.open
        if transaction is None or transaction.is_whole:
            with self._failing():
                transaction = self._transactions.next()
            if transaction is None:
                return False
            self._pass_over_handled(transaction)
        before = len(changes)
        changes += islice(self._changes_at_hand(transaction), room)
        return len(changes) > before or transaction.is_whole

    def _take_end(self) -> None:
        """Read the end of the transaction if it comes next, so that a batch can acknowledge it."""
        transaction = self._transactions.open
        at_end = self._changes is not None and self._changes.peek() in ("C", "P")
        if transaction is not None and not transaction.is_whole and at_end:
            for _ in self._changes_at_hand(transaction):
                raise AssertionError("expected nothing in front of a commit")

    def _fetched(self, timeout: float | None) -> bool:
        """Receive the next batch, and go on with it; False: the stream was stopped."""
        changes = self._changes = self._fetch(timeout)
        if changes is None:
            return False
        self._transactions.feed(changes)
        return True

    def _changes_at_hand(self, transaction: Transaction) -> Iterator[Change]:
        if self._transactions.open is not transaction:
            raise UsageError(
                "expected to read the transaction that was given last; the others are over"
            )
        with self._failing():
            yield from self._transactions.at_hand()
        if transaction._acknowledged is not None and transaction.end_lsn is not None:
            self._acknowledge(transaction.end_lsn, *transaction._acknowledged)

    def _expect_transaction_read(self) -> None:
        transaction = self._transactions.open
        if transaction is not None and not transaction.is_whole:
            raise UsageError(
                f"expected the last transaction to be read to its end, {transaction!r} was left in "
                "the middle: read on in it, or stop the stream and start it again, which brings "
                "what was not acknowledged once more"
            )

    def _more(self) -> Changes | None:
        """Return what was decoded and not read yet, or else what comes next; None: it ended."""
        if self._changes is None or self._changes.peek() is None:
            self._changes = self._fetch(None)
        return self._changes

    def _fetch_more(self) -> None:
        """Go on with the open transaction."""
        if not self._fetched(None):
            raise UsageError("the stream was stopped in the middle of this transaction")

    def _fetch(self, timeout: float | None) -> Changes | None:
        """Receive the next batch with something in it; None: the stream was stopped."""
        if self._ended:
            return None
        deadline = Deadline.after(timeout)
        with self._failing():
            while True:
                try:
                    batch = self._receive(deadline)
                except (ConnectionFailed, UsageError):
                    if self._ended:  # by another thread
                        return None
                    raise
                if not len(batch):
                    raise ConnectionFailed("the server ended the stream; its log may say why")
                self._feedback.received(batch)
                changes = self._decoder.decode_batch(batch)
                if changes.peek() is not None:
                    return changes

    def _receive(self, deadline: Deadline) -> Any:
        try:
            return self._connection._next_batch(0)
        except TimeoutError:
            return self._wait(deadline)

    def _wait(self, deadline: Deadline) -> Any:
        """Wait for a batch, telling the server what it should know before."""
        feedback, decoder = self._feedback, self._decoder
        try:
            while True:
                limits = (
                    feedback.wait_begins(decoder.delivered, decoder.is_between),
                    deadline.left(),
                )
                with contextlib.suppress(TimeoutError):
                    return self._connection._next_batch(
                        min((limit for limit in limits if limit is not None), default=None)
                    )
                feedback.silence()
                if deadline.left() == 0.0:
                    raise TimeoutError
        finally:
            feedback.wait_ends()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """See to it that nothing more is sent after an error: what is wrong stays so."""
        try:
            yield
        except Error:
            self._feedback.stop()
            self._connection.disconnect()
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
        if self._ended or self._connection.closed:
            raise UsageError(
                "expected a stream that is on, this one has ended: the server cannot be told, and "
                "sends what was not acknowledged in time once more"
            )
        moved = (written, flushed, applied)
        if isinstance(upto, Transaction):
            upto._acknowledged = moved
            position: int | None = upto.end_lsn
        else:
            position = _end_of(upto)
        if position is not None:
            self._acknowledge(position, *moved)

    def _acknowledge(self, position: int, written: bool, flushed: bool, applied: bool) -> None:
        self._feedback.acknowledge(self._decoder.delivered, position, written, flushed, applied)

    def token(self, upto: Acknowledgeable, index: int = 0) -> ResumeToken:
        """Return what to keep beside one's own data to go on behind `upto` later.

        `index`: how many changes of the transaction behind it are dealt with as well. Give the
        token as `start` to `Connection.stream`, which then knows if it is the same system and if
        the slot still has all that is missing.
        """
        end_lsn = upto.end_lsn if isinstance(upto, Transaction) else _end_of(upto)
        if end_lsn is None:
            raise UsageError(
                "expected a transaction that was read to its end, else that is not known"
            )
        system = self._checked.system
        return ResumeToken(system.systemid, system.timeline, Lsn(end_lsn), index)

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

    # The end

    def stop(self, timeout: float = 10.0) -> None:
        """Report for the last time, end the stream, and return to commands. Safe to call again.

        The server first sends the rest of the transaction that it is decoding, which is thrown
        away; if that takes more than `timeout` seconds the connection is closed. From another
        thread than the one that reads, which then comes to an end, it is closed as well.
        """
        if self._ended:
            return
        self._ended = True
        deadline = Deadline(timeout)
        try:
            if not self._connection.closed:
                self._feedback.send(final=True, timeout=timeout)
                self._connection.stop_streaming(deadline.left())
        except (TimeoutError, ConnectionFailed, UsageError):
            # A UsageError says that somebody is reading.
            self._connection.disconnect()
        finally:
            self._feedback.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "ended" if self._ended or self._connection.closed else "on"
        return f"<pgrepl.Stream {state} {self.stats()!r}>"


def _end_of(upto: Any) -> int:
    """Return the position by which something is acknowledged."""
    if isinstance(upto, RollbackPrepared):
        return upto.rollback_end_lsn
    if isinstance(upto, Message):
        return upto.lsn
    if isinstance(upto, int):
        return upto
    end_lsn = getattr(upto, "end_lsn", None)
    if end_lsn is None:
        raise UsageError(
            "expected a Transaction, a batch, a message that ends a transaction or an Lsn to "
            f"acknowledge, got {type(upto).__name__}"
        )
    return int(end_lsn)
