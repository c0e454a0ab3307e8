"""What the blocking and the asyncio flavour of a connection have in common: all but waiting.

Law: a connection is in one conversation at a time. One that was cut off, by a time limit or a
cancellation, is kept, and gone on with before anything else is said. It belongs to the process that
made it: a forked child gets a `UsageError`, and closes its descriptor alone.
"""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from ..codec.abc import Codec, WalBatch
from ..errors import Error, ServerError, UsageError
from ..ownership import Owner, Uncopied
from ..protocol import frontend, replication
from ..protocol.backend import ServerState
from ..protocol.backup_stream import BackupEvent, BackupStream
from ..protocol.conversation import Conversation, Exchange
from ..protocol.preflight import Preflight
from ..protocol.query import Result, drain
from ..protocol.timelines import EndOfTimeline, end_of_timeline
from ..resume import ResumeToken
from ..session.opening import Opened, Opening, RawOpening
from ..session.session import Session
from ..session.wal_stream import StreamState, WalStream
from ..transport.attempts import Attempt
from ..transport.clock import now_microseconds

__all__ = ["BaseConnection", "Transport"]

_log: Final = logging.getLogger("pgrepl.stream")

# Before that, a standby that was not asked IDENTIFY_SYSTEM refuses to stream raw WAL.
_KNOWS_ITS_TIMELINE: Final = 150000


class Transport(Protocol):
    """What both drivers have."""

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by this side or after a failure."""

    @property
    def owner(self) -> Owner:
        """The process that made it."""

    def close(self) -> None:
        """Close the connection at once."""

    def expect_no_reader(self) -> None:
        """Raise `UsageError` while somebody else is receiving."""

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        """Return the stream's next batch if it has come already, else None."""


