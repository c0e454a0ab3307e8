"""Level 2 of the API, the stream: decoded changes of a slot and their acknowledgement, blocking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

from ..client.delivery import Batch, Change, Idle, ReadTransaction, StreamEvent
from ..client.stream import BaseStream
from ..errors import UsageError
from ..messages import LogicalMessage
from ..session.opening import Opened
from ..session.session import Session
from ..transport.clock import Deadline
from .reception import Reception
from .wire import StreamWire

__all__ = ["Stream", "Transaction"]


class Transaction(ReadTransaction):
    """A transaction: iterate over its changes, once, before the next one is asked for.

    What was not read yet comes next. Once it owns its changes they can be iterated over at any
    time, by any thread, and repeatedly: behind `read`, or where `Stream.transactions` was asked for
    whole ones.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[Change]:
        """Iterate over the changes that were not read yet, or over those that it owns.

        Raises what iterating over the stream raises, and `UsageError` where there is nothing left
        to iterate over: all was read, or passed over, or `skip` said that it is not needed.
        """
        if self._owned is not None:
            return iter(self._owned)
        self._require_unread()
        return self._stream._changes_of(self)  # type: ignore[no-any-return]

    def read(self) -> list[Change]:
        """Return the rest of its changes, which it owns from then on.

        Waits until all have come, and raises what iterating over it raises.
        """
        if self._owned is None:
            changes: list[Change] = []
            try:
                changes.extend(self)
            except BaseException:
                self._stream._put_back(self, changes)
                raise
            self._owned = changes
        return list(self._owned)


