"""Reading a stream transaction by transaction, each as it comes or as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ...codec.abc import Changes, Mould
from ...errors import UsageError
from ...session.limit import Limit
from ...session.received import READ, ReceivedTransaction
from ...session.transactions import Transactions
from ..acknowledging import Acknowledging
from ..delivery import Change
from ..handled import HandledChanges
from .decoded import Decoded

__all__ = ["TransactionReading"]


class TransactionReading:
    """Transactions in the order of their commits, and the changes of the last one.

    `assembled`: makes them of what was decoded, and keeps the open one. `fetch_more`: of the
    stream's flavour, waits until more of the open transaction is at hand. `mould`: makes those that
    are at hand as a whole.
    """

    __slots__ = ("acknowledging", "assembled", "decoded", "fetch_more", "handled", "mould")

    mould: Mould

    def __init__(
        self,
        decoded: Decoded,
        acknowledging: Acknowledging,
        handled: HandledChanges,
        fetch_more: Callable[[], Any],
    ) -> None:
        self.decoded: Final = decoded
        self.acknowledging: Final = acknowledging
        self.handled: Final = handled
        self.fetch_more: Final = fetch_more
        self.assembled = Transactions()

    def feed(self, changes: Changes) -> None:
        """Go on with another batch."""
        self.assembled.feed(changes)

    def forget(self) -> None:
        """Give nothing more of what has come."""
        if self.assembled.open is not None:
            self.assembled.open.run = None
        self.assembled = Transactions()

    @property
    def open(self) -> ReceivedTransaction | None:
        """The transaction that was begun last; None: none was, or the stream has failed."""
        return self.assembled.open

    @property
    def is_gathering(self) -> bool:
        """Whether the open transaction is put aside, and was not given yet."""
        return self.assembled.is_gathering

    @property
    def given(self) -> ReceivedTransaction | None:
        """The open transaction, if it was given: it comes to its end before the next one does."""
        return None if self.assembled.is_gathering else self.assembled.open

    # The next one

    def begin(self) -> Any:
        """Return the next transaction for whoever reads it, if all of it is at hand, nothing is out
        of the ordinary, and the one before has ended; None: see `next`. Not to be asked of a stream
        that was stopped."""
        decoded = self.decoded
        if decoded.limit is not None or self.handled.index:
            return None
        try:
            return self.assembled.begin(self.mould)
        except BaseException as error:
            if decoded.was_stopped(error):
                return None
            raise

    def gather_whole(self, changes: list[Change], parts: list[Any], max_rows: int) -> bool:
        """Add the changes of such transactions to a list that has up to so many; False: see `next`.

        `parts`: gets what there is to know of them, see `codec.abc.Changes.gather`.
        """
        decoded = self.decoded
        if decoded.limit is not None or self.handled.index or decoded.has_ended():
            return False
        try:
            return self.assembled.gather_whole(changes, parts, max_rows)
        except BaseException as error:
            if decoded.was_stopped(error):
                return False
            raise

    def next(self) -> ReceivedTransaction | None:
        """Begin the next transaction; None: another batch is needed, or nothing more is given."""
        decoded = self.decoded
        if decoded.has_ended():
            return None  # what the end of the stream may have cut off is no fault
        try:
            limit = decoded.limit
            begun = self.assembled.next() if limit is None else self._next_within(limit)
            # A message that stands where the stream began was given before what was handled.
            while self.handled.to_come and begun is not None and self._is_before_start(begun):
                self.assembled.pass_over()
                begun = self.assembled.next() if limit is None else self._next_within(limit)
            return begun
        except BaseException as error:
            if decoded.was_stopped(error):
                return None
            raise

    def next_whole(self) -> ReceivedTransaction | None:
        """Return the next transaction that has come to its end; None: another batch is needed."""
        received = self.assembled.open
        if received is None or received.has_ended:
            received = self.next()
            if received is None:
                return None
        try:
            gathered = self.assembled.gather(self.decoded.spool)
            if gathered is None:
                return None
            if self.handled.to_come:
                gathered = self.handled.left_out_of(received, gathered)
        except BaseException as error:
            if self.decoded.was_stopped(error):
                return None
            raise
        received.owned = gathered
        self.end(received)
        return received

    def _next_within(self, limit: Limit) -> ReceivedTransaction | None:
        decoded = self.decoded
        delivered = decoded.delivered
        if limit.is_reached(delivered, decoded.decoder.is_between):
            return None
        begun = self.assembled.next()
        if begun is None or not limit.excludes(begun):
            return begun
        limit.delivered = delivered
        self.forget()
        return None

    def _is_before_start(self, received: ReceivedTransaction) -> bool:
        """Whether it is a message that belongs to none, where the stream began or before."""
        end_lsn = received.end_lsn
        is_message = received.kind == "message"
        return is_message and end_lsn is not None and end_lsn <= self.acknowledging.start

    # The changes of the open one

    def changes_of(
        self, received: ReceivedTransaction, fetch_more: Callable[[], None] | None = None
    ) -> Iterator[Change]:
        """Give what has come of a transaction; then it has ended, or another batch is needed, which
        `fetch_more` waits for."""
        received.run = None
        handled = self.handled
        while not received.has_ended:
            assembled = self.assembled
            if received.unreadable is not None or assembled.open is not received:
                self._require_open(received)
            try:
                run = assembled.run()
                if handled.to_come:
                    handled.pass_over(received, run)
                yield from run
                # Meanwhile it may have been passed over, by whoever asked for the next one.
                has_ended = received.unreadable is None and assembled.run_ends()
            except GeneratorExit:
                raise  # nothing is lost
            except BaseException as error:
                self.decoded.was_stopped(error)
                raise
            if received.unreadable is not None or self.assembled is not assembled:
                self._require_open(received)
            if has_ended:
                received.unreadable = READ
                if handled.index or received.acknowledged is not None:
                    self.end(received)
            elif fetch_more is None:
                return
            else:
                fetch_more()
        if received.unreadable is not READ:
            received.require_complete()

    def has_failed(self, error: BaseException) -> None:
        """Take note of what kept a transaction's run from going on."""
        self.decoded.was_stopped(error)

    def _require_open(self, received: ReceivedTransaction) -> None:
        """Raise `UsageError` unless the changes that come next are this transaction's."""
        received.require_readable()
        if self.assembled.open is not received:
            raise UsageError(
                f"expected to read on in {received!r}, but the stream has failed in the middle "
                "of it: start it again, which brings what was not acknowledged once more"
            )

    def have_read_again(self, received: ReceivedTransaction, changes: list[Change]) -> None:
        """Have changes read again that were taken for a list that was not finished."""
        received.run = None
        if self.assembled.open is received and not received.has_ended:
            self.assembled.put_back(changes)

    def pass_over(self, received: ReceivedTransaction) -> bool:
        """Pass over what has come of a transaction; True: it has ended."""
        if received.has_ended or self.assembled.open is not received:
            return True
        # First of all, so that none who reads it elsewhere takes what is left for all of it.
        received.begin_passing_over()
        with self.decoded.failing:
            if self.handled.to_come:
                self.handled.pass_over(received, self.assembled.run())
            any_changes, has_ended = self.assembled.pass_over()
        received.note_passed_over(any_changes)
        if has_ended:
            self.end(received)
        return has_ended

    def end(self, received: ReceivedTransaction) -> None:
        """Take note of a transaction's end, and acknowledge it if it was acknowledged before."""
        self.handled.end(received)
        if received.acknowledged is not None and received.end_lsn is not None:
            self.acknowledging.acknowledge_position(received.end_lsn, received.acknowledged)
