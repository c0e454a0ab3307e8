"""The asyncio driver of a connection that is traced; see `wire_trace`."""

from __future__ import annotations

import socket
from typing import TypeVar

from ...codec.abc import FrameReader, WalBatch
from ...protocol.conversation import Exchange, Frame
from ...session.wal_stream import WalStream
from ..clock import Deadline
from ..tls_filter import TLSFilter
from ..wire_trace import WireTrace
from .driver import AsyncTransport

__all__ = ["AsyncTracedTransport"]

_Result = TypeVar("_Result")


class AsyncTracedTransport(AsyncTransport):
    """Tells of each message, as it is taken or given to be sent."""

    def __init__(
        self,
        connected: socket.socket,
        reader: FrameReader,
        tls: TLSFilter | None = None,
        *,
        is_local: bool = False,
        trace: WireTrace,
    ) -> None:
        super().__init__(connected, reader, tls, is_local=is_local)
        self._trace = trace
        self._is_conversing = False

    async def run(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        self._is_conversing = True
        try:
            return await super().run(exchange, deadline)
        finally:
            self._is_conversing = False

    async def next_batch(self, stream: WalStream, deadline: Deadline) -> WalBatch:
        stream.control_observer = self._trace.received
        batch = await super().next_batch(stream, deadline)
        self._trace.received_batch(batch)
        return batch

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        stream.control_observer = self._trace.received
        batch = super().batch_at_hand(stream)
        if batch is not None:
            self._trace.received_batch(batch)
        return batch

    async def _next_frame(self, deadline: Deadline) -> Frame:
        frame = await super()._next_frame(deadline)
        self._trace.received(frame)
        return frame

    def _write(self, data: bytes) -> None:
        self._trace.sent(data, is_reply=not self._is_conversing)
        super()._write(data)
