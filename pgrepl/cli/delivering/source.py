"""Where the streamed comes from: a stream's events, or its bytes as they are, put into an output.

Law: what is put goes with the position that may be acknowledged once it is written. A position is
acknowledged as written when the output has written it, and as flushed when it is durable there;
nothing is ever added to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from ...blocking.raw_stream import RawStream
from ...blocking.stream import Stream
from ...client.delivery import StreamEvent
from ...codec.abc import WalBatch
from ...errors import Error
from ...lsn import Lsn
from .output import Output

__all__ = ["DecodedSource", "RawSource", "Source"]

_SEPARATOR: Final = b"\n"


class Source(ABC):
    """What has come of a stream, and what of that is acknowledged."""

    stream: Stream | RawStream

    def __init__(self) -> None:
        self._written = 0
        self._is_over = False
        self.acknowledged = Lsn(0)
        self.reply_requested = False
        """Whether the server wants to know at once; whoever sees to it sets it back."""
        self.taken = 0
        """How many messages the last look found, 0 for nothing."""

    def fileno(self) -> int:
        """Return the connection's descriptor, to wait for."""
        return self.stream.fileno()

    def receive(self) -> bool | None:
        """Put into the output what has come; None: nothing has; True: it is the end asked for.

        Never waits. Raises what `Stream.receive` and reading on in it raise.
        """
        try:
            ended = self._put_what_came()
        except TimeoutError:
            self.taken = 0
            return None
        except Error:
            # What came before it is still to be written, and nobody can be told.
            self._is_over = True
            raise
        return ended

    @abstractmethod
    def _put_what_came(self) -> bool: ...

    def is_behind(self, written: int, durable: int) -> bool:
        """Whether `acknowledge` would have something new to say."""
        return not self._is_over and (durable > self.acknowledged or written > self._written)

    def acknowledge(self, written: int, durable: int) -> None:
        """Acknowledge positions of what the output has."""
        if self._is_over:
            return
        if durable > self.acknowledged:
            self.acknowledged = Lsn(durable)
            self.stream.ack(durable)
        if written > max(self._written, durable):
            self.stream.ack(written, flushed=False, applied=False)
        self._written = written


class DecodedSource(Source):
    """A decoded stream. `take` puts an event into the output; it returns True at the end."""

    stream: Stream

    def __init__(self, stream: Stream, take: Callable[[StreamEvent], bool]) -> None:
        super().__init__()
        self.stream = stream
        self._take = take

    def _put_what_came(self) -> bool:
        for number, event in enumerate(self.stream.receive(timeout=0), 1):
            self.taken = number
            self.reply_requested |= event.reply_requested
            if self._take(event):
                return True
        return False


class RawSource(Source):
    """A raw stream: each payload, and a line end behind it, as they are.

    `end`: stop behind what lies exactly there, or before what lies beyond; or when the server says
    that it has come so far.
    """

    stream: RawStream

    def __init__(self, stream: RawStream, output: Output, end: Lsn | None) -> None:
        super().__init__()
        self.stream = stream
        self._output = output
        self._end = end

    def _put_what_came(self) -> bool:
        batch = self.stream.receive(timeout=0)
        self.taken = len(batch)
        self.reply_requested |= batch.reply_requested
        if self._end is None or batch.received(False) < self._end:
            self._output.put_bytes(batch.payloads(_SEPARATOR), batch.received(False))
            return False
        return self._put_up_to_end(batch, self._end)

    def _put_up_to_end(self, batch: WalBatch, end: Lsn) -> bool:
        count = position = 0
        ended = False
        for item in batch:
            if hasattr(item, "reply_requested"):
                position = max(position, item.wal_end)
                ended = item.wal_end >= end
            elif item.wal_start > end:
                ended = True
            else:
                count += 1
                position = max(position, item.wal_start)
                ended = item.wal_start == end
            if ended:
                break
        self._output.put_bytes(batch.payloads(_SEPARATOR, count), position)
        return ended
