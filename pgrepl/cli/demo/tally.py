"""What has arrived so far, in numbers."""

from __future__ import annotations

from collections import deque
from typing import Final

from ...messages import Begin, Commit, Delete, Insert, LogicalMessage, Message, Truncate, Update
from .ledger import Changes, Ledger

__all__ = ["Tally"]

_SAMPLE: Final = 0.5
_HISTORY: Final = 60


class Tally:
    """Counts a stream, and enters each transaction that is complete into the ledger."""

    def __init__(self, ledger: Ledger, now: float) -> None:
        """`now`: seconds on a monotonic clock, as for `sample`."""
        self.changes = Changes()
        self.transactions = 0
        self.largest = 0
        self.lags: list[int] = []
        """Microseconds from the commit to its arrival here, for each transaction."""
        self.rates: deque[float] = deque(maxlen=_HISTORY)
        """Changes per second, twice a second."""
        self.peak_rate = 0.0
        self._ledger = ledger
        self._xid = 0
        self._open = Changes()
        self._sampled = (now, 0)

    def count(self, message: LogicalMessage, received: int) -> None:
        """Take a message in; `received` is the time in microseconds since 2000-01-01 UTC."""
        match message:
            case Begin(_, _, xid):
                self._xid = xid
            case Insert(relation) | Update(relation) | Delete(relation):
                self._open[relation.name, type(message).__name__.lower()] += 1
            case Truncate(relations):
                self._open.update((relation.name, "truncate") for relation in relations)
            case Message():
                self._open["", "message"] += 1
            case Commit(_, _, commit_time):
                self._ledger.deliver(self._xid, self._open)
                self.changes += self._open
                self.largest = max(self.largest, self._open.total())
                self.transactions += 1
                self.lags.append(received - commit_time)
                self._open = Changes()

    def sample(self, now: float) -> None:
        """Take note of the rate, if it is time again."""
        before, total_before = self._sampled
        if now - before >= _SAMPLE:
            total = self.changes.total()
            self.rates.append((total - total_before) / (now - before))
            self.peak_rate = max(self.peak_rate, self.rates[-1])
            self._sampled = now, total
