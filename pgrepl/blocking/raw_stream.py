"""Level 2 of the API without a decoder: a slot's messages as any plugin writes them, blocking."""

from __future__ import annotations

from collections.abc import Iterator

from ..client.raw_stream import BaseRawStream, data_of
from ..codec.abc import WalBatch, XLogData
from ..errors import Error
from ..protocol.preflight import Preflight
from ..public import imported_from
from ..session.session import Session
from ..transport.clock import Deadline
from .reception import Reception
from .wire import StreamWire

__all__ = ["RawStream"]


@imported_from("pgrepl")
class RawStream(Reception, BaseRawStream):
    """A slot's messages, made by `Connection.stream_raw`; a context manager that stops.

    Iterate over it for its `XLogData`, or `receive` batches. One thread reads; `ack`, `stats` and
    `stop` are for any.
    """

    def __init__(self, wire: StreamWire, session: Session, checked: Preflight) -> None:
        super().__init__(session, checked)
        self._wire = wire
        self._feedback = wire.feedback(session, self._slot, self._health_logger())

    def __iter__(self) -> Iterator[XLogData]:
        """Iterate over the payloads' messages as they come, without keepalives.

        Raises `ConnectionFailed`, `ServerShutdown` and other `ServerError`s; the stream has then
        ended, and what was not acknowledged comes again.
        """
        while batch := self.receive():
            yield from data_of(batch)

    def receive(self, timeout: float | None = None) -> WalBatch:
        """Return all that one read brought, keepalives too; empty: the stream was stopped.

        Raises `TimeoutError` when nothing comes in time, after which the stream goes on, and what
        iterating over the stream raises. With a `timeout` of 0 this is for loops that wait
        elsewhere; see `Stream.receive`.
        """
        try:
            batch = self._next_batch(Deadline.after(timeout))
            if batch is None:
                return self._wire.empty_batch
            self._feedback.received(batch)
            return self._note_given(batch)
        except TimeoutError:
            raise
        except BaseException as error:
            # Ctrl-C in a wait has cost nothing; anywhere else it may have cost a batch.
            if isinstance(error, Error) or not self._wire.has_lost_nothing:
                self._fail(error)
            raise
