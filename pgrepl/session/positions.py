"""The positions that are reported to the server, and the laws that they obey.

The server believes whatever it is told: a position beyond what it sent makes later transactions
vanish without a word, and a flushed position can let it remove WAL that nobody has. So a report
never exceeds what was received, and never goes back.

What is acknowledged was delivered before: transactions by their `end_lsn`. Where nothing is open
and nothing delivered is left to acknowledge, what was received has nothing in it for the
application and is reported too; otherwise an idle slot would keep the server's WAL for ever. Not
for an application that keeps positions of its own, to which the slot must not get ahead: there it
is for the application to acknowledge such a position. Nothing is ever added to a position.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Positions", "Report"]


class Report(NamedTuple):
    """What a standby status update says."""

    written: int
    flushed: int
    applied: int


class Positions:
    """The highest position received in this stream, what is acknowledged, and the last report."""

    __slots__ = ("acknowledged", "automatic", "delivered", "last", "received", "settled")

    def __init__(self) -> None:
        self.received = 0
        self.delivered = 0
        self.settled = 0
        self.automatic = True
        self.acknowledged = Report(0, 0, 0)
        self.last = Report(0, 0, 0)

    def observe(self, position: int) -> None:
        """Take note of a position that the server sent."""
        if position > self.received:
            self.received = position

    def deliver(self, position: int) -> None:
        """Take note of the end of a transaction that the application has been given."""
        if position > self.delivered:
            self.delivered = position

    def acknowledge(self, position: int, written: bool, flushed: bool, applied: bool) -> bool:
        """Take note of an acknowledgement; say whether there is something new to report.

        Everything up to `position` counts, as far as it was delivered, or had nothing to deliver.
        """
        position = min(position, max(self.delivered, self.settled))
        before = self.acknowledged
        self.acknowledged = Report(
            *(
                max(known, position) if moved else known
                for known, moved in zip(before, (written, flushed, applied), strict=True)
            )
        )
        return self.acknowledged != before

    def due(self) -> Report:
        """Return what may be reported now, and remember it as reported."""
        self.last = self.peek()
        return self.last

    def peek(self) -> Report:
        """Return what `due` would."""
        return self._within_bounds(
            max(known, self.settled) if self.automatic and known >= self.delivered else known
            for known in self.acknowledged
        )

    @property
    def safe(self) -> int:
        """The highest position before which nothing is left to acknowledge."""
        flushed = self.acknowledged.flushed
        return max(flushed, self.settled) if flushed >= self.delivered else flushed

    def settle(self) -> None:
        """Take note that nothing is open, and all that was received has been delivered.

        What comes in later must not count as such until this is called again.
        """
        self.settled = self.received

    def report(self, written: int, flushed: int, applied: int) -> Report:
        """Return what may be reported when this is asked for, and remember it."""
        self.last = self._within_bounds((written, flushed, applied))
        return self.last

    def _within_bounds(self, asked: Iterable[int]) -> Report:
        return Report(
            *(
                max(before, min(position, self.received))
                for before, position in zip(self.last, asked, strict=True)
            )
        )
