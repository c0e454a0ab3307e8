"""What the blocking and the asyncio flavour of a stream have in common: all but waiting.

Law: a position is reported to the server as flushed when the application has acknowledged it, and
never before. What was not acknowledged comes again when the slot is streamed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

from ..codec.abc import Changes
from ..errors import ConnectionFailed, UsageError
from ..lsn import Lsn
from ..messages import LogicalMessage, Message, RollbackPrepared
from ..resume import ResumeToken
from ..session.limit import Limit
from ..session.opening import Opened
from ..session.session import Session
from ..session.transactions import PASSED, PASSING, READ, Transactions
from .delivery import Acknowledgeable, Batch, Change, Idle, ReadTransaction, Rest, StreamEvent
from .reception import BaseReception

__all__ = ["BaseStream"]


T = TypeVar("T", bound=ReadTransaction)


class BaseStream(BaseReception, Generic[T]):
    """The decoded changes of a slot: what has come of them, and what is acknowledged."""

    def __init__(self, session: Session, opened: Opened, transaction: type[T]) -> None:
        super().__init__(session, opened.checked)
        # Whose positions these are.
        self._source = (self._slot, self._system.systemid)
        self._transaction = transaction
        self._decoder = opened.decoder
        self._resumed = opened.handled  # changes of the first transaction, not to be given again
        self._first_end: int | None = None if opened.handled else 0  # where that ends
        self._handled = opened.handled  # those of them that are still to come
        self._index = opened.handled  # changes of the transaction in batches that are dealt with
        self._spool = opened.spool
        self._streams = opened.streams
        self._by_transaction = self._in_batches = False
        self._last_batch: Batch | None = None  # unless more was given since
        self._gathered: list[Change] = []  # for the next batch
        self._parts: list[tuple[T, int, int]] = []  # of which transactions
        self._wal: Any = ()  # what `_changes` are decoded from
        self._changes: Changes | None = None
        self._has_events = False  # that were given and not read yet
        self._passed = 0  # of a keepalive that was given: nothing is left to come before it
        self._transactions: Transactions[T] = Transactions(self._make)
        self._limit = None if opened.until is None else Limit(opened.until)

    @property
    def _delivered(self) -> int:
        limit = self._limit
        if limit is not None and limit.delivered is not None:
            return limit.delivered
        return self._decoder.delivered

    @property
    def _is_between(self) -> bool:
        return self._decoder.is_between

    @property
    def _totals(self) -> tuple[int | None, int | None, int | None]:
        return self._decoder.totals

    def _fail(self, error: BaseException | None = None) -> None:
        """Close the connection, so that nothing more is sent, and give nothing more: of what has
        come, something may be missing in front."""
        self._changes = None
        self._transactions = Transactions(self._make)
        super()._fail(error)

    # What has come

    def _make(self, *arguments: Any, **keywords: Any) -> T:
        made = self._transaction(*arguments, **keywords)
        made._stream = self
        return made

    def _at_hand(self) -> Changes | None:
        """Return what was decoded and not read yet; None: nothing is left of it."""
        changes = self._changes
        return None if changes is None or changes.peek() is None else changes

    def _next_transaction(self) -> T | None:
        """Begin the next transaction; None: another batch is needed, or `_is_at_limit`."""
        if self._ended:
            return None  # what the end of the stream may have cut off is no fault
        limit, transactions = self._limit, self._transactions
        try:
            made = transactions.next() if limit is None else self._next_within(limit)
            # A message that stands where the stream began was given before what was handled.
            while self._handled and made is not None and _is_at(made, self._start):
                transactions.pass_over()
                made = transactions.next() if limit is None else self._next_within(limit)
            return made
        except BaseException as error:
            if self._was_stopped(error):
                return None
            raise

    def _was_stopped(self, error: BaseException) -> bool:
        """Deal with an error where changes are handed out: either the stream was stopped meanwhile,
        by another thread perhaps, which is no fault, or it has failed."""
        if self._ended and isinstance(error, UsageError):
            return True
        self._fail(error)
        return False

    def _next_whole(self) -> T | None:
        """Return the next transaction that has come to its end; None: another batch is needed."""
        transaction = self._transactions.open
        if transaction is None or transaction._has_ended:
            transaction = self._next_transaction()
            if transaction is None:
                return None
        try:
            gathered = self._transactions.gather(self._spool)
            if gathered is None:
                return None
            if self._handled:
                before = self._handled
                self._pass_handled(transaction, iter(gathered))
                gathered = Rest(gathered, before - self._handled)
        except BaseException as error:
            if self._was_stopped(error):
                return None
            raise
        transaction._owned = gathered
        self._settle_ended(transaction)
        return transaction

    def _next_within(self, limit: Limit) -> T | None:
        delivered = self._delivered
        if limit.is_reached(delivered, self._is_between):
            return None
        transaction = self._transactions.next()
        if transaction is None or not limit.excludes(transaction):
            return transaction
        limit.delivered = delivered
        self._transactions = Transactions(self._make)
        return None

    @property
    def _has_given_all(self) -> bool:
        limit = self._limit
        return self._at_hand() is None and (limit is None or limit.delivered is None)

    @property
    def _ends_here(self) -> bool:
        """Whether somebody has asked for the end, and no transaction is open."""
        limit = self._limit
        return limit is not None and limit.is_wanted and self._is_between

    def _up_to_limit(self) -> Iterator[LogicalMessage]:
        """Give the messages at hand, up to where the iteration is to end."""
        for message in self._changes or ():
            yield message
            if self._ends_here:
                return

    def _wait_begins(self, left: float | None) -> float | None:
        limit = super()._wait_begins(left)
        if self._limit is not None and self._limit.until is not None and self._is_between:
            # It may be long since the server has had anything to say.
            again = self._feedback.ask()
            return again if limit is None else min(again, limit)
        return limit

    def _idle_event(self) -> Idle | None:
        """Return what says that nothing came for a while; None: something is left to do."""
        positions = self._session.positions
        if not self._is_between or positions.acknowledged.flushed < positions.delivered:
            return None
        return Idle(self.token(), Lsn(positions.received))

    def _changes_at_hand(self, transaction: T) -> Iterator[Change]:
        """Give what has come of a transaction; then it has ended, or another batch is needed."""
        transactions = self._transactions
        if transaction._over is not None or transactions.open is not transaction:
            self._require_open(transaction)
        try:
            run = transactions.run()
            if self._handled:
                self._pass_handled(transaction, run)
            yield from run
            # Meanwhile it may have been passed over, by whoever asked for the next one.
            has_ended = transaction._over is None and transactions.run_ends()
        except GeneratorExit:
            raise  # nothing is lost
        except BaseException as error:
            self._was_stopped(error)
            raise
        if transaction._over is not None or self._transactions is not transactions:
            self._require_open(transaction)
        if has_ended:
            transaction._over = READ
            if self._index or transaction._acknowledged is not None:
                self._settle_ended(transaction)

    def _require_open(self, transaction: T) -> None:
        """Raise `UsageError` unless the changes that come next are this transaction's."""
        transaction._require_unread()
        if self._transactions.open is not transaction:
            raise UsageError(
                f"expected to read on in {transaction!r}, but the stream has failed in the middle "
                "of it: start it again, which brings what was not acknowledged once more"
            )

    def _put_back(self, transaction: T, changes: list[Change]) -> None:
        """Have changes read again that were taken for a list that was not finished."""
        if self._transactions.open is transaction and not transaction._has_ended:
            self._transactions.put_back(changes)

    def _pass_handled(self, transaction: T, run: Iterator[Change]) -> None:
        """Pass over those changes that were dealt with before the stream began."""
        while transaction.kind != "message" and self._handled and next(run, None) is not None:
            self._handled -= 1

    def _pass_over(self, transaction: T) -> bool:
        """Pass over what has come of a transaction; True: it has ended."""
        if transaction._has_ended or self._transactions.open is not transaction:
            return True
        if transaction._over is None:
            # First of all, so that none who reads it elsewhere takes what is left for all of it.
            transaction._over = PASSING
        with self._closing_on_exception():
            if self._handled:
                self._pass_handled(transaction, self._transactions.run())
            any_passed, has_ended = self._transactions.pass_over()
        if transaction._over is PASSING:
            if any_passed:
                transaction._over = PASSED
            elif has_ended:
                transaction._over = READ
        if has_ended:
            self._settle_ended(transaction)
        return has_ended

    def _unmark_passing(self, transaction: T) -> None:
        """Take note that nobody waits any more for the end of what is passed over."""
        if transaction._over is PASSING:
            transaction._over = None  # it has cost nothing

    def _settle_ended(self, transaction: T) -> None:
        """Acknowledge a transaction that has ended, if it was acknowledged before."""
        # The first one whose changes were handled is the first one that has changes.
        if self._index and self._index != self._handled and transaction.kind != "message":
            if self._first_end is None:
                self._first_end = transaction.end_lsn
            self._index = self._handled = 0
        if transaction._acknowledged is not None and transaction.end_lsn is not None:
            self._acknowledge_position(transaction.end_lsn, *transaction._acknowledged)

    def _gather_at_hand(self, max_rows: int) -> bool:
        """Add what is at hand to the next batch, up to a limit; False: nothing is."""
        transaction = self._transactions.open
        if transaction is not None and transaction._over is not None:
            if not self._pass_over(transaction):
                return False
            transaction = None
        if transaction is None or transaction._has_ended:
            transaction = self._next_transaction()
            if transaction is None:
                return False
        changes = self._gathered
        index = 0 if transaction.kind == "message" else self._index
        before = len(changes)
        changes += islice(self._changes_at_hand(transaction), max_rows - before)
        taken = len(changes) - before
        if taken:
            self._last_batch = None
            parts = self._parts
            if not parts or parts[-1][0] is not transaction:
                parts.append((transaction, before, index))
            if not transaction._has_ended and transaction.kind != "message":
                self._index += taken
            return True
        self._end_batch()
        return transaction._has_ended

    def _end_batch(self) -> None:
        """Acknowledge the transaction whose changes were all given in batches, once it ends.

        Its end may come when the batch with the last of them has long been acknowledged.
        """
        batch, transaction = self._last_batch, self._transactions.open
        if batch is None or batch._acknowledged is None or transaction is None:
            return
        if transaction._has_ended and transaction.end_lsn is not None:
            self._acknowledge_position(transaction.end_lsn, *batch._acknowledged)

    def _batch(self) -> Batch:
        """Make a batch, with the end of the transaction where that comes next."""
        transaction, changes = self._transactions.open, self._gathered
        if transaction is not None and self._transactions.at_end:
            changes += self._changes_at_hand(transaction)
        end_lsn = max(self._delivered, self._start)
        self._last_batch = batch = Batch(changes, Lsn(end_lsn), self._index)
        batch._parts, batch._is_end = self._parts, transaction is None or transaction._has_ended
        batch._source = self._source
        self._gathered, self._parts = [], []
        return batch

    def _begin_to_read(
        self, by_transaction: bool, whole: bool = False, batches: bool = False
    ) -> None:
        """Go on from the boundary of a transaction in any way, in its middle in the same way."""
        transaction = self._transactions.open
        goes_on = (
            transaction is None
            or transaction._has_ended
            or (by_transaction and transaction._over is not None)
            or (whole and self._transactions.is_gathering)
            or (batches and self._in_batches)
        )
        if not goes_on or (self._gathered and not batches):
            raise UsageError(
                f"expected the last transaction to be read to its end, {transaction!r} was left in "
                "the middle: read on in it in the same way, skip() it where it was given, or stop "
                "the stream and start it again, which brings what was not acknowledged once more"
            )
        if not by_transaction and self._limit is not None and self._limit.until is not None:
            raise UsageError(
                "expected transactions() or batches() of a stream that was begun with until, which "
                "are what it ends"
            )
        self._by_transaction = by_transaction
        self._in_batches = batches

    def _begin_batches(self, max_rows: int, idle: float | None) -> None:
        if max_rows < 1:
            raise UsageError(f"expected batches of at least one row, got max_rows={max_rows}")
        self._begin_transactions(idle, batches=True)

    def _begin_transactions(
        self, idle: float | None, whole: bool = False, batches: bool = False
    ) -> None:
        if idle is not None and not idle > 0:
            raise UsageError(f"expected idle to be seconds above 0, got {idle!r}")
        self._begin_to_read(by_transaction=True, whole=whole, batches=batches)

    def _decoded(self, batch: Any) -> Changes:
        """Decode a batch as it is read."""
        if not len(batch):
            raise ConnectionFailed("the server ended the stream; its log may say why")
        spool = self._spool if self._streams and self._by_transaction else None
        return self._decoder.decode_batch(batch, spool)

    def _begin_to_receive(self) -> None:
        """Go on with events. Raises `UsageError` where something else was begun."""
        if self._has_events or self._at_hand() is not None:
            raise UsageError(
                "expected all that was received before to be read; read on in it, or stop the "
                "stream and start it again, which brings what was not acknowledged once more"
            )
        self._begin_to_read(by_transaction=False)

    def _events(self) -> Iterator[StreamEvent]:
        """Give the messages of a batch, each decoded when it is asked for."""
        decoder, changes = self._decoder, self._changes
        assert changes is not None
        with self._closing_on_exception():
            for item in self._wal:
                if hasattr(item, "reply_requested"):
                    position = 0
                    if decoder.is_between:
                        position = self._passed = max(self._passed, item.wal_end)
                    yield StreamEvent(None, item.wal_end, position, item.reply_requested)
                else:
                    before = decoder.delivered
                    message = next(changes)
                    after = decoder.delivered
                    yield StreamEvent(message, item.wal_start, after if after > before else 0)
        self._has_events = False

    def _release_storage(self) -> None:
        """Give back what was put aside, and the room for it."""
        self._spool.close()

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
        self._require_on()
        moved = (written, flushed, applied)
        if isinstance(upto, ReadTransaction):
            if upto._stream is not self:
                self._require_same_slot(upto._stream._source)
            upto._acknowledge(moved)
            if upto._has_ended:
                assert upto.end_lsn is not None
                self._acknowledge_position(upto.end_lsn, *moved)
            return
        if isinstance(upto, Batch):
            self._require_same_slot(upto._source)
            upto._acknowledged = moved
        self._acknowledge_position(self._end_of(upto), *moved)
        if isinstance(upto, Batch):
            self._end_batch()

    def _require_same_slot(self, source: tuple[str, str] | None) -> None:
        """Raise `UsageError` for what another slot's stream gave: its positions say nothing of what
        this one was given. One of the same slot, before a connection was lost, will do."""
        if source is not None and source != self._source:
            raise UsageError(
                "expected what a stream of slot {!r} of system {} gave, got something of {!r} of "
                "{}: acknowledge it to the stream that it came from".format(*self._source, *source)
            )

    def _acknowledge_position(
        self, position: int, written: bool, flushed: bool, applied: bool
    ) -> None:
        """Pass an acknowledgement on to the session."""
        delivered = self._decoder.delivered if self._limit is None else self._delivered
        if delivered < position:
            delivered = max(delivered, min(position, self._passed))
        self._feedback.acknowledge(delivered, position, written, flushed, applied)

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
        positions = self._session.positions
        positions.automatic = False
        if isinstance(upto, Idle):
            upto = upto.token
        asked = positions.safe if upto is None else self._end_of(upto)
        reach = max(self._delivered, self._passed, positions.settled)
        position = max(min(asked, reach), self._start)
        if index is None and position == asked and isinstance(upto, Batch | ResumeToken):
            index = upto.index
        if index is None:
            first_end = self._first_end
            index = self._resumed if first_end is None or position < first_end else 0
        return ResumeToken(self._system.systemid, self._system.timeline, Lsn(position), index)

    def _end_of(self, upto: Any) -> int:
        """Return the position by which something is acknowledged."""
        if isinstance(upto, RollbackPrepared):
            return upto.rollback_end_lsn
        if isinstance(upto, Message):
            return upto.lsn
        if isinstance(upto, int):
            return upto
        if isinstance(upto, ResumeToken) and upto.systemid != self._system.systemid:
            raise UsageError(
                f"expected a token of the system {self._system.systemid}, got one of "
                f"{upto.systemid}, whose positions mean nothing here"
            )
        end_lsn = getattr(upto, "end_lsn", None)
        if end_lsn is None or not getattr(upto, "is_whole", True):
            raise UsageError(
                "expected a transaction that was read to its end, a batch, a message that ends a "
                f"transaction or an Lsn, got {upto!r:.200}"
            )
        return int(end_lsn)


def _is_at(transaction: ReadTransaction, position: int) -> bool:
    """Whether it is a message that belongs to none, at a position or before it."""
    end_lsn = transaction.end_lsn
    return transaction.kind == "message" and end_lsn is not None and end_lsn <= position
