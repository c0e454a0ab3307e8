"""Level 2 of the API, the stream: decoded changes of a slot and their acknowledgement, blocking."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .base_stream import BaseStream, Batch, Change, ReadTransaction
from .codec.abc import Changes
from .errors import ConnectionFailed, UsageError
from .messages import LogicalMessage
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


class Stream(BaseStream[Transaction]):
    """The decoded changes of a slot, made by `Connection.stream`; a context manager that stops.

    Iterate over it for what pgoutput says, message by message, or over `transactions` or `batches`.
    One thread reads; `ack`, `stats` and `stop` are for any.
    """

    def __init__(self, connection: Connection, session: Session, opened: Opened) -> None:
        super().__init__(session, opened, Transaction)
        self._connection: Connection = connection
        self._is_torn = False
        self._feedback: Feedback = Feedback(
            session, connection._transport, opened.checked.slot.name
        )

    def _close(self) -> None:
        self._connection.disconnect()

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

    def _fetched(self, timeout: float | None) -> bool:
        """Receive the next batch with something in it; False: the stream was stopped."""
        if self._is_torn:
            raise UsageError(
                "expected a stream that was not interrupted while it took in what had come, some "
                "of which may be lost: stop it and start it again, which brings what was not "
                "acknowledged once more"
            )
        self._is_torn = True  # wherever Ctrl-C comes
        try:
            changes = self._changes = self._fetch(timeout)
            if changes is not None:
                self._transactions.feed(changes)
        except Exception:
            self._is_torn = False
            raise
        except BaseException:
            # While it waited, nothing had come yet.
            self._is_torn = not self._connection._transport.was_waiting
            raise
        self._is_torn = False
        return changes is not None

    def _fetch(self, timeout: float | None) -> Changes | None:
        deadline = Deadline.after(timeout)
        with self._failing():
            while not self._ended:
                try:
                    batch = self._receive(deadline)
                except (ConnectionFailed, UsageError):
                    if self._ended:  # by another thread
                        return None
                    raise
                changes = self._decoded(batch)
                self._feedback.received(batch)
                if changes is not None:
                    return changes
        return None

    def _receive(self, deadline: Deadline) -> Any:
        batch = self._connection._batch_at_hand()
        return self._wait(deadline) if batch is None else batch

    def _wait(self, deadline: Deadline) -> Any:
        """Wait for a batch, telling the server what it should know before."""
        try:
            while True:
                limit = self._wait_begins(deadline.left())
                with contextlib.suppress(TimeoutError):
                    return self._connection._next_batch(limit)
                self._feedback.silence()
                if deadline.left() == 0.0:
                    raise TimeoutError
        finally:
            self._feedback.wait_ends()

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
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
