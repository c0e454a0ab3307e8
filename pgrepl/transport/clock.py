"""The clocks: time limits on a monotonic one, the protocol's timestamps on the wall clock."""

from __future__ import annotations

import time
from time import monotonic
from typing import Final

__all__ = ["Deadline", "monotonic", "now_microseconds"]

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


_UNLIMITED: Final = Deadline(None)
