"""``pgrepl stream``: the changes of a slot into a file or on standard output.

Law: the server is never told of more than the output has. What is durable there is not asked for a
second time, also not after a connection was lost; so a new one goes on where the output stands.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

from ...blocking.connection import Connection
from ...client.delivery import StreamEvent
from ...errors import Error, SlotExists, SlotNotFound
from ...escapes import printable
from ...lsn import Lsn
from ...protocol.preflight import OnMissing
from ...protocol.sql import literal
from ...resume import ResumeToken
from ...session.options import Origin, Streaming
from ...session.options import StreamOptions as PluginOptions
from ..connections import ask, cancelled_by_signals, opened
from ..delivering.delivery import Delivery
from ..delivering.output import Output
from ..delivering.source import DecodedSource, RawSource, Source
from ..failure import BROKEN_PIPE, CommandFailed
from ..interruption import Interrupted, Interruption
from ..printing import print_notice
from ..slots.as_asked import require_as_asked
from ..unfinished import cut_back, is_appended_to
from ..wording import DROPPING, advised, in_programs_words
from .formats import JsonFormat, TextFormat, may_be_line
from .retelling import Retelling

__all__ = ["StreamOptions", "drop_slot", "stream"]

_LOGICAL_MESSAGES: Final = 140000
_PAUSES: Final = (0.5, 1.0, 2.0, 5.0)
"""Seconds before each attempt to connect again; the last one counts for all that follow."""
_LAST_WORDS: Final = 0.2
"""Seconds that the server gets to take in the last report before the stream is ended."""
_ENDING: Final = 1.0
"""Seconds that it then gets to end it; it sends the rest of a large transaction first."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What to stream, how to show it, and where to.

    `start`: None goes on after what the slot has confirmed. `end`: stop there, see `RawSource`.
    `path`: None is standard output. `plugin_options`: of the plugin, for the format ``raw`` alone.
    Intervals in seconds; an `fsync_interval` of 0 takes what is written for durable.
    """

    slot: str
    publications: tuple[str, ...] = ()
    plugin: str = "pgoutput"
    plugin_options: Mapping[str, str | None] = field(default_factory=dict)
    format: Literal["text", "json", "raw"] = "text"
    start: Lsn | None = None
    end: Lsn | None = None
    path: Path | None = None
    create_slot: bool = False
    if_not_exists: bool = False
    temporary: bool = False
    two_phase: bool = False
    failover: bool = False
    streaming: Streaming = "off"
    binary: bool = False
    origin: Origin = "any"
    on_missing_publication: OnMissing = "raise"
    loops: bool = True
    fsync_interval: float = 10.0
    status_interval: float = 10.0
    verbose: bool = False


def stream(conninfo: str, options: StreamOptions) -> int:
    """Stream to the output; return the exit status.

    Raises `CommandFailed`, `pgrepl.Error`, and `OSError` of standard output.
    """
    output = _open_output(options)
    try:
        with Interruption(hangup=options.path is not None) as interruption:
            return _Run(conninfo, options, output, interruption).run()
    finally:
        output.close()


def drop_slot(conninfo: str, slot: str) -> int:
    """Drop a slot; return the exit status. Raises `CommandFailed` and `pgrepl.Error`."""
    with opened(conninfo) as connection, advised(DROPPING):
        connection.drop_slot(slot)
    return 0


def _open_output(options: StreamOptions) -> Output:
    syncs = options.fsync_interval > 0
    mend = partial(
        cut_back,
        name="standard output" if options.path is None else str(options.path),
        # Of messages as they are nobody knows where they begin and what they look like.
        is_ours=(lambda _: True) if options.format == "raw" else may_be_line,
        say=print_notice,
    )
    if options.path is not None:
        try:
            return Output.of(options.path, syncs=syncs, mend=mend)
        except OSError as error:
            raise _output_failure(options.path, error) from error
    if sys.stdout is None:
        raise CommandFailed("expected an open standard output, it is closed")
    descriptor = sys.stdout.fileno()
    if is_appended_to(descriptor):
        mend(descriptor)
    return Output(descriptor, syncs=syncs)


def _output_failure(path: Path, error: OSError) -> CommandFailed:
    return CommandFailed(
        f"the output {printable(str(path))} cannot be written: {error.strerror or error}; nothing "
        "is acknowledged that is not in it: mend that and run this again, it goes on from there"
    )


class _Run:
    """One stream, over as many connections as it takes."""

    def __init__(
        self, conninfo: str, options: StreamOptions, output: Output, interruption: Interruption
    ) -> None:
        self._conninfo = conninfo
        self._options = options
        self._output = output
        self._interruption = interruption
        self._start: Lsn | ResumeToken | None = options.start
        self._creates = options.create_slot or options.temporary
        self._retelling = Retelling(
            JsonFormat() if options.format == "json" else TextFormat(), options.streaming == "off"
        )
        self._connected = False
        self._has_begun = False
        self._failures = 0  # one after the other

    def run(self) -> int:
        while True:
            try:
                self._stream_once()
                return 0
            except Interrupted:
                return 0 if self._connected else self._interruption.exit_status
            except BrokenPipeError:
                return BROKEN_PIPE
            except OSError as error:
                if self._options.path is None:
                    raise
                raise _output_failure(self._options.path, error) from error
            except Error as error:
                if not self._goes_on_after(error):
                    raise
                pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
                self._failures += 1
                said = in_programs_words(str(error))
                print_notice(f"{said}; connecting again in {pause:g} s")
            if self._interruption.pause(pause):
                return 0

    def _goes_on_after(self, error: Error) -> bool:
        # What the very first stream does not begin for, somebody should see: a slot in use, too.
        loops = self._options.loops and not self._options.temporary
        return loops and self._has_begun and error.retryable

    def _stream_once(self) -> None:
        """Stream over one connection, to the end, a signal or an error."""
        with self._interruption.raising():
            connection = opened(self._conninfo)
        with connection:
            self._connected = True
            with self._interruption.raising():
                source, token = self._begin_stream(connection)
            delivery = Delivery(
                source, self._output, self._interruption, self._options.fsync_interval
            )
            try:
                self._deliver(source, delivery)
            finally:
                flushed = source.stream.stats().flushed
                position = max(Lsn(self._output.durable), flushed, token.end_lsn)
                self._start = ResumeToken(token.systemid, token.timeline, position, 0)

    def _deliver(self, source: Source, delivery: Delivery) -> None:
        try:
            delivery.run()
        except Error:
            # What has come is written, so that it need not come again.
            delivery.write_out()
            self._output.sync()
            raise
        except OSError:
            self._output.take_back()
            self._end_stream(source, delivery)
            raise
        self._failures = 0
        self._end_stream(source, delivery)

    def _end_stream(self, source: Source, delivery: Delivery) -> None:
        delivery.finish()
        if source.taken:
            # A server that can send does not look for messages. Once it is stuck, with nobody
            # reading, it does, and takes in the last report.
            time.sleep(_LAST_WORDS)
        source.stream.stop(_ENDING)

    # How it begins

    def _begin_stream(self, connection: Connection) -> tuple[Source, ResumeToken]:
        """Start the stream; return it, and what to begin with on the next connection."""
        options = self._options
        system = connection.identify_system()
        if self._creates:
            _create_slot(connection, options)
            self._creates = False
        try:
            source = (
                self._raw_source(connection)
                if options.format == "raw"
                else self._decoded_source(connection)
            )
        except SlotNotFound as error:
            raise CommandFailed(f"{error}; --create-slot makes it") from None
        self._has_begun = True
        self._failures = 0
        start = source.stream.start
        if options.verbose:
            print_notice(
                f"streaming from slot {options.slot} of system {system.systemid} at {start}"
            )
        return source, ResumeToken(system.systemid, system.timeline, Lsn(start), 0)

    def _decoded_source(self, connection: Connection) -> Source:
        options = self._options
        stream = connection.stream(
            options.slot,
            publications=options.publications,
            start=self._start,
            streaming=options.streaming,
            two_phase=options.two_phase,
            binary=options.binary,
            origin=options.origin,
            on_missing_publication=options.on_missing_publication,
            messages=connection.server_version >= _LOGICAL_MESSAGES,
            typed=False,
            status_interval=options.status_interval,
        )
        self._retelling.begin()
        return DecodedSource(stream, self._put_event)

    def _put_event(self, event: StreamEvent) -> bool:
        end = self._options.end
        if event.message is None:
            self._output.put(None, event.position)
            return end is not None and event.lsn >= end
        line = self._retelling.line(event.message, event)
        if end is not None and event.lsn > end:
            return True
        self._output.put(line, event.position)
        return event.lsn == end

    def _raw_source(self, connection: Connection) -> Source:
        options = self._options
        plugin_options = dict(options.plugin_options)
        if options.publications:
            chosen = PluginOptions.of(
                options.publications,
                streaming=options.streaming,
                two_phase=options.two_phase,
                binary=options.binary,
                origin=options.origin,
            )
            plugin_options = {**chosen.plugin_options(connection.server_version), **plugin_options}
        stream = connection.stream_raw(
            options.slot,
            options=plugin_options,
            start=self._start,
            status_interval=options.status_interval,
        )
        return RawSource(stream, self._output, options.end)


def _create_slot(connection: Connection, options: StreamOptions) -> None:
    # Before the slot is made, which would stay behind when the publication turns out to be missing.
    _require_publications(connection, options.publications)
    try:
        with cancelled_by_signals(connection):
            made = connection.create_logical_slot(
                options.slot,
                options.plugin,
                temporary=options.temporary,
                two_phase=options.two_phase,
                failover=options.failover,
                if_not_exists=options.if_not_exists,
            )
    except SlotExists as error:
        if options.if_not_exists:
            raise
        if options.temporary:
            advice = "give --temporary a slot of another name, or leave it out"
        else:
            advice = "leave out --create-slot to stream from it"
        raise CommandFailed(f"{error}; {advice}") from None
    if not made.created:
        # What pgoutput is told of prepared transactions a slot takes on when it is read.
        two_phase = options.two_phase and not options.publications
        require_as_asked(connection, options.slot, two_phase=two_phase, failover=options.failover)
    elif options.verbose:
        print_notice(f"created the slot {options.slot}")


def _require_publications(connection: Connection, names: Iterable[str]) -> None:
    for name in names:
        found = ask(
            connection,
            "SELECT pubname FROM pg_catalog.pg_publication WHERE pubname::pg_catalog.text"
            f" OPERATOR(pg_catalog.=) {literal(name)}::pg_catalog.text",
        )
        if not found:
            raise CommandFailed(
                f"expected the publication {name!r}, which this database does not have; "
                "create it first, with CREATE PUBLICATION"
            )
