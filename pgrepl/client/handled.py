"""How many changes of a transaction are handled already: before the stream began, or in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
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

    def left_out_of(
        self, received: ReceivedTransaction, changes: Iterable[Change]
    ) -> Iterable[Change]:
        """Return a whole transaction's changes without those handled before the stream began."""
        before = self.to_come
        self.pass_over(received, iter(changes))
        return _WithoutFirst(changes, before - self.to_come)

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


class _WithoutFirst:
    """Changes without the first ones of them, to be iterated over again and again."""

    __slots__ = ("_changes", "_count")

    def __init__(self, changes: Iterable[Change], count: int) -> None:
        self._changes = changes
        self._count = count  # of those that are left out

    def __iter__(self) -> Iterator[Change]:
        return islice(self._changes, self._count, None)