class BaseConnection(Uncopied, ABC):
    """A replication connection: what is known of it, and what is left of its conversations."""

    _transport: Transport
    _way: Attempt

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
        # The timeline that a physical stream was asked for.
        self._timeline: int | None = None
        # The base backup that is being read, and the conversation about its next event.
        self._backup: BackupStream | None = None
        self._event: Exchange[BackupEvent | None] | None = None

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
        if self._transport.owner.is_parent:
            raise self._transport.owner.refusal()
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
        self._timeline = None
        self._stream = WalStream(self._codec, self._state, physical, results)

    def _start_physical(
        self, slot: str | None, start: int, timeline: int | None
    ) -> Conversation[None]:
        command = replication.start_physical_command(slot, start, timeline)
        if self._state.version < _KNOWS_ITS_TIMELINE:
            yield from replication.identify_system(self._state)
        yield from self._start(command)
        self._timeline = timeline
        # Whoever begins there has what lies before it, and may say so before anything comes: a slot
        # that nobody has used yet keeps no WAL until it is told.
        self._streaming().positions.observe(start)

    def _streaming(self) -> WalStream:
        self._require_open()
        if self._stream is None:
            raise UsageError("expected a stream that was started; call start_streaming() first")
        return self._stream

    def _open(self, opening: Opening) -> Conversation[Opened]:
        return opening.conversation(self._state, self._codec, self._start)

    def _open_raw(self, opening: RawOpening) -> Conversation[Preflight]:
        return opening.conversation(self._state, self._start)

    def _session(
        self,
        opening: Opening | RawOpening,
        checked: Preflight,
        status_interval: float,
        receive_timeout: float | None,
        now: float,
    ) -> Session:
        """Return the session of the stream that was opened."""
        positions = self._streaming().positions
        positions.automatic = not isinstance(opening.start, ResumeToken)
        self._log_beginning(opening, checked)
        return Session(
            self._codec,
            positions,
            status_interval=status_interval,
            sender_timeout=checked.wal_sender_timeout,
            receive_timeout=receive_timeout,
            now=now,
        )

    def _log_beginning(self, opening: Opening | RawOpening, checked: Preflight) -> None:
        what = f"undecoded, by {checked.slot.plugin!r}"
        if isinstance(opening, Opening):
            what = f"publications {', '.join(map(repr, opening.options.publications))}"
        _log.info(
            "slot %r: the stream begins at %s, %s; server %s, version %s, process %s",
            *(checked.slot.name, checked.start, what),
            *(self._way.where, self.server_version, self.pid),
        )

    def _batch_at_hand(self) -> Any:
        """Return the next batch if it is there already, else None."""
        if self._unfinished is not None:
            return None
        stream = self._streaming()
        try:
            return self._transport.batch_at_hand(stream)
        except Error as error:
            self._leave_stream_after(error)
            raise

    def _begin_batch(self, batch: Any) -> Any:
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

    def _leave_stream_after(self, error: Error) -> None:
        self._close_if_broken_by(error)
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

    def _hot_standby_feedback(self, xmin: int, catalog_xmin: int, timestamp: int | None) -> bytes:
        """Return a message with hot standby feedback."""
        self._expect_physical()
        moment = now_microseconds() if timestamp is None else timestamp
        return frontend.hot_standby_feedback(moment, xmin, catalog_xmin)

    def _expect_physical(self) -> None:
        if not self._streaming().physical:
            # Feedback would move what a logical slot keeps of the catalogues, and ruin it.
            raise UsageError("expected a physical stream, this one is logical")

    def _end_of_timeline(self, results: list[Result]) -> EndOfTimeline | None:
        """Return what the results of a stream that was stopped say of its timeline."""
        try:
            return end_of_timeline(results, self._timeline)
        except Error as error:
            self._close_if_broken_by(error)
            raise

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

        Raises `UsageError` for one that is on, and for a base backup.
        """
        if self._backup is not None:
            raise UsageError(
                "expected no base backup to be on; read it to its end, or close the connection"
            )
        if self._stream is None:
            return False
        if self._stream.state is not StreamState.ENDED:
            raise UsageError("expected no stream to be on; call stop_streaming() first")
        return True

    # Base backups

    def _event_of(self, backup: BackupStream) -> Exchange[BackupEvent | None]:
        """Return the conversation about a backup's next event: the one that was cut off, or
        another."""
        self._require_open()
        self._transport.expect_no_reader()
        exchange = self._event or Exchange(backup.next_event())
        self._backup, self._event = backup, exchange
        return exchange

    def _forget_finished_event(
        self, backup: BackupStream, exchange: Exchange[BackupEvent | None]
    ) -> None:
        if exchange.request is None:
            self._event = None
            if backup.ended:
                self._backup = None

    # Conversations, and what is left of them

    def _matters(self, error: Error, exchange: Exchange[Any], raising: bool) -> bool:
        """Whether an error of a conversation is to be raised.

        What a command that was cut off came to is of no interest to the next one.
        """
        self._close_if_broken_by(error)
        return raising or self.closed or exchange.request is not None

    def _forget_if_finished(self, exchange: Exchange[Any]) -> None:
        if exchange.request is None:
            self._unfinished = None
            self._stopping = False

    def _close_if_broken_by(self, error: Error) -> None:
        """Close the connection after an error that leaves it in no known state."""
        fatal = isinstance(error, ServerError) and error.severity != "ERROR"
        if fatal or not isinstance(error, ServerError | UsageError):
            self._transport.close()

    def __del__(self) -> None:
        # One that was made by half has none: it comes last.
        transport: Transport | None = getattr(self, "_transport", None)
        if transport is None or transport.closed:
            return
        told = f"{self!r} was not closed"
        transport.close()
        # A forked child has not made it, and no reason to close it.
        if not transport.owner.is_parent:
            warnings.warn(told, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        if self.closed:
            status = "closed"
        else:
            idle = "commands" if self._backup is None else "base backup"
            status = idle if self._stream is None else self._stream.state.value
        return f"<pgrepl.{type(self).__name__} pid={self.pid} {status}>"
