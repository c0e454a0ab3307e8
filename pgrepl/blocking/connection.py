"""Level 1 of the API, the wire: one replication connection, blocking.

Commands and one stream at a time, as the protocol has it: commands until `start_streaming`, WAL
messages until `stop_streaming` or the stream's end, then commands again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Literal, Self, Unpack

from ..codec import PrimaryKeepalive, WalBatch, XLogData
from ..codec import codec as default_codec
from ..codec.abc import Codec
from ..conninfo import ConninfoKeywords, resolve
from ..errors import Error
from ..protocol.preflight import OnMissing
from ..protocol.query import Result
from ..protocol.timelines import EndOfTimeline
from ..public import imported_from
from ..resume import ResumeToken
from ..session.opening import Opening, Overrides, RawOpening
from ..session.options import Origin, Streaming
from ..transport.attempts import SEARCH_ERRORS
from ..transport.blocking.connecting import open_connection
from ..transport.clock import monotonic
from ..transport.coalescing import MAX_DELAY, expect_delay
from .commands import Commands
from .raw_stream import RawStream
from .stream import Stream
from .wire import Wire

__all__ = ["Connection", "connect"]


@imported_from("pgrepl")
def connect(
    conninfo: str = "",
    *,
    replication: Literal["database", "physical"] | None = None,
    _codec: Codec = default_codec,
    **keywords: Unpack[ConninfoKeywords],
) -> Connection:
    """Connect to a server for replication.

    `conninfo` is what psql takes: a URI (``postgresql://user@host:port/dbname``) or keywords
    (``host=... dbname=...``). Keyword arguments of the same names go before it; what neither gives
    is taken from the service that is named, the PG* variables and the password file.
    ``replication="physical"`` makes a connection for raw WAL, which has no database and no SQL;
    None is what the conninfo says, or ``"database"``. docs/connecting.md has every keyword.

    Raises `UsageError` for a conninfo that makes no sense, `ConnectionFailed`, `TLSError`,
    `AuthenticationError`, or `ServerError` where the server turns the session away.
    """
    refused: BaseException | None = None
    try:
        parameters = resolve(conninfo, keywords, replication=replication)
    except BaseException as error:
        refused = error.with_traceback(None)
    # Both may hold a password, which a traceback that shows locals would print. Not deleted, since
    # tools that print arguments look for them.
    conninfo, keywords = "", {}
    if refused is not None:
        raise refused
    try:
        opened = open_connection(parameters, _codec)
    except SEARCH_ERRORS as error:
        # The inside is of no use to who is turned away.
        raise error.with_traceback(None)  # noqa: B904 (the same error: it keeps its own cause)
    try:
        return Connection(Wire(opened, _codec))
    except BaseException:
        opened.transport.close()
        raise


@imported_from("pgrepl")
class Connection(Commands):
    """A replication connection, made by `connect`; a context manager that closes itself.

    Every method that waits takes `timeout` in seconds, None for no limit. When it runs out,
    `TimeoutError` is raised and the connection stays usable: nothing that had arrived is lost. A
    command that was cut off this way goes on at the server; its answer is awaited and dropped
    before the next command runs. Ctrl-C, or what else a signal's handler raises, leaves the
    connection usable as well if it comes while a method waits; anywhere else it closes it, so that
    nothing is lost unnoticed.

    It belongs to the process that made it. In a forked child every method that talks to the server
    raises `UsageError`, and `disconnect` closes the child's descriptor alone: the parent goes on.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._in_hand = wire.in_hand

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once it is closed."""
        return self._wire.fileno()

    # The stream

    def start_streaming(
        self, sql: str, timeout: float | None = None, *, max_delay: float = MAX_DELAY
    ) -> None:
        """Run a START_REPLICATION command; on return WAL messages can be received.

        Raises `SlotNotFound`, `SlotInUse` or another `ServerError`; the connection can be used on.
        After a stream was stopped the connection takes commands and physical streams, but no
        logical one, which a server would end at once: that is a `UsageError`, and wants a new
        connection. While messages come fast, reads wait for more to come, for `max_delay` seconds
        at most; 0 for not at all.
        """
        self._wire.run(self._wire.start(sql, expect_delay(max_delay)), timeout)

    def start_physical(
        self,
        slot: str | None = None,
        *,
        start: int,
        timeline: int | None = None,
        max_delay: float = MAX_DELAY,
        timeout: float | None = None,
    ) -> None:
        """Stream raw WAL from a position on, through a physical slot or without one.

        `timeline`: the one that the position is on; without it the server streams its own. At the
        end of a timeline, at once where it ends at `start`, `receive_wal_message` gives None, and
        then `stop_physical` says where it goes on. Raises what `start_streaming` raises.
        """
        conversation = self._wire.start_physical(slot, start, timeline, expect_delay(max_delay))
        self._wire.run(conversation, timeout)

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
        on_missing_publication: OnMissing = "raise",
        types: Overrides | None = None,
        typed: bool = True,
        status_interval: float = 10.0,
        receive_timeout: float | None = 60.0,
        max_delay: float = MAX_DELAY,
        memory_limit: int = 64 << 20,
        until: int | Literal["now"] | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Stream the decoded changes of a slot that uses pgoutput.

        `start`: a position up to which everything has been dealt with, or better the token that
        `Stream.token` gave, which also tells the system; None goes on after what the slot has
        confirmed. What the server would skip without a word is an error before the first change;
        where a position lies before what the slot has confirmed, a warning tells where the stream
        begins, and so does `Stream.start`. `on_missing_publication` "warn" goes on where a
        publication does not exist any more, for what the slot still has of it: from PostgreSQL 18
        on changes behind its end are left out, before that the first one ends the stream with
        `PublicationNotFound`.
        `streaming`, `two_phase`, `binary`, `messages` and `origin` are pgoutput's options;
        `proto_version` is the lowest that has what they ask for, where it is not given. `types`
        says how to decode a type, by OID or name, see docs/types.md; with ``typed=False`` values
        stay what the server sent: `str`, or `bytes` of a column in binary.

        The server hears from this side every `status_interval` seconds, or a third of its
        wal_sender_timeout where that is less. After `receive_timeout` seconds of silence, None for
        any time, the connection has failed. While messages come fast, reads wait for more to come,
        for `max_delay` seconds at most; with 0 they do not: docs/streams.md. Transactions that are
        streamed before they end wait in `memory_limit` bytes, and beyond that in a temporary file.
        `timeout` is for the beginning alone.

        `until`: iterating over transactions or batches ends by itself behind the last transaction
        that was committed up to there, ``"now"`` for where the server's WAL ends as the stream
        begins: docs/streams.md. What came later is neither given nor acknowledged.

        Raises `UsageError` for options that make no sense or that the server is too old for,
        `SlotNotFound`, `SlotInUse`, `SlotInvalidated`, `SlotGap` where the slot no longer has what
        comes after a token, or the server does not have what `start` says yet, `SystemMismatch`,
        `PublicationNotFound`, and what `start_streaming` raises.
        """
        expect_delay(max_delay)
        opening = Opening.of(
            slot,
            publications,
            start,
            types,
            memory_limit,
            typed,
            on_missing_publication,
            until,
            proto_version=proto_version,
            streaming=streaming,
            two_phase=two_phase,
            binary=binary,
            messages=messages,
            origin=origin,
        )
        wire = self._wire
        opened = wire.run(wire.open(opening, max_delay), timeout)
        checked = opened.checked
        session = wire.session(opening, checked, status_interval, receive_timeout, monotonic())
        return Stream(wire, session, opened)

    def stream_raw(
        self,
        slot: str,
        *,
        options: Mapping[str, str | None] | None = None,
        start: int | ResumeToken | None = None,
        status_interval: float = 10.0,
        receive_timeout: float | None = 60.0,
        max_delay: float = MAX_DELAY,
        timeout: float | None = None,
    ) -> RawStream:
        """Stream a logical slot undecoded, whatever its plugin: wal2json, test_decoding, pgoutput.

        `options` are the plugin's own, by name; None for one without a value. All else is as for
        `stream`: feedback goes on by itself, what was not acknowledged comes again. The slot is
        checked before; publications, which are one plugin's options, are not.
        """
        expect_delay(max_delay)
        opening = RawOpening.of(slot, options, start)
        wire = self._wire
        checked = wire.run(wire.open_raw(opening, max_delay), timeout)
        session = wire.session(opening, checked, status_interval, receive_timeout, monotonic())
        return RawStream(wire, session, checked)

    def receive_wal_message(
        self, timeout: float | None = None
    ) -> XLogData | PrimaryKeepalive | None:
        """Return the next message of the stream; None: streaming has ended.

        Notices are logged under ``pgrepl.notice`` and do not show here. Raises `TimeoutError`,
        `ServerError` for an error in the stream, `ServerShutdown` where the server ends it, and
        `ProtocolError`.
        """
        try:
            message: XLogData | PrimaryKeepalive | None = next(self._in_hand.messages, None)
            if message is None:
                message = self._in_hand.begin(self._wire.next_batch(timeout))
            return message
        except Error:
            raise
        except BaseException:
            self._wire.close_unless_nothing_was_lost()
            raise

    def receive_wal_messages(self, timeout: float | None = None) -> WalBatch:
        """Return all messages that one read brought, in order; empty: streaming has ended.

        Begins with what `receive_wal_message` left over, if anything. Raises what that one raises.
        """
        try:
            rest: WalBatch | None = self._in_hand.take_rest()
            return self._wire.next_batch(timeout) if rest is None else rest
        except Error:
            raise
        except BaseException:
            self._wire.close_unless_nothing_was_lost()
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
        durable. Positions never exceed what was received, or the start of `start_physical`, and
        never go back: what would is reported as the nearest position that does not. `timestamp` in
        microseconds since 2000-01-01 00:00 UTC, now by default; `reply_requested` asks for a
        keepalive at once.
        """
        status = self._wire.status(written, flushed, applied, timestamp, reply_requested)
        self._wire.send(status, timeout)

    def send_hot_standby_feedback(
        self,
        xmin: int,
        catalog_xmin: int = 0,
        timestamp: int | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Tell the server which rows a standby still needs, as its vacuum would remove them.

        The oldest transactions that rows, and those of catalogues, are needed for: 64 bits, as
        ``pg_snapshot_xmin`` gives them, with the epoch in the upper half; 0 for none, which takes
        back what was said. The server ignores ids that are not of its current epoch or the one
        before. `timestamp` as for `send_standby_status`. For physical streams alone, from any
        thread.
        """
        feedback = self._wire.hot_standby_feedback(xmin, catalog_xmin, timestamp)
        self._wire.send(feedback, timeout)

    def stop_streaming(self, timeout: float | None = None) -> list[Result]:
        """End the stream and return to commands; discards what the server still sends.

        That can be much: the server sends the rest of the transaction that it is decoding. Returns
        the results that end the stream; at the end of a timeline they tell the next one. After a
        `TimeoutError`, call it again to go on, or `disconnect`. Raises `UsageError` where a
        `Stream` or `RawStream` is on, which its own `stop` ends.
        """
        self._wire.expect_stream_by_hand()
        return self._wire.stop_streaming(timeout)

    def stop_physical(self, timeout: float | None = None) -> EndOfTimeline | None:
        """End a physical stream and return to commands; say whether its timeline has ended.

        None: it goes on, the stream was ended from this side alone. Raises `ProtocolError` for a
        next timeline that is not a later one; else it does what `stop_streaming` does.
        """
        return self._wire.stop_physical(timeout)

    def cancel(self, timeout: float | None = None) -> None:
        """Ask the server to cancel the command or the stream that is under way. From any thread.

        The request goes by a connection of its own, to the same address and with TLS where this one
        has it. Whoever waits for the command or the stream gets a `ServerError` with SQLSTATE
        57014, after which the connection can be used on; if the server was done before, nothing
        happens. Also when this connection is closed, after Ctrl-C perhaps: a server that is at work
        does not notice that. `timeout` in seconds is connect_timeout by default. Raises
        `UsageError` where the server gave no key to cancel with, `ConnectionFailed`, `TLSError` or
        `TimeoutError`.
        """
        self._wire.cancel(timeout)

    def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting. Safe to call again."""
        self._wire.disconnect()

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
