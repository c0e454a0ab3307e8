"""The clocks: time limits on a monotonic one, the protocol's timestamps on the wall clock."""

from __future__ import annotations

import time
from time import monotonic
from typing import Final

__all__ = ["Deadline", "Pace", "monotonic", "now_microseconds"]

# Reads of a start-up that are made at once; each that follows waits longer than the one before, by
# seconds, but never longer than that. Through a network that delivers single bytes, too, an honest
# server comes to its end.
_FREE_READS: Final = 1000
_STEP: Final = 0.0001
_LONGEST: Final = 0.25

# 2000-01-01 00:00 UTC, the epoch of PostgreSQL, on the clock of Unix.
_EPOCH_NANOSECONDS: Final = 946_684_800 * 1_000_000_000


def now_microseconds() -> int:
    """Return the time in microseconds since 2000-01-01 00:00 UTC."""
    return (time.time_ns() - _EPOCH_NANOSECONDS) // 1000


class Deadline:
    """The end of a time limit given in seconds; None means no limit."""

    __slots__ = ("_end", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + max(timeout, 0.0)

    @classmethod
    def after(cls, timeout: float | None) -> Deadline:
        """Return the deadline for a timeout; the same one for every call without a limit."""
        return _UNLIMITED if timeout is None else cls(timeout)

    def left(self) -> float | None:
        """Return the seconds left, 0.0 when the time has run out, None without a limit."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def error(self) -> TimeoutError:
        """Return the error for what did not come in time."""
        return TimeoutError(
            f"what was asked for did not come within {self.timeout} s; what had arrived before is "
            "kept and the connection can be used on"
        )


_UNLIMITED: Final = Deadline(None)


class Pace:
    """Slows down who reads what comes in ever more pieces: a server could send its bytes one by
    one, and each read costs as much as one that brings all of them."""

    __slots__ = ("_reads",)

    def __init__(self) -> None:
        self._reads = 0

    def pause(self) -> float:
        """Return the seconds to wait before reading once more."""
        self._reads += 1
        return min(max(self._reads - _FREE_READS, 0) * _STEP, _LONGEST)

    def wait(self, deadline: Deadline) -> None:
        """Wait for so long, and not beyond the deadline."""
        pause, left = self.pause(), deadline.left()
        if pause:
            time.sleep(pause if left is None else min(pause, left))
