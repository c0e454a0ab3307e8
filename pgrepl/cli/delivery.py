"""The loop between a server and an output: one thread, and no step of it waits for one side alone.

While the output does not take more, nothing is received, so that the server is slowed down and
memory stays bounded by one read; reports go on all the same. What was received is written out
before anything else is received, so positions are acknowledged in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..connection import Connection
from .consumer import Consumer, Event
from .interruption import Interruption
from .output import Output
from .readiness import Waiting

__all__ = ["Delivery"]

_GRACE: Final = 0.2
"""Seconds that a blocked output gets after a signal to take the rest of a line."""


class Delivery:
    """Hands the events of a consumer over, and acknowledges what `output` has written."""

    def __init__(
        self,
        connection: Connection,
        consumer: Consumer,
        output: Output,
        interruption: Interruption,
    ) -> None:
        self._consumer = consumer
        self._output = output
        self._interruption = interruption
        self._waiting = Waiting(connection.fileno(), interruption.fileno(), output.descriptor)

    def run(
        self, take: Callable[[Event], bool], pulse: Callable[[], float | None] | None = None
    ) -> None:
        """Deliver until `take`, called for each event, returns True, or until a signal comes.

        `take` puts into the output what is to be written for an event, and its position. `pulse` is
        called between reads and returns the seconds until it wants to be called again, or None to
        end the loop. Raises `BrokenPipeError` and other `OSError` of the output, and what
        `Consumer.receive` raises.
        """
        while not self._interruption.signum:
            events = self._consumer.receive()
            ended = events is not None and any(take(event) for event in events)
            self.write_out()
            self._consumer.report_if_due()
            if ended:
                return
            patience = self._consumer.due_in()
            if pulse is not None:
                wanted = pulse()
                if wanted is None:
                    return
                patience = min(patience, wanted)
            if events is None:
                self._consumer.report_commits()
                if self._waiting.for_connection(patience).output_lost:
                    raise BrokenPipeError

    def write_out(self) -> None:
        """Write what the output holds; after a signal no more than the line that has begun."""
        while self._output.pending and not self._interruption.signum:
            if self._waiting.for_output(self._consumer.due_in()).output:
                self._consumer.acknowledge(self._output.write())
            self._consumer.report_if_due()
        if self._interruption.signum:
            self._output.cut()
            while self._output.pending and self._waiting.for_output(_GRACE, alone=True).output:
                self._consumer.acknowledge(self._output.write())
