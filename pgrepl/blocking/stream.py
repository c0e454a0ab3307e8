"""Level 2 of the API, the stream: decoded changes of a slot and their acknowledgement, blocking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

from ..client.delivery import BaseTransaction, Batch, Change, Idle, StreamEvent
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
from .reception import Reception
from .wire import StreamWire

__all__ = ["Stream", "Transaction"]


@imported_from("pgrepl")
class Transaction(BaseTransaction):
    """A transaction: iterate over its changes, once, before the next one is asked for.

    What was not read yet comes next. Once it owns its changes they can be iterated over at any
    time, by any thread, and repeatedly: behind `read`, or where `Stream.transactions` was asked for
    whole ones.
    """

    __slots__ = ()

    _reading: TransactionReading

    def __iter__(self) -> Iterator[Change]:
        """Iterate over the changes that were not read yet, or over those that it owns.

        Raises what iterating over the stream raises, and `UsageError` where there is nothing left
        to iterate over: all was read, or passed over, or `skip` said that it is not needed.
        """
        received = self._received
        run: Iterator[Change] | None = received.run
        if run is not None:
            return run
        if received.owned is not None:
            return iter(received.owned)
        if received.unreadable is not None:
            received.require_readable()
        return self._reading.changes_of(received, self._reading.fetch_more)

    def read(self) -> list[Change]:
        """Return the rest of its changes, which it owns from then on.

        Waits until all have come, and raises what iterating over it raises.
        """
        received = self._received
        if received.owned is None:
            changes: list[Change] = []
            try:
                changes.extend(self)
            except BaseException:
                self._reading.have_read_again(received, changes)
                raise
            received.owned = changes
        return list(received.owned)


def _rest_of(received: ReceivedTransaction, reading: TransactionReading) -> Iterator[Change]:
    return reading.changes_of(received, reading.fetch_more)


@imported_from("pgrepl")
class Stream(Reception, BaseStream):
    """The decoded changes of a slot, made by `Connection.stream`; a context manager that stops.

    Iterate over it for what pgoutput says, message by message, or over `transactions` or `batches`.
    One thread reads; `ack`, `stats` and `stop` are for any.
    """

    def __init__(self, wire: StreamWire, session: Session, opened: Opened) -> None:
        super().__init__(session, opened)
        self._wire = wire
        self._may_have_lost = False  # of what had come, where Ctrl-C came in between
        self._feedback = wire.feedback(session, self._slot, self._health_logger())
        self._prepare_to_read()

    def _mould(self, reading: TransactionReading) -> Mould:
        received = ReceivedTransaction("commit", None, None, None)
        given = Transaction(received, reading)
        return self._wire.codec.Mould(received, given, reading, READ, _rest_of)

    # Reading

    def __iter__(self) -> Iterator[LogicalMessage]:
        """Iterate over the messages as they come: Begin, changes, Commit, and all others.

        Raises `DecodeError`, `ConnectionFailed`, `ServerShutdown` and other `ServerError`s; the
        stream has then ended, and what was not acknowledged comes again.
        """
        self._begin_to_read(Way.MESSAGES)
        reading, decoded = self._messages, self._decoded
        while not reading.is_at_end and (decoded.unread or self._fetch(None)):
            with decoded.failing:
                yield from reading.at_hand()

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
        self._begin_transactions(idle, Way.WHOLE_TRANSACTIONS if whole else Way.TRANSACTIONS)
        reading = self._transactions
        next_one = reading.next_whole if whole else reading.next
        idle_deadline = Deadline.after(idle)
        while True:
            while not (whole or self._ended) and (begun := reading.begin()) is not None:
                yield begun
                if idle is not None:
                    idle_deadline = Deadline(idle)
            received = reading.given
            if received is not None and not received.has_ended:
                self._pass_to_end(received)
                continue
            received = next_one()
            if received is not None:
                yield Transaction(received, reading)
                if idle is not None:
                    idle_deadline = Deadline(idle)
                continue
            try:
                if not self._fetch(idle_deadline.left()):
                    return
            except TimeoutError:
                if (event := self._acknowledging.idle_event()) is not None:
                    yield event
                idle_deadline = Deadline.after(idle)

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
            if self._batches.gathered:
                yield self._batches.make()
            elif (event := self._acknowledging.idle_event()) is not None:
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
        if not self._fetch(timeout, with_keepalives=True):
            return iter(())
        return self._events.give()

    def _fill_batch(self, max_rows: int, max_wait: float, idle: float | None) -> bool:
        """Gather what makes a batch, or wait until nothing came for a while; False: none will."""
        batches = self._batches
        deadline, has_begun = Deadline.after(idle), False
        while len(batches.gathered) < max_rows and deadline.left() != 0.0:
            if batches.gather(max_rows):
                continue
            if batches.gathered and not has_begun:
                deadline, has_begun = Deadline(max_wait), True
            try:
                if not self._fetch(deadline.left()):
                    return bool(batches.gathered)
            except TimeoutError:
                break
        return True

    def _pass_to_end(self, received: ReceivedTransaction) -> None:
        """Pass over the rest of a transaction."""
        try:
            while not self._transactions.pass_over(received):
                self._fetch_more_changes()
        except BaseException:
            received.break_off_passing_over()
            raise

    def _fetch_more_changes(self) -> None:
        """Wait until more of the open transaction is at hand."""
        if not self._fetch(None):
            raise UsageError("the stream was stopped in the middle of this transaction")

    def _fetch(self, timeout: float | None, with_keepalives: bool = False) -> bool:
        """Receive the next batch with something in it to read; False: the stream was stopped.

        `with_keepalives`: those are read as well.
        """
        if self._may_have_lost:
            raise UsageError(
                "expected a stream that was not interrupted while it took in what had come, some "
                "of which may be lost: stop it and start it again, which brings what was not "
                "acknowledged once more"
            )
        self._may_have_lost = True  # wherever Ctrl-C comes
        try:
            goes_on = self._fetch_until(Deadline.after(timeout), with_keepalives)
        except Exception:
            self._may_have_lost = False
            raise
        except BaseException:
            # While it waited, nothing had come yet.
            self._may_have_lost = not self._wire.has_lost_nothing
            raise
        self._may_have_lost = False
        return goes_on

    def _fetch_until(self, deadline: Deadline, with_keepalives: bool) -> bool:
        with self._closing_on_error():
            while not self._ended:
                batch = self._next_batch(deadline)
                if batch is None:
                    return False
                if self._take_in(batch, with_keepalives):
                    return True
        return False
