"""A connection from inside: its driver, its server, and what it is doing with that.

`Connection` is what users hold of it; streams and base backups hold the wire itself, and so it
stays open for as long as any of them lives.

Law: a connection is in one conversation at a time. One that was cut off, by a time limit or a
cancellation, is kept, and gone on with before anything else is said. It belongs to the process that
made it: a forked child gets a `UsageError`, and closes its descriptor alone.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Any, ClassVar, Final, Protocol, TypeVar

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
from .batch_in_hand import BatchInHand
from .connection_state import ConnectionState, Step, Use, carried, step_before

__all__ = ["BaseWire", "BaseStreamWire", "Transport"]

_log: Final = logging.getLogger("pgrepl.stream")
_Result = TypeVar("_Result")

# Before that, a standby that was not asked IDENTIFY_SYSTEM refuses to stream raw WAL.
_KNOWS_ITS_TIMELINE: Final = 150000

# Looked up once: they are asked for every batch.
_ANSWERING: Final = ConnectionState.ANSWERING
_STREAMING: Final = ConnectionState.STREAMING


class BaseStreamWire(Protocol):
    """What a stream needs of its connection, in both flavours; each adds what waits."""

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""

    @property
    def owner(self) -> Owner:
        """The process that made it."""

    @property
    def codec(self) -> Codec:
        """What makes of bytes what the stream gives."""

    @property
    def empty_batch(self) -> WalBatch:
        """A batch with nothing in it."""

    def batch_at_hand(self) -> Any:
        """Return the next batch if it has come already, else None."""


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

    def coalesce(self, max_delay: float) -> None:
        """Have the reads of the stream that begins wait for company, for so many seconds at
        most."""

    def expect_no_reader(self) -> None:
        """Raise `UsageError` while somebody else is receiving."""

    def batch_at_hand(self, stream: WalStream) -> WalBatch | None:
        """Return the stream's next batch if it has come already, else None."""