class Stream(Reception, BaseStream[Transaction]):
    """The decoded changes of a slot, made by `Connection.stream`; a context manager that stops.

    Iterate over it for what pgoutput says, message by message, or over `transactions` or `batches`.
    One thread reads; `ack`, `stats` and `stop` are for any.
    """

    def __init__(self, wire: StreamWire, session: Session, opened: Opened) -> None:
        super().__init__(session, opened, Transaction)
        self._wire = wire
        self._is_torn = False
        self._feedback = wire.feedback(session, self._slot, self._health_logger())

    # Reading

    def __iter__(self) -> Iterator[LogicalMessage]:
        """Iterate over the messages as they come: Begin, changes, Commit, and all others.

        Raises `DecodeError`, `ConnectionFailed`, `ServerShutdown` and other `ServerError`s; the
        stream has then ended, and what was not acknowledged comes again.
        """
        self._begin_to_read(by_transaction=False)
        while not self._ends_here and (self._at_hand() or self._fetched(None)):
            with self._closing_on_exception():
                yield from (self._changes or ()) if self._limit is None else self._up_to_limit()

    @overload
    def transactions(self, *, whole: bool = False, idle: None = None) -> Iterator[Transaction]: ...
    @overload
    def transactions(self, *, whole: bool = False, idle: float) -> Iterator[Transaction | Idle]: ...
    def transactions(
        self, *, whole: bool = False, idle: float | None = None
    ) -> Iterator[Transaction | Idle]:
        """Iterate over transactions in the order of their commits.

        Changes that were not read when the next transaction is asked for are passed over; who
        tries to read them later, or to acknowledge them, gets a `UsageError`. Raises what iterating
        over the stream raises.

        With `whole` each is given when all of it has come, and owns its changes: they can be
        iterated over at any time, repeatedly, by any thread, also when the stream has ended. What
        they take is given back when nobody has the transaction any more. Those that somebody has
        share `memory_limit` with what is streamed, and wait in a temporary file beyond it.

        With `idle` an `Idle` is given as well, whenever it has been waiting for so many seconds and
        nothing is left to acknowledge, whether or not the server has moved on. Acknowledge it like
        a transaction; where tokens are kept, after its own was.
        """
        self._begin_transactions(idle, whole)
        transaction = None if self._transactions.is_gathering else self._transactions.open
        next_one = self._next_whole if whole else self._next_transaction
        quiet = Deadline.after(idle)
        while True:
            if transaction is not None and not transaction._has_ended:
                self._pass_to_end(transaction)
            transaction = next_one()
            if transaction is not None:
                yield transaction
                if idle is not None:
                    quiet = Deadline(idle)
                continue
            try:
                if not self._fetched(quiet.left()):
                    return
            except TimeoutError:
                if (event := self._idle_event()) is not None:
                    yield event
                quiet = Deadline.after(idle)

    @overload
    def batches(
        self, max_rows: int = 1000, max_wait: float = 1.0, *, idle: None = None
    ) -> Iterator[Batch]: ...
    @overload
    def batches(
        self, max_rows: int = 1000, max_wait: float = 1.0, *, idle: float
    ) -> Iterator[Batch | Idle]: ...
    def batches(
        self, max_rows: int = 1000, max_wait: float = 1.0, *, idle: float | None = None
    ) -> Iterator[Batch | Idle]:
        """Iterate over batches of at most `max_rows` changes.

        A batch is given when it is full, and at the latest `max_wait` seconds after its first
        change has come. With `idle` an `Idle` in between as well, see `transactions`. Raises what
        iterating over the stream raises.
        """
        self._begin_batches(max_rows, idle)
        while self._fill_batch(max_rows, max_wait, idle):
            if self._gathered:
                yield self._batch()
            elif (event := self._idle_event()) is not None:
                yield event

    def receive(self, timeout: float | None = None) -> Iterator[StreamEvent]:
        """Wait for what comes next and return all that one read brought: changes, keepalives.

        To be read to its end before the next call; nothing is in it when the stream was stopped.
        Each is decoded when it is asked for, and then raises what iterating over the stream raises.
        Raises `TimeoutError` when nothing comes in time, after which the stream goes on. With a
        `timeout` of 0 this is for loops that wait elsewhere, for `fileno` and other things; such a
        loop has to look again before `receive_timeout` is over.
        """
        self._begin_to_receive()
        if not self._fetched(timeout, whatever=True):
            return iter(())
        self._has_events = True
        return self._events()

    def _fill_batch(self, max_rows: int, max_wait: float, idle: float | None) -> bool:
        """Gather what makes a batch, or wait until nothing came for a while; False: none will."""
        deadline, is_for_more = Deadline.after(idle), False
        while len(self._gathered) < max_rows and deadline.left() != 0.0:
            if self._gather_at_hand(max_rows):
                continue
            if self._gathered and not is_for_more:
                deadline, is_for_more = Deadline(max_wait), True
            try:
                if not self._fetched(deadline.left()):
                    return bool(self._gathered)
            except TimeoutError:
                break
        return True

    def _changes_of(self, transaction: Transaction) -> Iterator[Change]:
        """Give the changes of a transaction that were not read yet, as they come."""
        while not transaction._has_ended:
            yield from self._changes_at_hand(transaction)
            if not transaction._has_ended:
                self._fetch_more()
        transaction._require_complete()

    def _pass_to_end(self, transaction: Transaction) -> None:
        """Pass over the rest of a transaction."""
        try:
            while not self._pass_over(transaction):
                self._fetch_more()
        except BaseException:
            self._unmark_passing(transaction)
            raise

    def _fetch_more(self) -> None:
        """Go on with the open transaction."""
        if not self._fetched(None):
            raise UsageError("the stream was stopped in the middle of this transaction")

    def _fetched(self, timeout: float | None, whatever: bool = False) -> bool:
        """Receive the next batch with something in it to read, or whatever comes; False: the
        stream was stopped."""
        if self._is_torn:
            raise UsageError(
                "expected a stream that was not interrupted while it took in what had come, some "
                "of which may be lost: stop it and start it again, which brings what was not "
                "acknowledged once more"
            )
        self._is_torn = True  # wherever Ctrl-C comes
        try:
            goes_on = self._fetch(Deadline.after(timeout), whatever)
        except Exception:
            self._is_torn = False
            raise
        except BaseException:
            # While it waited, nothing had come yet.
            self._is_torn = not self._wire.has_lost_nothing
            raise
        self._is_torn = False
        return goes_on

    def _fetch(self, deadline: Deadline, whatever: bool) -> bool:
        with self._closing_on_error():
            while not self._ended:
                batch = self._next_batch(deadline)
                if batch is None:
                    return False
                changes = self._decoded(batch)
                self._feedback.received(batch)
                if whatever or changes.peek() is not None:
                    self._wal, self._changes = batch, changes
                    self._transactions.feed(changes)
                    return True
        return False
