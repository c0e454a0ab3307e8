"""Reads that wait for company: while messages come fast, a stream's socket is read less often.

PostgreSQL sends each message of a stream by itself, and who reads as soon as there is something is
woken for each: that costs several times what is done with a message, on both sides. Network cards
had the same trouble, and the name of their cure: interrupt coalescing, adapted to the rate.

Law: only the rate decides. Where messages come slowly nothing is held back, however close together
a few of them are; where they come fast none is held back for longer than `max_delay`, counted from
the read before. So what a consumer does meanwhile counts as waiting, and a slow one never waits.
Nor does anybody where a read brings so much that another would not make it cheaper.
"""

from __future__ import annotations

from typing import Final

from ..errors import UsageError

__all__ = ["MAX_DELAY", "Coalescing", "expect_delay"]

MAX_DELAY: Final = 0.0003
"""Seconds that a message may be held back where nobody says otherwise: some hundred messages of a
server in a hurry, and less than fills the buffer of a Unix socket."""

_LONGEST: Final = 1.0

# The rate is taken over no less than so many seconds, which a burst of a few messages does not
# fill, and is fast from so many messages a second on: at that a core would be woken for a fifth of
# its time.
_WINDOW: Final = 0.002
_FAST: Final = 20_000.0
# Bytes of a read that are company enough.
_ENOUGH: Final = 32768


def expect_delay(max_delay: float) -> float:
    """Return what was given as max_delay. Raises `UsageError` unless it makes sense."""
    if not 0 <= max_delay <= _LONGEST:
        raise UsageError(
            f"expected a max_delay from 0 to {_LONGEST:g} seconds, got {max_delay!r}; 0 has "
            "everything read at once"
        )
    return max_delay


class Coalescing:
    """When a stream is read next. The time is passed in, in seconds of a clock that never goes
    back."""

    __slots__ = ("_count", "_is_fast", "_read_at", "_since", "_waits", "max_delay")

    def __init__(self, max_delay: float = 0.0) -> None:
        self.max_delay: Final = max_delay
        self._is_fast = False
        self._waits = False
        self._read_at = 0.0
        # Of the window in which messages are counted.
        self._since = 0.0
        self._count = 0

    def took(self, messages: int, nbytes: int, now: float) -> None:
        """Take note of a read that brought so many messages, of so many bytes in all."""
        self._read_at = now
        self._count += messages
        passed = now - self._since
        if passed >= _WINDOW:
            self._is_fast = self._count >= passed * _FAST
            self._since, self._count = now, 0
        self._waits = self._is_fast and nbytes < _ENOUGH

    def pause(self, now: float) -> float:
        """Return for how many seconds not to read yet; 0.0: read at once."""
        if not self._waits:
            return 0.0
        return max(self._read_at + self.max_delay - now, 0.0)
