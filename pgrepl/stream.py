"""Level 2 of the API, the stream: decoded changes of a slot and their acknowledgement, blocking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .base_stream import BaseStream, Batch, Change, ReadTransaction, StreamEvent
from .errors import UsageError
from .messages import LogicalMessage
from .reception import Reception
from .session.opening import Opened
from .session.session import Session
from .transport.clock import Deadline
from .transport.feedback import Feedback

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Stream", "Transaction"]


class Transaction(ReadTransaction):
    """A transaction: iterate over its changes, once; what was not read yet comes next."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Change]:
        while not self.is_whole:
            yield from self._stream._changes_at_hand(self)
            if not self.is_whole:
                self._stream._fetch_more()


class Stream(Reception, BaseStream[Transaction]):
    """The decoded changes of a slot, made by `Connection.stream`; a context manager that stops.

    Iterate over it for what pgoutput says, message by message, or over `transactions` or `batches`.
    One thread reads; `ack`, `stats` and `stop` are for any.
    """

    def __init__(self, connection: Connection, session: Session, opened: Opened) -> None:
        super().__init__(session, opened, Transaction)
        self._connection = connection
        self._is_torn = False
        self._feedback = Feedback(session, connection._transport, opened.checked.slot.name)

    # Reading

    def __iter__(self) -> Iterator[LogicalMessage]:
        """Iterate over the messages as they come: Begin, changes, Commit, and all others.

        Raises `DecodeError`, `ConnectionFailed`, `ServerShutdown` and other `ServerError`s; the
        stream has then ended, and what was not acknowledged comes again.
        """
        self._begin_to_read(by_transaction=False)
        while self._at_hand() or self._fetched(None):
            with self._handing_out():
                yield from self._changes or ()

    def transactions(self) -> Iterator[Transaction]:
        """Iterate over transactions in the order of their commits.

        Changes that were not read when the next transaction is asked for are passed over. Raises
        what iterating over the stream raises.
        """
        self._begin_to_read(by_transaction=True)
        while True:
            transaction = self._next_transaction()
            if transaction is not None:
                yield transaction
                self._transactions.skip()
                for _ in transaction:
                    pass
            elif not self._fetched(None):
                return

    def batches(self, max_rows: int = 1000, max_wait: float = 1.0) -> Iterator[Batch]:
        """Iterate over batches of at most `max_rows` changes.

        A batch is given when it is full, and at the latest `max_wait` seconds after its first
        change has come. Raises what iterating over the stream raises.
        """
        self._begin_batches(max_rows)
        while changes := self._changes_of_batch(max_rows, max_wait):
            yield self._batch(changes)

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

    def _changes_of_batch(self, max_rows: int, max_wait: float) -> list[Change]:
        changes: list[Change] = []
        deadline = Deadline.after(None)
        while len(changes) < max_rows and deadline.left() != 0.0:
            if self._take(changes, max_rows - len(changes)):
                continue
            if changes and deadline.timeout is None:
                deadline = Deadline(max_wait)
            try:
                if not self._fetched(deadline.left()):
                    break
            except TimeoutError:
                break
        return changes

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
            self._is_torn = not self._connection._transport.was_waiting
            raise
        self._is_torn = False
        return goes_on

    def _fetch(self, deadline: Deadline, whatever: bool) -> bool:
        with self._failing():
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
