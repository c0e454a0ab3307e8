"""The blocking driver of a connection that is traced; see `wire_trace`."""

from __future__ import annotations

import socket
from typing import TypeVar

from ...codec.abc import FrameReader, WalBatch
from ...protocol.conversation import Exchange, Frame
from ...session.wal_stream import WalStream
from ..clock import Deadline
from ..tls import TLSClient
from ..wire_trace import WireTrace
from .driver import BlockingTransport

__all__ = ["TracedTransport"]

_Result = TypeVar("_Result")


class TracedTransport(BlockingTransport):
    """Tells of each message, as it is taken or given to be sent."""

    def __init__(
        self,
        connected: socket.socket,
        reader: FrameReader,
        tls: TLSClient | None = None,
        *,
        trace: WireTrace,
    ) -> None:
        super().__init__(connected, reader, tls)
        self._trace = trace
        self._is_conversing = False

    def run(self, exchange: Exchange[_Result], deadline: Deadline) -> _Result:
        self._is_conversing = True
        try:
            return super().run(exchange, deadline)
        finally:
            self._is_conversing = False

    def next_batch(self, stream: WalStream, deadline: Deadline) -> WalBatch:
        stream.control_observer = self._trace.received
        batch = super().next_batch(stream, deadline)
        self._trace.received_batch(batch)
        return batch

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        stream.control_observer = self._trace.received
        batch = super().batch_at_hand(stream)
        if batch is not None:
            self._trace.received_batch(batch)
        return batch

    def _next_frame(self, deadline: Deadline) -> Frame:
        frame = super()._next_frame(deadline)
        self._trace.received(frame)
        return frame

    def _receive_byte(self, deadline: Deadline) -> bytes:
        answer = super()._receive_byte(deadline)
        self._trace.received_byte(answer)
        return answer

    def _encrypted(self, data: bytes) -> bytes:
        self._trace.sent(data, is_reply=not self._is_conversing)
        return super()._encrypted(data)
