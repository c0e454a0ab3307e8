"""A stream of WAL messages on a connection in CopyBoth mode, from its start to its end.

Bytes come in through the codec's reader; `next_batch` hands out what is whole and tells apart what
is no WAL message: a notice (logged, the stream goes on), the end of the stream, an error, a server
that shuts down. The states:

    STREAMING --CopyDone-------------> ENDED    the server has no more to send
    STREAMING --CommandComplete------> ENDING   the server shuts down, or never began to stream
    STREAMING --ErrorResponse--------> FAILED   ReadyForQuery follows, or the end of the connection
    ENDING    --ReadyForQuery--------> ENDED
    ENDING    --end of connection----> FAILED   it was a shutdown

Source: PostgreSQL documentation, "Streaming Replication Protocol" and "COPY Operations".
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from ..codec.abc import Codec, FrameReader, WalBatch
from ..errors import ConnectionFailed, Error, ServerShutdown, server_error
from ..protocol import frontend
from ..protocol.backend import BodyReader, ServerState, error_fields, unexpected
from ..protocol.conversation import Conversation, Frame, Send
from ..protocol.query import Answer, Result
from .positions import Positions

__all__ = ["StreamState", "WalStream"]


class StreamState(enum.Enum):
    """Where a stream stands; see the top of this file."""

    STREAMING = "streaming"
    ENDING = "ending"
    ENDED = "ended"
    FAILED = "failed"


# Looked up once: this is asked for every batch.
_STREAMING: Final = StreamState.STREAMING
_ENDING: Final = StreamState.ENDING


class WalStream:
    """One stream: what it brings, what is reported back, how it is stopped."""

    def __init__(
        self,
        codec: Codec,
        state: ServerState,
        physical: bool,
        results: list[Result] | None = None,
    ) -> None:
        """`results`: the server answered with these at once, in place of a stream."""
        self.state = StreamState.STREAMING if results is None else StreamState.ENDED
        self._results = results
        self.positions: Final = Positions()
        self.physical: Final = physical
        self.slot: str | None = None
        """The slot whose `Stream` or `RawStream` this is; None: it is read by hand."""
        self.control_observer: Callable[[Frame], None] | None = None
        """Called with each message that is no WAL message, for whoever traces the connection."""
        self._codec = codec
        self._server = state
        self._ending = Answer(state)

    def next_batch(self, reader: FrameReader) -> WalBatch | None:
        """Take the next batch from the reader; None: more bytes are needed.

        An empty batch says that the stream has ended. Raises `ServerError` for an error that the
        server sent, and `ProtocolError`.
        """
        while self.state is _STREAMING or self.state is _ENDING:
            if self.state is _STREAMING:
                batch = self._codec.next_batch(reader)
                if batch is not None:
                    self.positions.observe(batch.received(self.physical))
                    return batch
            frame = reader.next_frame()
            if frame is None:
                return None
            self._control(frame)
        return self._codec.WalBatch()

    def _control(self, frame: Frame) -> None:
        if self.control_observer is not None:
            self.control_observer(frame)
        tag = frame[0]
        if tag == b"E":
            self.state = StreamState.FAILED
            raise server_error(error_fields(frame))
        if self._server.absorb(frame):
            return
        if self.state is StreamState.ENDING:
            if self._ending.take(frame):
                self.state = StreamState.ENDED
                self._results = self._ending.results
        elif tag == b"C":
            self.state = StreamState.ENDING
            self._ending.take(frame)
        elif tag == b"c":
            BodyReader(frame).finish()
            self.state = StreamState.ENDED
        else:
            raise unexpected(frame, "a message of the replication stream")

    def connection_lost(self, error: ConnectionFailed) -> Error:
        """Return what the end of the connection means at this point, `error` if nothing else."""
        if self.state is not StreamState.ENDING:
            return error
        self.state = StreamState.FAILED
        tag = self._ending.results[0].tag
        return ServerShutdown(
            {
                "severity": "FATAL",
                "sqlstate": "57P01",
                "message": f"the server shut down: it ended the stream with {tag!r} and closed",
            }
        )

    def stop(self) -> Conversation[list[Result]]:
        """End the stream from this side and read on to ReadyForQuery.

        What the server still sends is discarded and must not be confirmed: the rest of the
        transaction that it is decoding, keepalives. Returns the results at the end: a physical
        stream at the end of its timeline tells the next one.
        """
        if self._results is not None:
            return self._results
        yield Send(frontend.COPY_DONE)
        answer = Answer(self._server)
        while True:
            frame: Frame = yield from self._server.receive()
            if frame[0] not in (b"c", b"d") and answer.take(frame):
                break
        if answer.error is not None:
            raise answer.error
        return answer.results
