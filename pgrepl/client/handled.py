"""How many changes of a transaction are handled already: before the stream began, or in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..session.received import ReceivedTransaction
from .delivery import Change

__all__ = ["HandledChanges"]


class HandledChanges:
    """Counts of changes, from the beginning of their transaction.

    `at_start`: of the first transaction that has any, handled before the stream began, as its token
    said; they are not given again. `to_come`: those of them that are still to come. `first_end`:
    where that transaction ends; None: that is not known yet. `index`: of the open transaction, in
    batches that were given, those before the stream's start included.
    """

    __slots__ = ("at_start", "first_end", "index", "to_come")

    def __init__(self, at_start: int) -> None:
        self.at_start: Final = at_start
        self.first_end: int | None = None if at_start else 0
        self.to_come = at_start
        self.index = at_start

    def pass_over(self, received: ReceivedTransaction, run: Iterator[Change]) -> None:
        """Take those that were handled before the stream began out of what comes of a transaction;
        a message that belongs to none is not among them."""
        while received.kind != "message" and self.to_come and next(run, None) is not None:
            self.to_come -= 1

    def end(self, received: ReceivedTransaction) -> None:
        """Take note that a transaction has ended: of the next one, nothing is handled."""
        # The first one whose changes were handled is the first one that has changes.
        if self.index and self.index != self.to_come and received.kind != "message":
            if self.first_end is None:
                self.first_end = received.end_lsn
            self.index = self.to_come = 0

    def behind(self, position: int) -> int:
        """Return how many are known to be handled of the transaction behind a position."""
        first_end = self.first_end
        return self.at_start if first_end is None or position < first_end else 0
