"""One wait for everything that can happen: WAL, room in the output, a signal, the time.

With `poll`, the reader of the output that goes away is noticed even while there is nothing to
write. Without it, on Windows, the output cannot be waited for and counts as ready.
"""

from __future__ import annotations

import math
import select
import selectors
from typing import Any, NamedTuple

__all__ = ["Readiness", "Waiting"]


class Readiness(NamedTuple):
    """What a wait found."""

    connection: bool
    output: bool
    output_lost: bool


class Waiting:
    """Waits on three descriptors. The one of signals, `interruption`, ends any wait."""

    def __init__(self, connection: int, interruption: int, output: int | None) -> None:
        self._connection = connection
        self._interruption = interruption
        self._output = output
        # What is waited for is the same each time, and so is what asks for it.
        self._polls: dict[tuple[bool, bool], Any] = {}

    def for_connection(self, timeout: float) -> Readiness:
        """Wait until there is something to receive, for `timeout` seconds at most."""
        return self._wait_for_any(timeout, connection=True)

    def for_output(self, timeout: float, *, alone: bool = False) -> Readiness:
        """Wait until something can be written, for `timeout` seconds at most.

        `alone`: a signal, which has already come, does not end this wait.
        """
        return self._wait_for_any(timeout, connection=False, interruption=not alone)

    def _wait_for_any(
        self, timeout: float, *, connection: bool, interruption: bool = True
    ) -> Readiness:
        if not hasattr(select, "poll"):
            return self._wait_by_select(timeout, connection)
        poll = self._polls.get((connection, interruption))
        if poll is None:
            poll = self._polls[connection, interruption] = self._make_poll(connection, interruption)
        # Rounded up: a wait that ends just before its time would only be followed by another.
        found = dict(poll.poll(math.ceil(timeout * 1000)))
        output = found.get(self._output, 0) if self._output is not None else 0
        return Readiness(
            connection=self._connection in found,
            output=output != 0 and not connection,
            output_lost=bool(output & (select.POLLERR | select.POLLHUP)),
        )

    def _make_poll(self, connection: bool, interruption: bool) -> Any:
        poll = select.poll()
        if interruption:
            poll.register(self._interruption, select.POLLIN)
        if connection:
            poll.register(self._connection, select.POLLIN)
        if self._output is not None:
            poll.register(self._output, 0 if connection else select.POLLOUT)
        return poll

    def _wait_by_select(self, timeout: float, connection: bool) -> Readiness:
        if not connection:
            return Readiness(connection=False, output=True, output_lost=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._interruption, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            found = {key.fd for key, _ in selector.select(timeout)}
        return Readiness(connection=self._connection in found, output=False, output_lost=False)
