"""Level 2 of the API, the stream: decoded changes of a slot and their acknowledgement, asyncio.

What iterates keeps its place in objects, not in a generator's frame: so whatever waits can be
cancelled, by `asyncio.timeout` for instance, and the next call goes on where it stood.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import overload

from ..client.delivery import Batch, Change, Idle, ReadTransaction, StreamEvent
from ..client.stream import BaseStream
from ..errors import UsageError
from ..messages import LogicalMessage
from ..session.opening import Opened
from ..session.session import Session
from ..transport.clock import Deadline
from .reception import AsyncReception
from .wire import AsyncStreamWire

__all__ = ["AsyncStream", "AsyncTransaction"]


class AsyncTransaction(ReadTransaction):
    """A transaction: iterate over its changes, once, before the next one is asked for.

    What was not read yet comes next. Once it owns its changes they can be iterated over at any
    time, by any task or thread, and repeatedly, by ``async for`` as well as by ``for``: behind
    `read`, or where `AsyncStream.transactions` was asked for whole ones.
    """

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[Change]:
        """Iterate over the changes that were not read yet, or over those that it owns.

        Raises what iterating over the stream raises, and `UsageError` where there is nothing left
        to iterate over: all was read, or passed over, or `skip` said that it is not needed.
        """
        if self._owned is not None:
            return _OwnedIterator(iter(self._owned))
        self._require_unread()
        return _ChangeIterator(self._stream, self)

    def __iter__(self) -> Iterator[Change]:
        """Iterate over the changes that it owns. Raises `UsageError` unless it does."""
        if self._owned is None:
            self._require_unread()
            raise UsageError(
                f"expected `async for` over the changes of {self!r}, which are still to come: "
                "`for` is for a transaction that owns them, behind `await transaction.read()` or "
                "from transactions(whole=True)"
            )
        return iter(self._owned)

    async def read(self) -> list[Change]:
        """Return the rest of its changes, which it owns from then on.

        Waits until all have come, and raises what iterating over it raises. When it is cancelled,
        nothing is lost: what it had read is read again.
        """
        if self._owned is None:
            changes: list[Change] = []
            stream = self._stream
            self._require_unread()
            try:
                while not self._has_ended:
                    changes.extend(stream._changes_at_hand(self))
                    if not self._has_ended:
                        await stream._fetch_more()
                self._require_complete()
            except BaseException:
                stream._put_back(self, changes)
                raise
            self._owned = changes
        return list(self._owned)


class _OwnedIterator(AsyncIterator[Change]):
    """Changes that are there, for ``async for``."""

    __slots__ = ("_changes",)

    def __init__(self, changes: Iterator[Change]) -> None:
        self._changes = changes

    async def __anext__(self) -> Change:
        for change in self._changes:
            return change
        raise StopAsyncIteration


class _ChangeIterator(AsyncIterator[Change]):
    """The changes of a transaction, as they come."""

    __slots__ = ("_at_hand", "_stream", "_transaction")

    def __init__(self, stream: AsyncStream, transaction: AsyncTransaction) -> None:
        self._stream = stream
        self._transaction = transaction
        self._at_hand: Iterator[Change] = iter(())

    async def __anext__(self) -> Change:
        for change in self._at_hand:
            return change
        transaction, stream = self._transaction, self._stream
        while not transaction._has_ended:
            self._at_hand = stream._changes_at_hand(transaction)
            for change in self._at_hand:
                return change
            if not transaction._has_ended:
                await stream._fetch_more()
        transaction._require_complete()
        raise StopAsyncIteration


class _TransactionIterator(AsyncIterator[AsyncTransaction | Idle]):
    """The transactions of a stream, and where nothing comes for `idle` seconds, that."""

    __slots__ = ("_idle", "_quiet", "_stream", "_whole")

    def __init__(self, stream: AsyncStream, whole: bool, idle: float | None) -> None:
        self._stream = stream
        self._whole = whole
        self._idle = idle
        self._quiet: Deadline | None = None  # of the wait that goes on, also if it was cut off

    async def __anext__(self) -> AsyncTransaction | Idle:
        stream = self._stream
        before = None if stream._transactions.is_gathering else stream._transactions.open
        if before is not None and not before._has_ended:
            await self._pass_to_end(before)
        next_one = stream._next_whole if self._whole else stream._next_transaction
        while (transaction := next_one()) is None:
            if self._quiet is None:
                self._quiet = Deadline.after(self._idle)
            try:
                if not await stream._fetched(self._quiet.left()):
                    raise StopAsyncIteration
            except TimeoutError:
                self._quiet = None
                if (event := stream._idle_event()) is not None:
                    return event
        self._quiet = None
        return transaction

    async def _pass_to_end(self, transaction: AsyncTransaction) -> None:
        """Pass over the rest of a transaction."""
        stream = self._stream
        try:
            while not stream._pass_over(transaction):
                await stream._fetch_more()
        except BaseException:
            stream._unmark_passing(transaction)
            raise


class _MessageIterator(AsyncIterator[LogicalMessage]):
    """The messages of a stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    async def __anext__(self) -> LogicalMessage:
        stream = self._stream
        while True:
            if stream._ends_here:
                raise StopAsyncIteration
            if stream._changes is not None:
                with stream._closing_on_exception():
                    for message in stream._changes:
                        return message
            if not await stream._fetched(None):
                raise StopAsyncIteration


