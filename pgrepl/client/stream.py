"""What the blocking and the asyncio flavour of a stream have in common: all but waiting.

A stream ties together what is kept elsewhere: what came (`reading.decoded`), a way to read it
(`reading`), and what is acknowledged (`acknowledging`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ..codec.abc import Mould
from ..errors import UsageError
from ..resume import ResumeToken
from ..session.limit import Limit
from ..session.opening import Opened
from ..session.session import Session
from .acknowledging import Acknowledging
from .delivery import Acknowledgeable, BaseTransaction, Batch
from .handled import HandledChanges
from .reading.batches import BatchReading
from .reading.decoded import Decoded
from .reading.events import EventReading
from .reading.messages import MessageReading
from .reading.transactions import TransactionReading
from .reading.ways import Left, Way
from .reception import BaseReception

__all__ = ["BaseStream"]


class BaseStream(BaseReception):
    """The decoded changes of a slot: ways to read them, and what is acknowledged."""

    def __init__(self, session: Session, opened: Opened) -> None:
        """A flavour goes on with `_prepare_to_read`, once it has made the feedback."""
        super().__init__(session, opened.checked)
        self._opened = opened
        self._way = Way.MESSAGES
        self._limit = None if opened.until is None else Limit(opened.until)

    def _prepare_to_read(self) -> None:
        opened = self._opened
        self._decoded = decoded = Decoded(
            opened,
            self._limit,
            has_ended=self._has_ended,
            fail=self._fail,
            failing=self._closing_on_exception(),
        )
        handled = HandledChanges(opened.handled)
        self._acknowledging = acknowledging = Acknowledging(
            opened.checked, self._session.positions, self._feedback, decoded, handled
        )
        self._messages = MessageReading(decoded)
        self._events = EventReading(decoded, acknowledging)
        self._transactions = TransactionReading(
            decoded, acknowledging, handled, self._fetch_more_changes
        )
        self._transactions.mould = self._mould(self._transactions)
        self._batches = BatchReading(self._transactions, acknowledging, handled)

    @abstractmethod
    def _mould(self, reading: TransactionReading) -> Mould:
        """Return what makes transactions that are at hand as a whole."""

    @abstractmethod
    def _fetch_more_changes(self) -> Any:
        """Wait until more of the open transaction is at hand. Raises `UsageError` where the stream
        was stopped."""

    # What its reception asks

    def _has_ended(self) -> bool:
        return self._ended

    @property
    def _delivered(self) -> int:
        return self._decoded.delivered

    @property
    def _is_between(self) -> bool:
        return self._decoded.decoder.is_between

    @property
    def _totals(self) -> tuple[int | None, int | None, int | None]:
        return self._decoded.decoder.totals

    @property
    def _has_given_all(self) -> bool:
        return self._decoded.has_given_all

    def _fail(self, error: BaseException | None = None) -> None:
        """Close the connection, so that nothing more is sent, and give nothing more: of what has
        come, something may be missing in front."""
        self._decoded.changes = None
        self._transactions.forget()
        super()._fail(error)

    def _wait_begins(self, left: float | None) -> float | None:
        limit = super()._wait_begins(left)
        if self._limit is not None and self._limit.until is not None and self._is_between:
            # It may be long since the server has had anything to say.
            again = self._feedback.ask()
            return again if limit is None else min(again, limit)
        return limit

    def _end_by_signal(self, number: int) -> bool:
        was_on = super()._end_by_signal(number)
        self._decoded.limit = self._limit
        return was_on

    def _release_storage(self) -> None:
        """Give back what was put aside, and the room for it."""
        self._opened.spool.close()

    # Reading

    def _begin_to_read(self, way: Way) -> None:
        """Go on from the boundary of a transaction in any way, in its middle in the same way."""
        if self._left_open() not in way.goes_on_from:
            raise UsageError(
                f"expected the last transaction to be read to its end, {self._transactions.open!r} "
                "was left in the middle: read on in it in the same way, skip() it where it was "
                "given, or stop the stream and start it again, which brings what was not "
                "acknowledged once more"
            )
        if not way.by_transaction and self._limit is not None and self._limit.until is not None:
            raise UsageError(
                "expected transactions() or batches() of a stream that was begun with until, which "
                "are what it ends"
            )
        self._way = way
        self._decoded.puts_aside = way.by_transaction

    def _left_open(self) -> Left:
        """Return what the way that was on has left open."""
        received = self._transactions.open
        if self._batches.gathered:
            return Left.BATCHED
        if received is None or received.has_ended:
            return Left.NOTHING
        if received.unreadable is not None:
            return Left.UNWANTED
        if self._transactions.is_gathering:
            return Left.GATHERED
        return Left.BATCHED if self._way is Way.BATCHES else Left.UNREAD

    def _begin_transactions(self, idle: float | None, way: Way) -> None:
        if idle is not None and not idle > 0:
            raise UsageError(f"expected idle to be seconds above 0, got {idle!r}")
        self._begin_to_read(way)

    def _begin_batches(self, max_rows: int, idle: float | None) -> None:
        if max_rows < 1:
            raise UsageError(f"expected batches of at least one row, got max_rows={max_rows}")
        self._begin_transactions(idle, Way.BATCHES)

    def _begin_to_receive(self) -> None:
        """Go on with events. Raises `UsageError` where something else was begun."""
        self._events.require_all_read()
        self._begin_to_read(Way.EVENTS)

    def _take_in(self, batch: Any, with_keepalives: bool) -> bool:
        """Have a batch at hand, decoded as it is read; False: there is nothing in it to read.

        `with_keepalives`: those are read as well.
        """
        decoded = self._decoded
        changes = decoded.decode(batch)
        self._feedback.received(batch)
        if not with_keepalives and changes.peek() is None:
            return False
        decoded.wal, decoded.changes = batch, changes
        self._transactions.feed(changes)
        return True

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
        or within a tenth of a second. A position beyond what was delivered counts as the end of
        what was. A transaction that was not read to its end is acknowledged when it is, or when the
        rest is passed over. Raises `UsageError` for one that was passed over before, unless it was
        skipped by `skip`, for what another slot's stream gave, and when the stream has ended.

        Flushed is what lets the server forget. For synchronous replication the three positions that
        the server waits for can be moved apart: ``ack(txn, applied=False)`` when it is durable,
        ``ack(txn)`` when others can see it.
        """
        if self._ended or self._wire.closed:
            self._require_on()
        moved = (written, flushed, applied)
        if isinstance(upto, BaseTransaction):
            self._acknowledging.acknowledge_transaction(upto, moved)
        elif isinstance(upto, Batch):
            self._batches.acknowledge(upto, moved)
        else:
            self._acknowledging.acknowledge(upto, moved)

    def token(self, upto: Acknowledgeable | None = None, index: int | None = None) -> ResumeToken:
        """Return what to keep beside one's own data to go on behind `upto` later.

        Without `upto`: behind the last position before which nothing is left to acknowledge, which
        moves on while the stream is idle. A token is never before the stream's start, nor beyond
        what was delivered. `index`: how many changes of the transaction behind it are dealt with as
        well, counted from its beginning; left out, as many as are known to be: those of a batch
        that ends inside of a transaction, and those that the stream's own start says. Give the
        token as `start` to `stream()`, which then knows if it is the same system and if the slot
        still has all that is missing.

        Once a token was asked for, or the stream began with one, the slot no longer advances by
        itself while the stream is idle, since it would get ahead of the token that was kept: now
        and then keep ``token()`` and acknowledge that.
        """
        return self._acknowledging.token(upto, index)
