"""The loop between a server and an output: nothing that it does waits for one side alone.

While the output does not take more, nothing is received, so that the server is slowed down and
memory stays bounded by one read; the stream's own feedback goes on all the same. What was received
is written out before anything else is received, so positions are acknowledged in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ..interruption import Interruption
from ..readiness import Waiting
from .output import Output
from .source import Source

__all__ = ["Delivery"]

_PATIENCE: Final = 5.0
"""Seconds after which the stream is looked at again in any case, so that it can notice silence."""
_ACK_GAP: Final = 0.01
"""Seconds between two acknowledgements at least, each of which the server has to read."""
_FEW: Final = 100
"""Messages of a read, fewer than which are worth waiting a moment for more."""
_MOMENT: Final = 0.0002
"""Seconds of it. In the meantime a Unix socket does not fill up."""
_GRACE: Final = 0.2
"""Seconds that a blocked output gets after a signal to take the rest of a line."""


class Delivery:
    """Hands what comes from a source over to its output, and acknowledges what that has.

    `fsync_interval`: seconds after which what was written is made durable, while nothing asks for
    it earlier: the end, or the server.
    """

    def __init__(
        self,
        source: Source,
        output: Output,
        interruption: Interruption,
        fsync_interval: float = 10.0,
    ) -> None:
        self._source = source
        self._output = output
        self._interruption = interruption
        self._fsync_interval = fsync_interval
        self._synced_at = time.monotonic()
        self._acknowledged_at = 0.0
        self._waiting = self._make_waiting()

    def run(self, between_reads: Callable[[], float | None] | None = None) -> None:
        """Deliver until the source has come to its end, or until a signal comes.

        `between_reads` returns the seconds until it wants to be called again, or None to end the
        loop. Raises `BrokenPipeError` and other `OSError` of the output, and what `Source.receive`
        raises.
        """
        while not self._interruption.signum:
            ended = self._source.receive()
            self.write_out()
            if self._interruption.take_hangup():
                self._output.reopen()
                self._waiting = self._make_waiting()
            if ended or self._source.reply_requested or self._seconds_until_sync() <= 0:
                self.finish()
            if ended:
                return
            patience = min(_PATIENCE, self._seconds_until_sync(), self._acknowledge_in_time())
            if between_reads is not None:
                wanted = between_reads()
                if wanted is None:
                    return
                patience = min(patience, wanted)
            if ended is None:
                if self._wait_for_wal(patience):
                    raise BrokenPipeError
            elif self._source.taken < _FEW:
                # What came has been delivered; where more is on its way, as it is while the server
                # decodes a backlog, both sides are spared a wake-up for each message.
                time.sleep(_MOMENT)

    def _make_waiting(self) -> Waiting:
        return Waiting(self._source.fileno(), self._interruption.fileno(), self._output.descriptor)

    def _wait_for_wal(self, patience: float) -> bool:
        """Wait for whatever comes; say whether the output is lost."""
        ready = self._waiting.for_connection(max(patience, 0.0))
        if not ready.connection:
            self._interruption.drain()
        return ready.output_lost

    def write_out(self) -> None:
        """Write what the output holds; after a signal no more than the line that has begun."""
        output = self._output
        while output.pending and not self._interruption.signum:
            if output.is_file or self._waiting.for_output(_PATIENCE).output:
                output.write()
            else:
                self._interruption.drain()
            self._acknowledge_in_time()
        if self._interruption.signum:
            output.cut()
            while output.pending and self._waiting.for_output(_GRACE, alone=True).output:
                output.write()

    def sync(self) -> None:
        """Make durable what was written. Raises `OSError`."""
        self._output.sync()
        self._synced_at = time.monotonic()
        self._source.reply_requested = False

    def finish(self) -> None:
        """Acknowledge what the output has, for the last time, and as durable. Raises `OSError`."""
        self.sync()
        self._acknowledge_output()

    def _seconds_until_sync(self) -> float:
        """Return the seconds until what was written is to be made durable."""
        if not self._output.unsynced:
            return _PATIENCE
        return self._synced_at + self._fsync_interval - time.monotonic()

    def _acknowledge_in_time(self) -> float:
        """Acknowledge what the output has, or return the seconds until that is to be done."""
        output, source = self._output, self._source
        if not source.is_behind(output.written, output.durable):
            return _PATIENCE
        left = self._acknowledged_at + _ACK_GAP - time.monotonic()
        if left > 0:
            return left
        self._acknowledge_output()
        return _PATIENCE

    def _acknowledge_output(self) -> None:
        self._acknowledged_at = time.monotonic()
        self._source.acknowledge(self._output.written, self._output.durable)
