"""Level 1 of the API, the wire: one replication connection, blocking.

Commands and one stream at a time, as the protocol has it: commands until `start_streaming`, WAL
messages until `stop_streaming` or the stream's end, then commands again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self, TypeVar

from .codec import PrimaryKeepalive, WalBatch, XLogData
from .codec import codec as default_codec
from .codec.abc import Codec
from .errors import Error, ServerError, UsageError
from .protocol import replication
from .protocol.backend import ServerState
from .protocol.conversation import Conversation, Exchange
from .protocol.frontend import TERMINATE
from .protocol.query import Result, drain, simple_query
from .protocol.replication import Slot, SnapshotAction, SystemIdentity
from .session.opening import Opening, Overrides
from .session.options import Origin, Streaming
from .session.session import Session
from .session.wal_stream import StreamState, WalStream
from .stream import Stream
from .token import ResumeToken
from .transport.blocking import BlockingTransport
from .transport.clock import Deadline, monotonic, now_microseconds
from .transport.connecting import open_connection
from .transport.conninfo import resolve

__all__ = ["Connection", "connect"]

_Result = TypeVar("_Result")


def connect(
    conninfo: str = "",
    *,
    replication: Literal["database", "physical"] = "database",
    _codec: Codec = default_codec,
    **keywords: Any,
) -> Connection:
    """Connect to a server for replication.

    `conninfo` is a URI (``postgresql://user@host:port/dbname``) or keywords (``host=...
    dbname=...``); keyword arguments of the same names go before it, and the variables PGHOST,
    PGPORT, PGUSER, PGPASSWORD, PGDATABASE and PGSSLMODE behind it. Known are host (a name, an
    address or the folder of a Unix socket), port, user, password, dbname, sslmode (disable, prefer,
    require, verify-ca, verify-full), sslrootcert, connect_timeout (seconds), application_name and
    options. ``replication="physical"`` makes a connection for raw WAL, which has no database and no
    SQL.

    Raises `UsageError` for a conninfo that makes no sense, `ConnectionFailed`, `TLSError`,
    `AuthenticationError`, or `ServerError` where the server turns the session away.
    """
    refused: UsageError | None = None
    try:
        parameters = resolve(conninfo, keywords, replication=replication)
    except UsageError as error:
        refused = UsageError(*error.args)
    # Both may hold a password, which a traceback that shows locals would print.
    del conninfo, keywords
    if refused is not None:
        raise refused
    transport, state = open_connection(parameters, _codec)
    return Connection(transport, state, _codec)


class Connection:
    """A replication connection, made by `connect`; a context manager that closes itself.

    Every method that waits takes `timeout` in seconds, None for no limit. When it runs out,
    `TimeoutError` is raised and the connection stays usable: nothing that had arrived is lost. A
    command that was cut off this way goes on at the server; its answer is awaited and dropped
    before the next command runs. Ctrl-C, or what else a signal's handler raises, leaves the
    connection usable as well if it comes while a method waits; anywhere else it closes it, so that
    nothing is lost unnoticed.
    """

    def __init__(self, transport: BlockingTransport, state: ServerState, codec: Codec) -> None:
        self._transport = transport
        self._state = state
        self._codec = codec
        self._stream: WalStream | None = None
        # The batch that receive_wal_message() hands out, and how far it has come.
        self._batch: WalBatch = _empty_batch(codec)
        self._messages: Iterator[XLogData | PrimaryKeepalive] = iter(())
        self._taken = 0
        # A conversation that a time limit cut off.
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

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once it is closed."""
        return self._transport.socket.fileno()

    # Commands

    def query(self, sql: str, timeout: float | None = None) -> list[Result]:
        """Run SQL or a replication command by the simple protocol; a `Result` for each statement.

        Values come as the server's text, NULL as None. Raises `ServerError` when the whole answer
        was read, so that the next command works; `UsageError` for COPY and START_REPLICATION.
        """
        return self._command(simple_query(self._state, sql), timeout)

    def identify_system(self, timeout: float | None = None) -> SystemIdentity:
        """Return the system identifier, timeline, WAL position and database."""
        return self._command(replication.identify_system(self._state), timeout)

    def show(self, name: str, timeout: float | None = None) -> str:
        """Return the value of a server setting, as text with its unit."""
        return self._command(replication.show(self._state, name), timeout)

    def create_logical_slot(
        self,
        name: str,
        plugin: str = "pgoutput",
        *,
        temporary: bool = False,
        snapshot: SnapshotAction = "nothing",
        two_phase: bool = False,
        failover: bool = False,
        timeout: float | None = None,
    ) -> Slot:
        """Create a logical replication slot.

        The server waits for the transactions that are running now. An exported snapshot lives until
        the next command; ``snapshot="use"`` needs a transaction. Raises `UsageError` where the
        server is too old for an option: `two_phase` needs 15, `failover` 17.
        """
        return self._command(
            replication.create_logical_slot(
                self._state,
                name,
                plugin,
                temporary=temporary,
                snapshot=snapshot,
                two_phase=two_phase,
                failover=failover,
            ),
            timeout,
        )

    def drop_slot(self, name: str, *, wait: bool = False, timeout: float | None = None) -> None:
        """Drop a replication slot; with `wait`, after whoever uses it has left.

        Raises `SlotNotFound`, or `SlotInUse` with the process that holds it.
        """
        self._command(replication.drop_slot(self._state, name, wait), timeout)

    # The stream

    def start_streaming(self, sql: str, timeout: float | None = None) -> None:
        """Run a START_REPLICATION command; on return WAL messages can be received.

        Raises `SlotNotFound`, `SlotInUse` or another `ServerError`; the connection can be used on.
        After a stream was stopped the connection takes commands and physical streams, but no
        logical one, which a server would end at once: that is a `UsageError`, and wants a new
        connection.
        """
        self._command(self._start(sql), timeout)

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

    def stream(
        self,
        slot: str,
        *,
        publications: Iterable[str],
        start: int | ResumeToken | None = None,
        proto_version: int | None = None,
        streaming: Streaming = "off",
        two_phase: bool = False,
        binary: bool = False,
        messages: bool = False,
        origin: Origin = "any",
        types: Overrides | None = None,
        status_interval: float = 10.0,
        receive_timeout: float | None = 60.0,
        timeout: float | None = None,
    ) -> Stream:
        """Stream the decoded changes of a slot that uses pgoutput.

        `start`: a position up to which everything has been dealt with, or better the token that
        `Stream.token` gave, which also tells the system; None goes on after what the slot has
        confirmed. What the server would skip without a word is an error before the first change.
        `streaming`, `two_phase`, `binary`, `messages` and `origin` are
        pgoutput's options; `proto_version` is the lowest that has what they ask for, where it is
        not given. `types` says how to decode a type, by OID or name; see docs/types.md.

        The server hears from this side every `status_interval` seconds, or a third of its
        wal_sender_timeout where that is less. After `receive_timeout` seconds of silence, None for
        any time, the connection has failed. `timeout` is for the beginning alone.

        Raises `UsageError` for options that make no sense or that the server is too old for,
        `SlotNotFound`, `SlotInUse`, `SlotInvalidated`, `SlotGap` where the slot no longer has what
        comes after `start`, `SystemMismatch`, `PublicationNotFound`, and what `start_streaming`
        raises.
        """
        opening = Opening.of(
            slot,
            publications,
            start,
            types,
            proto_version=proto_version,
            streaming=streaming,
            two_phase=two_phase,
            binary=binary,
            messages=messages,
            origin=origin,
        )
        opened = self._command(opening.conversation(self._state, self._codec, self._start), timeout)
        session = Session(
            self._codec,
            self._streaming().positions,
            status_interval=status_interval,
            sender_timeout=opened.checked.wal_sender_timeout,
            receive_timeout=receive_timeout,
            now=monotonic(),
        )
        session.positions.automatic = not isinstance(start, ResumeToken)
        return Stream(self, session, opened, opening.handled)

    def receive_wal_message(
        self, timeout: float | None = None
    ) -> XLogData | PrimaryKeepalive | None:
        """Return the next message of the stream; None: streaming has ended.

        Notices are logged under ``pgrepl.notice`` and do not show here. Raises `TimeoutError`,
        `ServerError` for an error in the stream, `ServerShutdown` where the server ends it, and
        `ProtocolError`.
        """
        try:
            message = next(self._messages, None)
            if message is None:
                self._batch = self._next_batch(timeout)
                self._taken = 0
                self._messages = iter(self._batch)
                message = next(self._messages, None)
            self._taken += 1
            return message
        except Error:
            raise
        except BaseException:
            self._after_interruption()
            raise

    def receive_wal_messages(self, timeout: float | None = None) -> WalBatch:
        """Return all messages that one read brought, in order; empty: streaming has ended.

        Begins with what `receive_wal_message` left over, if anything. Raises what that one raises.
        """
        try:
            if self._taken < len(self._batch):
                rest = self._batch.tail(self._taken)
                self._forget_batch()
                return rest
            batch: WalBatch = self._next_batch(timeout)
            return batch
        except Error:
            raise
        except BaseException:
            self._after_interruption()
            raise

    def _next_batch(self, timeout: float | None) -> Any:
        # Any: a `WalBatch` of the twin in use, which the rooms below know by its contract alone.
        deadline = Deadline.after(timeout)
        if self._unfinished is not None and not self._stopping:
            self._finish(deadline)
        stream = self._streaming()
        try:
            return self._transport.next_batch(stream, deadline)
        except Error as error:
            self._after(error)
            if isinstance(error, ServerError):
                self._stream = None
                self._forget_batch()
                if not self.closed:
                    self._unfinished = Exchange(drain(self._state))
            raise

    def send_standby_status(
        self,
        written: int,
        flushed: int,
        applied: int,
        timestamp: int | None = None,
        reply_requested: bool = False,
        *,
        timeout: float | None = None,
    ) -> None:
        """Tell the server which positions were written, flushed and applied. From any thread.

        The flushed one lets the server forget: report a transaction's ``end_lsn`` when it is
        durable. Positions never exceed what was received and never go back: what would is reported
        as the nearest position that does not. `timestamp` in microseconds since 2000-01-01 00:00
        UTC, now by default; `reply_requested` asks for a keepalive at once.
        """
        report = self._streaming().positions.report(written, flushed, applied)
        moment = now_microseconds() if timestamp is None else timestamp
        frame = self._codec.standby_status(*report, moment, reply_requested)
        # After a failure the connection is left open for receiving: what the server said before it
        # closed, and why it did, may still be there to be read.
        self._transport.send(frame, Deadline.after(timeout))

    def stop_streaming(self, timeout: float | None = None) -> list[Result]:
        """End the stream and return to commands; discards what the server still sends.

        That can be much: the server sends the rest of the transaction that it is decoding. Returns
        the results that end the stream; at the end of a timeline they tell the next one. After a
        `TimeoutError`, call it again to go on, or `disconnect`.
        """
        deadline = Deadline.after(timeout)
        if not self._stopping:
            self._finish(deadline)
            # Before anything changes: the stream may be somebody else's to read.
            self._transport.expect_no_reader()
            self._unfinished = Exchange(self._streaming().stop())
            self._stopping = True
            # At once: whatever becomes of it, the server has been told.
            self._state.has_stopped_stream = True
            self._stream = None
            self._forget_batch()
        results: list[Result] = self._finish(deadline, raising=True)
        return results

    def _forget_batch(self) -> None:
        self._batch = _empty_batch(self._codec)
        self._messages = iter(())
        self._taken = 0

    def _require_open(self) -> None:
        if self.closed:
            raise UsageError("expected an open connection, this one is closed")

    def _streaming(self) -> WalStream:
        self._require_open()
        if self._stream is None:
            raise UsageError("expected a stream that was started; call start_streaming() first")
        return self._stream

    # Conversations, and what is left of them after a time limit

    def _command(self, conversation: Conversation[_Result], timeout: float | None) -> _Result:
        deadline = Deadline.after(timeout)
        self._require_open()
        self._finish(deadline)
        if self._stream is not None:
            if self._stream.state is not StreamState.ENDED:
                raise UsageError("expected no stream to be on; call stop_streaming() first")
            self.stop_streaming(deadline.left())
        self._unfinished = Exchange(conversation)
        result: _Result = self._finish(deadline, raising=True)
        return result

    def _finish(self, deadline: Deadline, raising: bool = False) -> Any:
        """Run the unfinished conversation to its end; an error of one that was cut off is
        dropped."""
        exchange = self._unfinished
        if exchange is None:
            return None
        try:
            return self._transport.run(exchange, deadline)
        except Error as error:
            self._after(error)
            # What a command that was cut off came to is of no interest to the next one.
            if raising or self.closed or exchange.request is not None:
                raise
        except BaseException:
            self._after_interruption()
            raise
        finally:
            if exchange.request is None:
                self._unfinished = None
                self._stopping = False

    def _after(self, error: Error) -> None:
        """Close the connection after an error that leaves it in no known state."""
        fatal = isinstance(error, ServerError) and error.severity != "ERROR"
        if fatal or not isinstance(error, ServerError | UsageError):
            self._transport.close()

    def _after_interruption(self) -> None:
        """Close the connection if an exception from outside may have cost a message."""
        if not self._transport.was_waiting:
            self._transport.close()

    def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting. Safe to call again."""
        if not self.closed:
            self._transport.send_last(TERMINATE)
            self._transport.close()

    close = disconnect

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()

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
        return f"<pgrepl.Connection pid={self.pid} {status}>"


def _empty_batch(codec: Codec) -> Any:
    return codec.WalBatch()
