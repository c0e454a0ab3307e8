"""Reading a stream in batches: the changes of many transactions, or of a part of one."""

from __future__ import annotations

from itertools import islice
from typing import Final

from ...lsn import Lsn
from ...session.received import Moved
from ..acknowledging import Acknowledging
from ..delivery import Batch, Change, Part, source_of
from ..handled import HandledChanges
from .transactions import TransactionReading

__all__ = ["BatchReading"]


class _LastBatch:
    """The batch that was given last, and which positions an acknowledgement of it moves; one
    object, since another thread may acknowledge it while more is gathered."""

    __slots__ = ("batch", "moved")

    def __init__(self, batch: Batch) -> None:
        self.batch: Final = batch
        self.moved: Moved | None = None


class BatchReading:
    """Changes that are gathered for the next batch, and of which transactions they are.

    Keeps also the last batch, as long as nothing was gathered since: behind it may come the end of
    a transaction whose changes were all given, and that is acknowledged with the batch.
    """

    __slots__ = ("_acknowledging", "_handled", "_last", "_parts", "_transactions", "gathered")

    def __init__(
        self,
        transactions: TransactionReading,
        acknowledging: Acknowledging,
        handled: HandledChanges,
    ) -> None:
        self._transactions: Final = transactions
        self._acknowledging: Final = acknowledging
        self._handled: Final = handled
        self.gathered: list[Change] = []
        # Transactions, where their changes begin, and how many came before.
        self._parts: list[Part] = []
        self._last: _LastBatch | None = None

    def gather(self, max_rows: int) -> bool:
        """Add what is at hand to the next batch, up to a limit; False: nothing is."""
        transactions = self._transactions
        if self._gather_whole(max_rows):
            return True
        received = transactions.assembled.open
        if received is not None and received.unreadable is not None:
            if not transactions.pass_over(received):
                return False
            received = None
        if received is None or received.has_ended:
            received = transactions.next()
            if received is None:
                return False
        changes, handled = self.gathered, self._handled
        is_message = received.kind == "message"
        index = 0 if is_message else handled.index
        before = len(changes)
        changes += islice(transactions.changes_of(received), max_rows - before)
        taken = len(changes) - before
        if taken:
            self._last = None
            parts = self._parts
            if not parts or parts[-1][0] is not received:
                parts.append((received, before, index))
            if not received.has_ended and not is_message:
                handled.index += taken
            return True
        self._acknowledge_end()
        return received.has_ended

    def _gather_whole(self, max_rows: int) -> bool:
        """Add the transactions that are at hand as a whole; False: none is next."""
        changes, last = self.gathered, self._last
        before = len(changes)
        # First of all: what is gathered is not behind a batch that may be acknowledged meanwhile.
        self._last = None
        has_gathered = self._transactions.gather_whole(changes, self._parts, max_rows)
        if len(changes) == before:
            self._last = last
            if has_gathered:
                self._acknowledge_end()
        return has_gathered

    def make(self) -> Batch:
        """Return the next batch, with the end of the transaction where that comes next."""
        transactions, changes = self._transactions, self.gathered
        received = transactions.assembled.open
        if received is not None and transactions.assembled.at_end:
            changes += transactions.changes_of(received)
        end_lsn = max(transactions.decoded.delivered, self._acknowledging.start)
        batch = Batch(
            changes,
            Lsn(end_lsn),
            self._handled.index,
            parts=self._parts,
            is_end=received is None or received.has_ended,
            source=self._acknowledging.source,
        )
        self._last = _LastBatch(batch)
        self.gathered, self._parts = [], []
        return batch

    def acknowledge(self, batch: Batch, moved: Moved) -> None:
        """Acknowledge everything up to a batch."""
        self._acknowledging.require_same_slot(source_of(batch))
        last = self._last
        if last is not None and last.batch is batch:
            last.moved = moved
        self._acknowledging.acknowledge(batch, moved)
        self._acknowledge_end()

    def _acknowledge_end(self) -> None:
        """Acknowledge the transaction whose changes were all given in batches, once it ends.

        Its end may come when the batch with the last of them has long been acknowledged.
        """
        # Nothing is called in between: whoever reads goes on in another thread.
        last, assembled = self._last, self._transactions.assembled
        received, end_lsn = assembled.open, assembled.last_end
        if last is None or last.moved is None:
            return
        if received is None:
            self._acknowledging.acknowledge_position(end_lsn, last.moved)
        elif received.has_ended and received.end_lsn is not None:
            self._acknowledging.acknowledge_position(received.end_lsn, last.moved)
