"""The positions that are reported to the server, and the two laws that they obey.

The server believes whatever it is told: a position beyond what it sent makes later transactions
vanish without a word, and a flushed position can let it remove WAL that nobody has. So a report
never exceeds what was received, and never goes back.
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
    """The highest position received in this stream, and the last report."""

    __slots__ = ("last", "received")

    def __init__(self) -> None:
        self.received = 0
        self.last = Report(0, 0, 0)

    def observe(self, position: int) -> None:
        """Take note of a position that the server sent."""
        if position > self.received:
            self.received = position

    def report(self, written: int, flushed: int, applied: int) -> Report:
        """Return what may be reported when this is asked for, and remember it."""
        asked = (written, flushed, applied)
        self.last = Report(
            *(
                max(before, min(position, self.received))
                for before, position in zip(self.last, asked, strict=True)
            )
        )
        return self.last
