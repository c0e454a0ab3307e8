"""What the blocking and the asyncio flavour of a connection have in common: all but waiting.

Law: a connection is in one conversation at a time. One that was cut off, by a time limit or a
cancellation, is kept, and gone on with before anything else is said.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from .codec.abc import Codec, WalBatch
from .errors import Error, ServerError, UsageError
from .protocol import replication
from .protocol.backend import ServerState
from .protocol.conversation import Conversation, Exchange
from .protocol.query import drain
from .session.opening import Opened, Opening
from .session.session import Session
from .session.wal_stream import StreamState, WalStream
from .token import ResumeToken
from .transport.clock import now_microseconds

__all__ = ["BaseConnection", "Transport"]


class Transport(Protocol):
    """What both drivers have."""

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by this side or after a failure."""

    def close(self) -> None:
        """Close the connection at once."""

    def expect_no_reader(self) -> None:
        """Raise `UsageError` while somebody else is receiving."""

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        """Return the stream's next batch if it has come already, else None."""


class BaseConnection(ABC):
    """A replication connection: what is known of it, and what is left of its conversations."""

    _transport: Transport

    def __init__(self, state: ServerState, codec: Codec) -> None:
        self._state = state
        self._codec = codec
        self._stream: WalStream | None = None
        # The batch that receive_wal_message() hands out, and how far it has come. Any: a `WalBatch`
        # of the twin in use, which the rooms below know by its contract alone.
        self._batch: Any = codec.WalBatch()
        self._messages: Iterator[Any] = iter(())
        self._taken = 0
        # A conversation that was cut off.
        self._unfinished: Exchange[Any] | None = None
        self._stopping = False

    # What is known of the server and the session

    @property
    def server_version(self) -> int:
        """The server's version as PostgreSQL counts it: 180004 for 18.4; 0 where it did not
        tell."""
        return self._state.version

    @property
    def parameters(self) -> Mapping[str, str]:
        """The settings that the server reports: server_version, TimeZone and others."""
        return MappingProxyType(self._state.parameters)

    @property
    def pid(self) -> int:
        """Process id of the server process, as in pg_stat_replication; 0 where it did not tell."""
        return self._state.pid

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by `disconnect` or after a failure."""
        return self._transport.closed

    @abstractmethod
    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once it is closed."""

    def _require_open(self) -> None:
        if self.closed:
            raise UsageError("expected an open connection, this one is closed")

    # The stream

    def _start(self, sql: str) -> Conversation[None]:
        # Inside the conversation, so that a start that was cut off takes effect when it goes on.
        physical = not replication.is_logical(sql)
        if self._state.has_stopped_stream and not physical:
            # Only a physical START_REPLICATION resets what the server process remembers of
            # CopyDone.
            raise UsageError(
                "PostgreSQL ends a logical stream at once on a connection whose last stream was "
                "stopped; open a new connection for it"
            )
        results = yield from replication.start_streaming(self._state, sql)
        if results is None:
            self._state.has_stopped_stream = False
        self._stream = WalStream(self._codec, self._state, physical, results)

    def _streaming(self) -> WalStream:
        self._require_open()
        if self._stream is None:
            raise UsageError("expected a stream that was started; call start_streaming() first")
        return self._stream

    def _open(self, opening: Opening) -> Conversation[Opened]:
        return opening.conversation(self._state, self._codec, self._start)

    def _session(
        self,
        opening: Opening,
        opened: Opened,
        status_interval: float,
        receive_timeout: float | None,
        now: float,
    ) -> Session:
        """Return the session of the stream that was opened."""
        positions = self._streaming().positions
        positions.automatic = not isinstance(opening.start, ResumeToken)
        return Session(
            self._codec,
            positions,
            status_interval=status_interval,
            sender_timeout=opened.checked.wal_sender_timeout,
            receive_timeout=receive_timeout,
            now=now,
        )

    def _batch_at_hand(self) -> Any:
        """Return the next batch if it is there already, else None."""
        if self._unfinished is not None:
            return None
        stream = self._streaming()
        try:
            return self._transport.batch_at_hand(stream)
        except Error as error:
            self._after_error_in_stream(error)
            raise

    def _hand_out(self, batch: Any) -> Any:
        """Begin with the messages of another batch; return the first one, None of an empty one."""
        self._batch = batch
        self._taken = 0
        self._messages = iter(batch)
        return next(self._messages, None)

    def _rest_of_batch(self) -> Any:
        """Return the batch of what was not handed out one by one, or None."""
        if self._taken >= len(self._batch):
            return None
        rest = self._batch.tail(self._taken)
        self._forget_batch()
        return rest

    def _forget_batch(self) -> None:
        self._batch = self._codec.WalBatch()
        self._messages = iter(())
        self._taken = 0

    def _after_error_in_stream(self, error: Error) -> None:
        self._after(error)
        if isinstance(error, ServerError):
            self._stream = None
            self._forget_batch()
            if not self.closed:
                self._unfinished = Exchange(drain(self._state))

    def _status(
        self,
        written: int,
        flushed: int,
        applied: int,
        timestamp: int | None,
        reply_requested: bool,
    ) -> bytes:
        """Return a status message that keeps to the laws of positions."""
        report = self._streaming().positions.report(written, flushed, applied)
        moment = now_microseconds() if timestamp is None else timestamp
        return self._codec.standby_status(*report, moment, reply_requested)

    def _begin_to_stop(self) -> None:
        # Before anything changes: the stream may be somebody else's to read.
        self._transport.expect_no_reader()
        self._unfinished = Exchange(self._streaming().stop())
        self._stopping = True
        # At once: whatever becomes of it, the server has been told.
        self._state.has_stopped_stream = True
        self._stream = None
        self._forget_batch()

    @property
    def _must_stop_first(self) -> bool:
        """Whether a stream that has ended is still to be dealt with.

        Raises `UsageError` for one that is on.
        """
        if self._stream is None:
            return False
        if self._stream.state is not StreamState.ENDED:
            raise UsageError("expected no stream to be on; call stop_streaming() first")
        return True

    # Conversations, and what is left of them

    def _matters(self, error: Error, exchange: Exchange[Any], raising: bool) -> bool:
        """Whether an error of a conversation is to be raised.

        What a command that was cut off came to is of no interest to the next one.
        """
        self._after(error)
        return raising or self.closed or exchange.request is not None

    def _leave(self, exchange: Exchange[Any]) -> None:
        if exchange.request is None:
            self._unfinished = None
            self._stopping = False

    def _after(self, error: Error) -> None:
        """Close the connection after an error that leaves it in no known state."""
        fatal = isinstance(error, ServerError) and error.severity != "ERROR"
        if fatal or not isinstance(error, ServerError | UsageError):
            self._transport.close()

    def __del__(self) -> None:
        if not self.closed:
            told = f"{self!r} was not closed"
            self._transport.close()
            warnings.warn(told, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        if self.closed:
            status = "closed"
        else:
            status = "commands" if self._stream is None else self._stream.state.value
        return f"<pgrepl.{type(self).__name__} pid={self.pid} {status}>"
