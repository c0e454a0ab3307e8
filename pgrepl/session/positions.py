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

from typing import NamedTuple

__all__ = ["Positions", "Report"]


class Report(NamedTuple):
    """What a standby status update says."""

    written: int
    flushed: int
    applied: int


class Positions:
    """The highest position received in this stream, what is acknowledged, and the last report."""

    __slots__ = ("acknowledged", "automatic", "delivered", "last", "notes", "received", "settled")

    def __init__(self) -> None:
        self.received = 0
        self.delivered = 0
        self.settled = 0
        self.automatic = True
        self.acknowledged = Report(0, 0, 0)
        self.last = Report(0, 0, 0)
        self.notes: list[int] = []
        """Delivered positions whose acknowledgement, of all three, is still to be taken in; any
        thread may add one."""

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
        reach = self.delivered if self.delivered > self.settled else self.settled
        if position > reach:
            position = reach
        before = self.acknowledged
        write, flush, apply = before
        if written and position > write:
            write = position
        if flushed and position > flush:
            flush = position
        if applied and position > apply:
            apply = position
        if before == (write, flush, apply):
            return False
        self.acknowledged = Report(write, flush, apply)
        return True

    def take_in(self) -> None:
        """Take note of the acknowledgements in `notes`."""
        count = len(self.notes)
        if count:
            # Others may be added meanwhile, and stay.
            position = max(self.notes[:count])
            del self.notes[:count]
            self.deliver(position)
            self.acknowledge(position, True, True, True)

    @property
    def flushed(self) -> int:
        """Up to where everything was acknowledged as flushed, taken in or not."""
        return max(self.acknowledged.flushed, max(self.notes, default=0))

    def due(self) -> Report:
        """Return what may be reported now, and remember it as reported."""
        self.last = self.peek()
        return self.last

    def peek(self) -> Report:
        """Return what `due` would."""
        acknowledged, settled = self.acknowledged, self.settled
        if not self.automatic or settled <= min(acknowledged):
            return self._within_bounds(acknowledged)
        delivered = self.delivered
        return self._within_bounds(
            Report(*[max(each, settled) if each >= delivered else each for each in acknowledged])
        )

    @property
    def safe(self) -> int:
        """The highest position before which nothing is left to acknowledge."""
        flushed = self.flushed
        return max(flushed, self.settled) if flushed >= self.delivered else flushed

    def settle(self) -> None:
        """Take note that nothing is open, and all that was received has been delivered.

        What comes in later must not count as such until this is called again.
        """
        self.settled = self.received

    def report(self, written: int, flushed: int, applied: int) -> Report:
        """Return what may be reported when this is asked for, and remember it."""
        self.last = self._within_bounds(Report(written, flushed, applied))
        return self.last

    def _within_bounds(self, asked: Report) -> Report:
        last, received = self.last, self.received
        if asked == last:
            return last
        return Report(
            _between(last.written, asked.written, received),
            _between(last.flushed, asked.flushed, received),
            _between(last.applied, asked.applied, received),
        )


def _between(low: int, position: int, high: int) -> int:
    """Return a position that is no higher than `high`, and above all no lower than `low`."""
    if position > high:
        position = high
    return position if position > low else low