class BaseWire(Uncopied):
    """A connection from inside: all but waiting."""

    transport: Transport
    connection_name: ClassVar[str]
    """What users know it by."""

    def __init__(self, server: ServerState, codec: Codec, attempt: Attempt) -> None:
        self.server: Final = server
        self.codec: Final = codec
        self.attempt: Final = attempt
        """How it was made: where, and with TLS or without."""
        self.empty_batch: Final[WalBatch] = codec.WalBatch()
        """A batch with nothing in it."""
        self.in_hand: Final = BatchInHand(self.empty_batch)
        """The batch that messages are taken from one by one."""
        # Never ENDED, which the stream knows, nor CLOSED, which the driver knows.
        self._doing = ConnectionState.COMMANDS
        # The conversation under way, or the one that was cut off.
        self._exchange: Exchange[Any] | None = None
        self._stream: WalStream | None = None
        # The timeline that the last physical stream was asked for.
        self._timeline: int | None = None
        # The base backup that is being read.
        self._backup: BackupStream | None = None

    # Its state

    @property
    def owner(self) -> Owner:
        """The process that made it."""
        return self.transport.owner

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by this side or after a failure."""
        return self.transport.closed

    @property
    def state(self) -> ConnectionState:
        """What the connection is doing."""
        if self.transport.closed:
            return ConnectionState.CLOSED
        stream = self._stream
        if stream is not None and stream.state is StreamState.ENDED:
            return ConnectionState.ENDED
        return self._doing

    def _step_before(self, use: Use) -> Step:
        """Return what has to be done first. Raises `UsageError` for what is not allowed now."""
        if self.transport.owner.is_parent:
            raise self.transport.owner.refusal()
        return step_before(use, self.state, self._slot_carried)

    def close(self) -> None:
        """Close the connection at once."""
        self.transport.close()

    def close_if_broken_by(self, error: Error) -> None:
        """Close the connection after an error that leaves it in no known state."""
        fatal = isinstance(error, ServerError) and error.severity != "ERROR"
        if fatal or not isinstance(error, ServerError | UsageError):
            self.transport.close()

    # Conversations, and what is left of them

    def _begin_conversation(self, conversation: Conversation[_Result]) -> Exchange[_Result]:
        exchange = Exchange(conversation)
        self._exchange, self._doing = exchange, _ANSWERING
        return exchange

    def _forget_if_finished(self, exchange: Exchange[Any]) -> None:
        """Forget a conversation that has come to its end, and note the state that it leads to."""
        if exchange.request is not None or self._exchange is not exchange:
            return
        # A conversation that begins a stream sets the state by itself.
        if self._doing is ConnectionState.BASE_BACKUP:
            if self._backup is not None and self._backup.ended:
                self._doing, self._backup = ConnectionState.COMMANDS, None
        elif self._doing is not _STREAMING:
            self._doing = ConnectionState.COMMANDS
        self._exchange = None

    # The start of a stream

    def start(self, sql: str, max_delay: float) -> Conversation[None]:
        """Run a START_REPLICATION command; `max_delay`: see `transport.coalescing`."""
        # Inside the conversation, so that a start that was cut off takes effect when it goes on.
        physical = not replication.is_logical(sql)
        if self.server.has_stopped_stream and not physical:
            # Only a physical START_REPLICATION resets what the server process remembers of
            # CopyDone.
            raise UsageError(
                "PostgreSQL ends a logical stream at once on a connection whose last stream was "
                "stopped; open a new connection for it"
            )
        results = yield from replication.start_streaming(self.server, sql)
        if results is None:
            self.server.has_stopped_stream = False
        self._timeline = None
        self._stream = WalStream(self.codec, self.server, physical, results)
        self.transport.coalesce(max_delay)
        self._doing = _STREAMING

    def start_physical(
        self, slot: str | None, start: int, timeline: int | None, max_delay: float
    ) -> Conversation[None]:
        """Begin to stream raw WAL."""
        command = replication.start_physical_command(slot, start, timeline)
        if self.server.version < _KNOWS_ITS_TIMELINE:
            yield from replication.identify_system(self.server)
        yield from self.start(command, max_delay)
        self._timeline = timeline
        # Whoever begins there has what lies before it, and may say so before anything comes: a slot
        # that nobody has used yet keeps no WAL until it is told.
        self._stream_in_use().positions.observe(start)

    def open(self, opening: Opening, max_delay: float) -> Conversation[Opened]:
        """Check a slot, and begin to stream it decoded."""
        start = partial(self.start, max_delay=max_delay)
        return opening.conversation(self.server, self.codec, start)

    def open_raw(self, opening: RawOpening, max_delay: float) -> Conversation[Preflight]:
        """Check a slot, and begin to stream it undecoded."""
        return opening.conversation(self.server, partial(self.start, max_delay=max_delay))

    def session(
        self,
        opening: Opening | RawOpening,
        checked: Preflight,
        status_interval: float,
        receive_timeout: float | None,
        now: float,
    ) -> Session:
        """Return the session of the stream that was opened."""
        stream = self._stream_in_use()
        stream.slot = checked.slot.name
        positions = stream.positions
        positions.automatic = not isinstance(opening.start, ResumeToken)
        self._log_beginning(opening, checked)
        return Session(
            self.codec,
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
            *(self.attempt.where, self.server.version, self.server.pid),
        )

    # The stream

    @property
    def _is_streaming(self) -> bool:
        """Whether a stream was started, and was not left since; on a closed connection as well."""
        return self._doing is _STREAMING

    def _stream_in_use(self) -> WalStream:
        """Return the stream. Raises `UsageError` where there is none, or the connection is
        closed."""
        stream = self._stream
        if self.transport.closed or stream is None or self.transport.owner.is_parent:
            self._step_before(Use.REPORT)
        assert stream is not None
        return stream

    def batch_at_hand(self) -> Any:
        """Return the next batch if it has come already, else None."""
        if self._doing is _ANSWERING:
            return None
        stream = self._stream_in_use()
        try:
            return self.transport.batch_at_hand(stream)
        except Error as error:
            self._leave_stream_after(error)
            raise

    def _leave_stream_after(self, error: Error) -> None:
        self.close_if_broken_by(error)
        if isinstance(error, ServerError):
            self._stream, self._doing = None, ConnectionState.COMMANDS
            self.in_hand.forget()
            if not self.closed:
                self._begin_conversation(drain(self.server))

    def status(
        self,
        written: int,
        flushed: int,
        applied: int,
        timestamp: int | None,
        reply_requested: bool,
    ) -> bytes:
        """Return a status message that keeps to the laws of positions."""
        report = self._stream_in_use().positions.report(written, flushed, applied)
        moment = now_microseconds() if timestamp is None else timestamp
        return self.codec.standby_status(*report, moment, reply_requested)

    def hot_standby_feedback(self, xmin: int, catalog_xmin: int, timestamp: int | None) -> bytes:
        """Return a message with hot standby feedback."""
        self._expect_physical()
        moment = now_microseconds() if timestamp is None else timestamp
        return frontend.hot_standby_feedback(moment, xmin, catalog_xmin)

    def _expect_physical(self) -> None:
        if not self._stream_in_use().physical:
            # Feedback would move what a logical slot keeps of the catalogues, and ruin it.
            raise UsageError("expected a physical stream, this one is logical")

    def _end_of_timeline(self, results: list[Result]) -> EndOfTimeline | None:
        """Return what the results of a stream that was stopped say of its timeline."""
        try:
            return end_of_timeline(results, self._timeline)
        except Error as error:
            self.close_if_broken_by(error)
            raise

    @property
    def _slot_carried(self) -> str | None:
        """The slot whose `Stream` or `RawStream` is on; None: there is none."""
        return None if self._stream is None else self._stream.slot

    def expect_stream_by_hand(self) -> None:
        """Raise `UsageError` where a `Stream` or `RawStream` is on, which is stopped by itself."""
        slot = self._slot_carried
        if slot is not None and not (self.closed or self.owner.is_parent):
            raise UsageError(f"expected a stream that start_streaming() began, {carried(slot)}")

    def _stop_under_way(self) -> Exchange[list[Result]] | None:
        """Return the conversation that ends the stream, where it was begun and was cut off."""
        return self._exchange if self._doing is ConnectionState.STOPPING else None

    def _begin_to_stop(self) -> Exchange[list[Result]]:
        # Before anything changes: the stream may be somebody else's to read.
        self.transport.expect_no_reader()
        exchange = Exchange(self._stream_in_use().stop())
        self._exchange, self._doing = exchange, ConnectionState.STOPPING
        # Now and not at its end: the server may be told although the answer is never read.
        self.server.has_stopped_stream = True
        self._stream = None
        self.in_hand.forget()
        return exchange

    # Base backups

    def _is_reading_backup(self, backup: BackupStream) -> bool:
        """Whether this is the base backup that is being read."""
        return self._doing is ConnectionState.BASE_BACKUP and self._backup is backup

    def _begin_backup_event(self, backup: BackupStream) -> Exchange[BackupEvent | None]:
        """Return the conversation about a backup's next event: the one that was cut off, or
        another."""
        exchange = None
        if self._is_reading_backup(backup):
            exchange = self._exchange
        else:
            self._step_before(Use.COMMAND)
        self.transport.expect_no_reader()
        exchange = exchange or Exchange(backup.next_event())
        self._backup, self._exchange = backup, exchange
        self._doing = ConnectionState.BASE_BACKUP
        return exchange

    # What is left of it

    def __del__(self) -> None:
        # A wire that was made by half has no driver, which comes last.
        transport: Transport | None = getattr(self, "transport", None)
        if transport is None or transport.closed:
            return
        message = f"{self!r} was not closed"
        transport.close()
        # A forked child has not made the connection, and has no reason to close it.
        if not transport.owner.is_parent:
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<pgrepl.{self.connection_name} pid={self.server.pid} {self.state.value}>"
