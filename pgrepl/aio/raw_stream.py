"""Level 2 of the API without a decoder: a slot's messages as any plugin writes them, asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from ..client.raw_stream import BaseRawStream, data_of
from ..codec.abc import WalBatch, XLogData
from ..protocol.preflight import Preflight
from ..public import imported_from
from ..session.session import Session
from ..transport.clock import Deadline
from .reception import AsyncReception
from .wire import AsyncStreamWire

__all__ = ["AsyncRawStream"]


class _DataIterator(AsyncIterator[XLogData]):
    """The payloads' messages; it keeps its place, so that a wait can be cancelled."""

    __slots__ = ("_at_hand", "_stream")

    def __init__(self, stream: AsyncRawStream) -> None:
        self._stream = stream
        self._at_hand: Iterator[XLogData] = iter(())

    async def __anext__(self) -> XLogData:
        while True:
            for message in self._at_hand:
                return message
            batch = await self._stream.receive()
            if not batch:
                raise StopAsyncIteration
            self._at_hand = data_of(batch)


@imported_from("pgrepl")
class AsyncRawStream(AsyncReception, BaseRawStream):
    """A slot's messages, made by `AsyncConnection.stream_raw`; `async with` stops it.

    Iterate over it for its `XLogData`, or `receive` batches. One task reads; `ack` and `stats` are
    for any. Every wait can be cancelled, and loses nothing.
    """

    def __init__(self, wire: AsyncStreamWire, session: Session, checked: Preflight) -> None:
        super().__init__(session, checked)
        self._wire = wire
        self._feedback = wire.feedback(session, self._health_logger())

    def __aiter__(self) -> AsyncIterator[XLogData]:
        """Iterate over the payloads' messages, without keepalives; see `RawStream`."""
        return _DataIterator(self)

    async def receive(self, timeout: float | None = None) -> WalBatch:
        """Return all that one read brought; empty: the stream was stopped. See `RawStream`."""
        with self._closing_on_error():
            batch = await self._next_batch(Deadline.after(timeout))
            if batch is None:
                return self._wire.empty_batch
            # Nothing is awaited from here on, so that a cancellation finds it done or not.
            self._feedback.received(batch)
            return self._note_given(batch)