class _BatchIterator(AsyncIterator[Batch | Idle]):
    """The changes of a stream in batches; one that was cut off is gone on with, or a wait."""

    __slots__ = ("_deadline", "_idle", "_is_for_more", "_max_rows", "_max_wait", "_stream")

    def __init__(
        self, stream: AsyncStream, max_rows: int, max_wait: float, idle: float | None
    ) -> None:
        self._stream = stream
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._idle = idle
        self._deadline: Deadline | None = None
        self._is_for_more = False  # the deadline is the batch's

    async def __anext__(self) -> Batch | Idle:
        stream = self._stream
        while await self._filled():
            self._deadline, self._is_for_more = None, False
            if stream._gathered:
                return stream._batch()
            if (event := stream._idle_event()) is not None:
                return event
        raise StopAsyncIteration

    async def _filled(self) -> bool:
        """Wait for what makes a batch, or until none came for a while; False: none will."""
        stream = self._stream
        deadline = self._deadline or Deadline.after(self._idle)
        while len(stream._gathered) < self._max_rows and deadline.left() != 0.0:
            if stream._gather_at_hand(self._max_rows):
                continue
            if stream._gathered and not self._is_for_more:
                deadline, self._is_for_more = Deadline(self._max_wait), True
            self._deadline = deadline
            try:
                if not await stream._fetched(deadline.left()):
                    return bool(stream._gathered)
            except TimeoutError:
                break
        return True


class AsyncStream(AsyncReception, BaseStream[AsyncTransaction]):
    """The decoded changes of a slot, made by `AsyncConnection.stream`; `async with` stops it.

    Iterate over it for what pgoutput says, message by message, or over `transactions` or `batches`.
    One task reads; `ack` and `stats` are for any. Every wait can be cancelled, and loses nothing.
    """

    def __init__(self, wire: AsyncStreamWire, session: Session, opened: Opened) -> None:
        super().__init__(session, opened, AsyncTransaction)
        self._wire = wire
        self._feedback = wire.feedback(session, self._health_logger())

    # Reading

    def __aiter__(self) -> AsyncIterator[LogicalMessage]:
        """Iterate over the messages as they come; see `Stream`."""
        self._begin_to_read(by_transaction=False)
        return _MessageIterator(self)

    @overload
    def transactions(
        self, *, whole: bool = False, idle: None = None
    ) -> AsyncIterator[AsyncTransaction]: ...
    @overload
    def transactions(
        self, *, whole: bool = False, idle: float
    ) -> AsyncIterator[AsyncTransaction | Idle]: ...
    def transactions(
        self, *, whole: bool = False, idle: float | None = None
    ) -> AsyncIterator[AsyncTransaction] | AsyncIterator[AsyncTransaction | Idle]:
        """Iterate over transactions in the order of their commits; see `Stream.transactions`.

        With `whole` they own their changes, and can be iterated over by ``for`` too.
        """
        self._begin_transactions(idle, whole)
        return _TransactionIterator(self, whole, idle)

    @overload
    def batches(
        self, max_rows: int = 1000, max_wait: float = 1.0, *, idle: None = None
    ) -> AsyncIterator[Batch]: ...
    @overload
    def batches(
        self, max_rows: int = 1000, max_wait: float = 1.0, *, idle: float
    ) -> AsyncIterator[Batch | Idle]: ...
    def batches(
        self, max_rows: int = 1000, max_wait: float = 1.0, *, idle: float | None = None
    ) -> AsyncIterator[Batch] | AsyncIterator[Batch | Idle]:
        """Iterate over batches of changes, one wait for many; see `Stream.batches`."""
        self._begin_batches(max_rows, idle)
        return _BatchIterator(self, max_rows, max_wait, idle)

    async def _fetch_more(self) -> None:
        """Go on with the open transaction."""
        if not await self._fetched(None):
            raise UsageError("the stream was stopped in the middle of this transaction")

    async def receive(self, timeout: float | None = None) -> Iterator[StreamEvent]:
        """Wait for what comes next and return all that one read brought; see `Stream.receive`."""
        self._begin_to_receive()
        if not await self._fetched(timeout, whatever=True):
            return iter(())
        self._has_events = True
        return self._events()

    async def _fetched(self, timeout: float | None, whatever: bool = False) -> bool:
        """Receive the next batch with something in it to read, or whatever comes; False: the
        stream was stopped."""
        deadline = Deadline.after(timeout)
        with self._closing_on_error():
            while not self._ended:
                batch = await self._next_batch(deadline)
                if batch is None:
                    return False
                # Nothing is awaited from here on, so that a cancellation finds it done or not.
                changes = self._decoded(batch)
                self._feedback.received(batch)
                if whatever or changes.peek() is not None:
                    self._wal, self._changes = batch, changes
                    self._transactions.feed(changes)
                    return True
        return False
