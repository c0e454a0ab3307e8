"""Level 2 of the API, the stream: decoded changes of a slot and their acknowledgement, asyncio.

What iterates keeps its place in objects, not in a generator's frame: so whatever waits can be
cancelled, by `asyncio.timeout` for instance, and the next call goes on where it stood.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, TypeAlias, overload

from ..client.acknowledging import Acknowledging
from ..client.delivery import BaseTransaction, Batch, Change, Idle, StreamEvent
from ..client.reading.batches import BatchReading
from ..client.reading.messages import MessageReading
from ..client.reading.transactions import TransactionReading
from ..client.reading.ways import Way
from ..client.stream import BaseStream
from ..codec.abc import Mould
from ..errors import UsageError
from ..messages import LogicalMessage
from ..public import imported_from
from ..session.opening import Opened
from ..session.received import READ, ReceivedTransaction
from ..session.session import Session
from ..transport.clock import Deadline
from .reception import AsyncReception
from .wire import AsyncStreamWire

__all__ = ["AsyncStream", "AsyncTransaction"]

Fetch: TypeAlias = Callable[[float | None], Coroutine[Any, Any, bool]]
"""Receives the next batch within so many seconds; False: the stream was stopped."""


@imported_from("pgrepl")
class AsyncTransaction(BaseTransaction):
    """A transaction: iterate over its changes, once, before the next one is asked for.

    What was not read yet comes next. Once it owns its changes they can be iterated over at any
    time, by any task or thread, and repeatedly, by ``async for`` as well as by ``for``: behind
    `read`, or where `AsyncStream.transactions` was asked for whole ones.
    """

    __slots__ = ()

    _reading: TransactionReading

    def __aiter__(self) -> AsyncIterator[Change]:
        """Iterate over the changes that were not read yet, or over those that it owns.

        Raises what iterating over the stream raises, and `UsageError` where there is nothing left
        to iterate over: all was read, or passed over, or `skip` said that it is not needed.
        """
        received = self._received
        run: AsyncIterator[Change] | None = received.run
        if run is not None:
            return run
        if received.owned is not None:
            return _OwnedIterator(iter(received.owned))
        if received.unreadable is not None:
            received.require_readable()
        return _ChangeIterator(received, self._reading)

    def __iter__(self) -> Iterator[Change]:
        """Iterate over the changes that it owns. Raises `UsageError` unless it does."""
        received = self._received
        if received.owned is None:
            received.require_readable()
            raise UsageError(
                f"expected `async for` over the changes of {self!r}, which are still to come: "
                "`for` is for a transaction that owns them, behind `await transaction.read()` or "
                "from transactions(whole=True)"
            )
        return iter(received.owned)

    async def read(self) -> list[Change]:
        """Return the rest of its changes, which it owns from then on.

        Waits until all have come, and raises what iterating over it raises. When it is cancelled,
        nothing is lost: what it had read is read again.
        """
        received, reading = self._received, self._reading
        if received.owned is None:
            changes: list[Change] = []
            received.require_readable()
            try:
                while not received.has_ended:
                    changes.extend(reading.changes_of(received))
                    if not received.has_ended:
                        await reading.fetch_more()
                received.require_complete()
            except BaseException:
                reading.have_read_again(received, changes)
                raise
            received.owned = changes
        return list(received.owned)


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

    __slots__ = ("_reading", "_received", "_run")

    def __init__(self, received: ReceivedTransaction, reading: TransactionReading) -> None:
        self._reading = reading
        self._received = received
        self._run = reading.changes_of(received)  # what of them has come

    async def __anext__(self) -> Change:
        for change in self._run:
            return change
        received, reading = self._received, self._reading
        while not received.has_ended:
            await reading.fetch_more()
            self._run = reading.changes_of(received)
            for change in self._run:
                return change
        if received.unreadable is not READ:
            received.require_complete()
        raise StopAsyncIteration


class _TransactionIterator(AsyncIterator[AsyncTransaction | Idle]):
    """The transactions of a stream, and where nothing comes for `idle` seconds, that."""

    __slots__ = ("_fetch", "_idle", "_idle_deadline", "_next_one", "_reading", "_ready", "_whole")

    def __init__(
        self,
        reading: TransactionReading,
        fetch: Fetch,
        ready: Callable[[Any], Awaitable[Any]],
        whole: bool,
        idle: float | None,
    ) -> None:
        self._reading = reading
        self._ready = ready
        self._whole = whole
        self._fetch = fetch
        self._next_one: Final = reading.next_whole if whole else reading.next
        self._idle = idle
        # Of the wait that goes on, also if it was cut off.
        self._idle_deadline: Deadline | None = None

    def __anext__(self) -> Awaitable[AsyncTransaction | Idle]:
        # A coroutine for each would cost more than a row.
        reading = self._reading
        if not self._whole and not reading.decoded.has_ended():
            begun = reading.begin()
            if begun is not None:
                self._idle_deadline = None
                return self._ready(begun)
        return self._wait_for_next()

    async def _wait_for_next(self) -> AsyncTransaction | Idle:
        reading = self._reading
        before = reading.open
        if before is not None and not (before.has_ended or reading.is_gathering):
            await self._pass_to_end(before)
        while (received := self._next_one()) is None:
            if self._idle_deadline is None:
                self._idle_deadline = Deadline.after(self._idle)
            try:
                if not await self._fetch(self._idle_deadline.left()):
                    raise StopAsyncIteration
            except TimeoutError:
                self._idle_deadline = None
                if (event := reading.acknowledging.idle_event()) is not None:
                    return event
        self._idle_deadline = None
        return AsyncTransaction(received, reading)

    async def _pass_to_end(self, received: ReceivedTransaction) -> None:
        """Pass over the rest of a transaction."""
        try:
            while not self._reading.pass_over(received):
                await self._reading.fetch_more()
        except BaseException:
            received.break_off_passing_over()
            raise


class _MessageIterator(AsyncIterator[LogicalMessage]):
    """The messages of a stream."""

    __slots__ = ("_fetch", "_reading")

    def __init__(self, reading: MessageReading, fetch: Fetch) -> None:
        self._reading = reading
        self._fetch = fetch

    async def __anext__(self) -> LogicalMessage:
        reading = self._reading
        decoded = reading.decoded
        while True:
            if reading.is_at_end:
                raise StopAsyncIteration
            if decoded.changes is not None:
                with decoded.failing:
                    for message in decoded.changes:
                        return message
            if not await self._fetch(None):
                raise StopAsyncIteration


class _BatchIterator(AsyncIterator[Batch | Idle]):
    """The changes of a stream in batches; one that was cut off is gone on with, or a wait."""

    __slots__ = (
        "_acknowledging",
        "_deadline",
        "_fetch",
        "_idle",
        "_has_begun",
        "_max_rows",
        "_max_wait",
        "_reading",
    )

    def __init__(
        self,
        reading: BatchReading,
        acknowledging: Acknowledging,
        fetch: Fetch,
        max_rows: int,
        max_wait: float,
        idle: float | None,
    ) -> None:
        self._reading = reading
        self._acknowledging = acknowledging
        self._fetch = fetch
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._idle = idle
        self._deadline: Deadline | None = None
        self._has_begun = False  # the batch, and the deadline is for the rest of it

    async def __anext__(self) -> Batch | Idle:
        reading = self._reading
        while await self._has_filled():
            self._deadline, self._has_begun = None, False
            if reading.gathered:
                return reading.make()
            if (event := self._acknowledging.idle_event()) is not None:
                return event
        raise StopAsyncIteration

    async def _has_filled(self) -> bool:
        """Wait for what makes a batch, or until none came for a while; False: none will."""
        reading = self._reading
        deadline = self._deadline or Deadline.after(self._idle)
        while len(reading.gathered) < self._max_rows and deadline.left() != 0.0:
            if reading.gather(self._max_rows):
                continue
            if reading.gathered and not self._has_begun:
                deadline, self._has_begun = Deadline(self._max_wait), True
            self._deadline = deadline
            try:
                if not await self._fetch(deadline.left()):
                    return bool(reading.gathered)
            except TimeoutError:
                break
        return True


@imported_from("pgrepl")
class AsyncStream(AsyncReception, BaseStream):
    """The decoded changes of a slot, made by `AsyncConnection.stream`; `async with` stops it.

    Iterate over it for what pgoutput says, message by message, or over `transactions` or `batches`.
    One task reads; `ack` and `stats` are for any. Every wait can be cancelled, and loses nothing.
    """

    def __init__(self, wire: AsyncStreamWire, session: Session, opened: Opened) -> None:
        super().__init__(session, opened)
        self._wire = wire
        self._feedback = wire.feedback(session, self._health_logger())
        self._prepare_to_read()

    def _mould(self, reading: TransactionReading) -> Mould:
        received = ReceivedTransaction("commit", None, None, None)
        given = AsyncTransaction(received, reading)
        return self._wire.codec.Mould(received, given, reading, READ, _ChangeIterator)

    # Reading

    def __aiter__(self) -> AsyncIterator[LogicalMessage]:
        """Iterate over the messages as they come; see `Stream`."""
        self._begin_to_read(Way.MESSAGES)
        return _MessageIterator(self._messages, self._fetch)

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
        self._begin_transactions(idle, Way.WHOLE_TRANSACTIONS if whole else Way.TRANSACTIONS)
        return _TransactionIterator(
            self._transactions, self._fetch, self._wire.codec.ready, whole, idle
        )

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
        return _BatchIterator(
            self._batches, self._acknowledging, self._fetch, max_rows, max_wait, idle
        )

    async def receive(self, timeout: float | None = None) -> Iterator[StreamEvent]:
        """Wait for what comes next and return all that one read brought; see `Stream.receive`."""
        self._begin_to_receive()
        if not await self._fetch(timeout, with_keepalives=True):
            return iter(())
        return self._events.give()

    async def _fetch_more_changes(self) -> None:
        """Wait until more of the open transaction is at hand."""
        if not await self._fetch(None):
            raise UsageError("the stream was stopped in the middle of this transaction")

    async def _fetch(self, timeout: float | None, with_keepalives: bool = False) -> bool:
        """Receive the next batch with something in it to read; False: the stream was stopped.

        `with_keepalives`: those are read as well.
        """
        deadline = Deadline.after(timeout)
        with self._closing_on_error():
            while not self._ended:
                batch = await self._next_batch(deadline)
                if batch is None:
                    return False
                # Nothing is awaited in here, so that a cancellation finds it done or not.
                if self._take_in(batch, with_keepalives):
                    return True
        return False
