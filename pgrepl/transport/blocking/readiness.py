"""Waiting until a socket can be read or written, and for what else may end that wait.

By `poll` itself where there is one: `selectors` makes objects for each wait, which cost more than
the wait for a message that has come. `select` has no descriptors above 1023.
"""

from __future__ import annotations

import select
from typing import Any, Final

__all__ = ["Readiness", "wait_until_writable"]

# Windows has none of it.
_new_poll: Final[Any] = getattr(select, "poll", None)
_READ: Final[int] = getattr(select, "POLLIN", 1)
_WRITE: Final[int] = getattr(select, "POLLOUT", 4)

_Ready = list[tuple[int, int]]


class _Select:
    """What is used here of a poll object, by `select`."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, descriptor: int, event: int) -> None:
        self._events[descriptor] = event

    def unregister(self, descriptor: int) -> None:
        del self._events[descriptor]

    def poll(self, milliseconds: float | None) -> _Ready:
        read, write = (
            [each for each, event in self._events.items() if event == wanted]
            for wanted in (_READ, _WRITE)
        )
        seconds = None if milliseconds is None else milliseconds / 1000
        # Windows tells of a connection that could not be made as of an exception.
        ready = select.select(read, write, write, seconds)
        return [(descriptor, 0) for some in ready for descriptor in some]


class Readiness:
    """The descriptors whose reading is waited for, the socket's first of all."""

    def __init__(self, descriptor: int) -> None:
        self._poll: Any = (_new_poll or _Select)()
        self.add(descriptor)

    def add(self, descriptor: int) -> None:
        """Wait for another descriptor as well."""
        self._poll.register(descriptor, _READ)

    def remove(self, descriptor: int) -> None:
        """Wait for a descriptor no more."""
        self._poll.unregister(descriptor)

    def wait(self, seconds: float | None) -> _Ready:
        """Wait until one is readable, or has failed, which reading it tells; None: for any time.

        Returns them, each with something else; none of them where the time is up.
        """
        ready: _Ready = self._poll.poll(None if seconds is None else seconds * 1000)
        return ready


def wait_until_writable(descriptor: int, seconds: float | None) -> bool:
    """Wait until a descriptor takes bytes, or has failed; False: the time is up."""
    poll: Any = (_new_poll or _Select)()
    poll.register(descriptor, _WRITE)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
