"""Level 1 of the API, the wire: one replication connection, blocking.

Commands and one stream at a time, as the protocol has it: commands until `start_streaming`, WAL
messages until `stop_streaming` or the stream's end, then commands again.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from .base_connection import BaseConnection
from .codec import PrimaryKeepalive, WalBatch, XLogData
from .codec import codec as default_codec
from .codec.abc import Codec
from .errors import Error, UsageError
from .protocol import replication
from .protocol.backend import ServerState
from .protocol.conversation import Conversation, Exchange
from .protocol.frontend import TERMINATE
from .protocol.query import Result, simple_query
from .protocol.replication import Slot, SnapshotAction, SystemIdentity
from .session.opening import Opening, Overrides
from .session.options import Origin, Streaming
from .stream import Stream
from .token import ResumeToken
from .transport.blocking import BlockingTransport
from .transport.clock import Deadline, monotonic
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


class Connection(BaseConnection):
    """A replication connection, made by `connect`; a context manager that closes itself.

    Every method that waits takes `timeout` in seconds, None for no limit. When it runs out,
    `TimeoutError` is raised and the connection stays usable: nothing that had arrived is lost. A
    command that was cut off this way goes on at the server; its answer is awaited and dropped
    before the next command runs. Ctrl-C, or what else a signal's handler raises, leaves the
    connection usable as well if it comes while a method waits; anywhere else it closes it, so that
    nothing is lost unnoticed.
    """

    def __init__(self, transport: BlockingTransport, state: ServerState, codec: Codec) -> None:
        self._transport: BlockingTransport = transport
        super().__init__(state, codec)

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
        memory_limit: int = 64 << 20,
        timeout: float | None = None,
    ) -> Stream:
        """Stream the decoded changes of a slot that uses pgoutput.

        `start`: a position up to which everything has been dealt with, or better the token that
        `Stream.token` gave, which also tells the system; None goes on after what the slot has
        confirmed. What the server would skip without a word is an error before the first change.
        `streaming`, `two_phase`, `binary`, `messages` and `origin` are pgoutput's options;
        `proto_version` is the lowest that has what they ask for, where it is not given. `types`
        says how to decode a type, by OID or name; see docs/types.md.

        The server hears from this side every `status_interval` seconds, or a third of its
        wal_sender_timeout where that is less. After `receive_timeout` seconds of silence, None for
        any time, the connection has failed. Transactions that are streamed before they end wait in
        `memory_limit` bytes, and beyond that in a temporary file. `timeout` is for the beginning
        alone.

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
            memory_limit,
            proto_version=proto_version,
            streaming=streaming,
            two_phase=two_phase,
            binary=binary,
            messages=messages,
            origin=origin,
        )
        opened = self._command(self._open(opening), timeout)
        session = self._session(opening, opened, status_interval, receive_timeout, monotonic())
        return Stream(self, session, opened)

    def receive_wal_message(
        self, timeout: float | None = None
    ) -> XLogData | PrimaryKeepalive | None:
        """Return the next message of the stream; None: streaming has ended.

        Notices are logged under ``pgrepl.notice`` and do not show here. Raises `TimeoutError`,
        `ServerError` for an error in the stream, `ServerShutdown` where the server ends it, and
        `ProtocolError`.
        """
        try:
            message: XLogData | PrimaryKeepalive | None = next(self._messages, None)
            if message is None:
                message = self._hand_out(self._next_batch(timeout))
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
            rest: WalBatch | None = self._rest_of_batch()
            return self._next_batch(timeout) if rest is None else rest
        except Error:
            raise
        except BaseException:
            self._after_interruption()
            raise

    def _next_batch(self, timeout: float | None) -> Any:
        deadline = Deadline.after(timeout)
        if self._unfinished is not None and not self._stopping:
            self._finish(deadline)
        stream = self._streaming()
        try:
            return self._transport.next_batch(stream, deadline)
        except Error as error:
            self._after_error_in_stream(error)
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
        frame = self._status(written, flushed, applied, timestamp, reply_requested)
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
            self._begin_to_stop()
        results: list[Result] = self._finish(deadline, raising=True)
        return results

    # Conversations, and what is left of them after a time limit

    def _command(self, conversation: Conversation[_Result], timeout: float | None) -> _Result:
        deadline = Deadline.after(timeout)
        self._require_open()
        self._finish(deadline)
        if self._must_stop_first:
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
            if self._matters(error, exchange, raising):
                raise
        except BaseException:
            self._after_interruption()
            raise
        finally:
            self._leave(exchange)

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
