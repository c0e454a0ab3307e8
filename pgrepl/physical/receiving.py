"""Receiving WAL, as one conversation: with a server, and with the thread that works on files.

Law: nothing here waits, or touches a socket, a file or a clock. It yields what it wants, `Ask` of
the connection or `Store` of the disk, and is given what came of it, so that both flavours and the
tests drive the same.

What is reported as written is with the operating system, what is reported as flushed is durable by
its own name or as the beginning of a ``.partial`` file. A segment is flushed at its end; in the
middle of one when the server asks for an answer, since one that shuts down waits for that; after
every read where it is to be synchronous; and at the end.

Source: PostgreSQL documentation, "Streaming Replication Protocol" and `pg_receivewal`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from ..errors import (
    ConnectionFailed,
    Error,
    ProtocolError,
    ServerError,
    SystemMismatch,
    UsageError,
    WalStorageError,
)
from ..lsn import Lsn, encode_lsn
from ..protocol.replication import SystemIdentity
from ..protocol.timelines import EndOfTimeline
from ..public import imported_from
from ..transport.coalescing import MAX_DELAY
from .abc import Directory
from .compression import Compression
from .resuming import Found, survey
from .segments import SegmentSize
from .settings import file_mode, seconds
from .writer import ReceivedSegment, WalWriter, storing

__all__ = ["Ask", "OpenDirectory", "Options", "ReceivedWal", "Receiver", "Receiving", "Store"]

_Result = TypeVar("_Result")

_STOP_CHECKED: Final = 0.2  # seconds between two looks at `stop`, where there is one
_SEND_TIMEOUT: Final = 5.0
_READ_SLOT: Final = 150000
_UNKNOWN_SETTING: Final = "42704"


@dataclass(frozen=True, slots=True)
class Ask:
    """Call a method of the connection; the answer is what it returns, or what it raises."""

    call: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Store:
    """Work on files, which may take long: meanwhile statuses are to be sent as they are due."""

    work: Callable[[], Any]


Receiving: TypeAlias = Generator[Ask | Store, Any, _Result]


class OpenDirectory(Protocol):
    """Opens the directory; `mode`: of new files."""

    def __call__(self, *, mode: int) -> Directory: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; see `receive_wal`."""

    slot: str | None
    start: int | None
    end: int | None
    timeline: int | None
    synchronous: bool
    fsync: bool
    status_interval: float
    receive_timeout: float | None
    compression: Compression | None
    stop: Callable[[], bool] | None
    on_start: Callable[[int, Lsn], object] | None
    on_segment: Callable[[ReceivedSegment], object] | None

    def __post_init__(self) -> None:
        for name, limit in (
            ("status_interval", self.status_interval),
            ("receive_timeout", self.receive_timeout),
        ):
            if limit is not None and not limit > 0:
                raise UsageError(f"expected a {name} above 0 seconds, got {limit!r}")
        if self.synchronous and not self.fsync:
            raise UsageError(
                "expected fsync where it is to be synchronous: nothing else makes it so"
            )
        if self.compression is not None:
            self.compression.compressor(1 << 20)  # there is one, or this says what is missing
        if self.timeline is not None and self.start is None:
            raise UsageError("expected a start where a timeline is given: it is a position on it")


@imported_from("pgrepl.physical")
@dataclass(frozen=True, slots=True)
class ReceivedWal:
    """What was received, up to where: all before `position`, of `timeline` at last, is durable.

    `start`: where receiving began; `segments`: how many were completed.
    """

    timeline: int
    start: Lsn
    position: Lsn
    segments: int


class Receiver:
    """One run: the conversation, and what a driver needs while it waits for the disk."""

    def __init__(
        self, options: Options, open_directory: OpenDirectory, clock: Callable[[], float]
    ) -> None:
        self._options = options
        self._open_directory = open_directory
        self._clock = clock
        self._writer: WalWriter | None = None
        self._interval = options.status_interval
        self._status_at = math.inf
        self._waits_since = 0.0
        self._asked = False
        self.streaming = False
        """Whether a stream is on, which nobody could go on with if this is cut off."""

    # For the driver

    @property
    def status_due_in(self) -> float | None:
        """For how many seconds at most to wait for the disk; None: for any time."""
        return max(self._status_at - self._clock(), 0.0) if self._status_at < math.inf else None

    def heartbeat(self) -> Ask:
        """Return the status that is due."""
        return self._next_status()

    def release(self) -> None:
        """Let go of all files. To be called at the end, whatever that was."""
        if self._writer is not None:
            self._writer.close()

    # The conversation

    def run(self, server_version: int) -> Receiving[ReceivedWal]:
        """Receive until there is an end."""
        size = SegmentSize.of_setting((yield _show("wal_segment_size")))
        mode = yield from _file_mode()
        timeout = seconds("wal_sender_timeout", (yield _show("wal_sender_timeout")))
        if timeout:
            self._interval = min(self._interval, timeout / 3)
        system: SystemIdentity = yield Ask(methodcaller("identify_system"))
        writer, found = yield Store(partial(self._open_and_survey, size, mode))
        _check_system(found, system)
        writer.begin(*(yield from self._where_to_begin(found, system, server_version)))
        start = Lsn(writer.position)
        histories = set(found.histories)
        while not (writer.reached_end or self._must_stop()):
            if writer.timeline > 1 and writer.timeline not in histories:
                yield from _fetch_history(writer)
                histories.add(writer.timeline)
            ended = yield from self._receive_timeline(writer)
            if ended is None:
                break
            writer.begin(ended.next_timeline, ended.start)
        return ReceivedWal(writer.timeline, start, Lsn(writer.position), writer.segments)

    def _open_and_survey(self, size: SegmentSize, mode: int) -> tuple[WalWriter, Found]:
        directory = _open_explained(self._open_directory, mode)
        options = self._options
        self._writer = writer = WalWriter(
            directory,
            size,
            compression=options.compression,
            end=options.end,
            on_segment=options.on_segment,
        )
        with storing("read what is there", directory.path):
            return writer, survey(directory, size)

    def _where_to_begin(
        self, found: Found, system: SystemIdentity, server_version: int
    ) -> Receiving[tuple[int, int]]:
        """Say on which timeline and where to begin: by the disk, the caller, the slot, the
        server."""
        options = self._options
        if found.position is not None:
            return found.timeline, found.position
        if options.start is not None:
            return options.timeline or system.timeline, options.start
        if options.slot is not None and server_version >= _READ_SLOT:
            slot = yield Ask(methodcaller("read_slot", options.slot))
            if slot is not None and slot.restart_lsn is not None:
                return slot.restart_tli or system.timeline, slot.restart_lsn
        return system.timeline, system.xlogpos

    def _receive_timeline(self, writer: WalWriter) -> Receiving[EndOfTimeline | None]:
        """Receive one timeline; None: until there was no need to go on."""
        yield Ask(
            methodcaller(
                "start_physical",
                self._options.slot,
                start=writer.position,
                timeline=writer.timeline,
                # Somebody's commit waits for what is synchronous.
                max_delay=0.0 if self._options.synchronous else MAX_DELAY,
            )
        )
        self.streaming = True
        try:
            ended = yield from self._receive_stream(writer)
        except Error as error:
            if not isinstance(error, WalStorageError):
                # The server may be gone for good, and these the last bytes that there are of it.
                with contextlib.suppress(WalStorageError):
                    yield Store(writer.leave_segment)
            raise
        self.streaming = False
        return ended

    def _receive_stream(self, writer: WalWriter) -> Receiving[EndOfTimeline | None]:
        start = writer.position
        batch = yield from self._beginning_of_stream(writer)
        while not writer.reached_end:
            if batch is None:
                batch = yield from self._next_batch()
            if batch is None:
                break
            if not len(batch):
                # If there was no stream at all, nobody is waiting for a status.
                yield from self._leave_segment(writer, report=writer.position > start)
                return (yield from self._next_timeline(writer))
            yield from self._store_batch(writer, batch)
            batch = None
        yield from self._leave_segment(writer)
        yield from self._stop_stream()
        return None

    def _beginning_of_stream(self, writer: WalWriter) -> Receiving[Any]:
        """Say at once where this begins; return what has come already, None for nothing.

        A slot that nobody has used yet keeps no WAL before it is told from where on: what is not
        received until then may be removed. Not if there is no stream at all, which an empty batch
        tells.
        """
        batch = None
        with contextlib.suppress(TimeoutError):
            batch = yield Ask(methodcaller("receive_wal_messages", timeout=0.0))
        if batch is None or len(batch):
            yield from self._report_positions()
            if self._options.on_start is not None:
                self._options.on_start(writer.timeline, Lsn(writer.position))
        return batch

    def _next_batch(self) -> Receiving[Any]:
        """Wait for more, and do meanwhile what is due; None: it is to be stopped."""
        self._waits_since, self._asked = self._clock(), False
        while not self._must_stop():
            now = self._clock()
            if now >= self._silent_at:
                yield from self._ask_or_give_up(now)
            elif now >= self._status_at:
                yield from self._report_positions()
            wait = max(min(self._status_at, self._silent_at) - now, 0.0)
            if self._options.stop is not None:
                wait = min(wait, _STOP_CHECKED)
            with contextlib.suppress(TimeoutError):
                return (yield Ask(methodcaller("receive_wal_messages", timeout=wait)))
        return None

    def _store_batch(self, writer: WalWriter, batch: Any) -> Receiving[None]:
        if batch.reply_requested:
            # At once; what comes of it is said when that is done.
            yield from self._report_positions()
        flushed = writer.flushed
        sync = batch.reply_requested or self._options.synchronous
        yield Store(partial(_write_batch, writer, batch, sync))
        if writer.flushed > flushed:
            yield from self._report_positions()

    def _leave_segment(self, writer: WalWriter, report: bool = True) -> Receiving[None]:
        """Make durable what there is of the open segment, and say so."""
        yield Store(writer.leave_segment)
        if report:
            yield from self._report_positions()

    def _next_timeline(self, writer: WalWriter) -> Receiving[EndOfTimeline]:
        """The server has ended the stream: there is a next timeline."""
        timeout = self._options.receive_timeout
        ended: EndOfTimeline | None = yield Ask(methodcaller("stop_physical", timeout=timeout))
        if ended is None:
            raise ProtocolError(
                f"expected the WAL of timeline {writer.timeline} to go on at "
                f"{encode_lsn(writer.position)}, or another timeline after it, but the server has "
                "ended the stream"
            )
        if not ended.next_timeline > writer.timeline or ended.start > writer.position:
            raise ProtocolError(
                f"expected a timeline after {writer.timeline} that begins at "
                f"{encode_lsn(writer.position)} at the latest, where the server has ended the "
                f"stream, got timeline {ended.next_timeline} from {ended.start} on"
            )
        return ended

    def _stop_stream(self) -> Receiving[None]:
        timeout = self._options.receive_timeout
        try:
            yield Ask(methodcaller("stop_physical", timeout=timeout))
        except TimeoutError:
            # All that is wanted is on disk and reported; the server has more to say than that.
            yield Ask(methodcaller("disconnect"))

    def _must_stop(self) -> bool:
        return self._options.stop is not None and self._options.stop()

    # The times

    def _report_positions(self, ask: bool = False) -> Receiving[None]:
        # What the server does not take in time is queued, and finds it before the next.
        with contextlib.suppress(TimeoutError):
            yield self._next_status(ask)

    def _next_status(self, ask: bool = False) -> Ask:
        writer = self._writer
        assert writer is not None
        # In this order, since another thread may be moving both.
        flushed = writer.flushed
        written = writer.position
        self._status_at = self._clock() + self._interval
        return Ask(
            methodcaller(
                "send_standby_status",
                written,
                flushed,
                0,
                reply_requested=ask,
                timeout=_SEND_TIMEOUT,
            )
        )

    @property
    def _silent_at(self) -> float:
        timeout = self._options.receive_timeout
        return math.inf if timeout is None else self._waits_since + timeout / 2

    def _ask_or_give_up(self, now: float) -> Receiving[None]:
        """Nothing has come for half of the time: ask for an answer; for all of it: give up."""
        if self._asked:
            raise ConnectionFailed(
                f"nothing came from the server within {self._options.receive_timeout:g} s "
                "(receive_timeout), not even an answer to a request for one; the server or the "
                "network in between is gone: connect again and go on with the same directory"
            )
        self._waits_since, self._asked = now, True
        yield from self._report_positions(ask=True)


def _show(name: str) -> Ask:
    return Ask(methodcaller("show", name))


def _file_mode() -> Receiving[int]:
    try:
        return file_mode((yield _show("data_directory_mode")))
    except ServerError as error:
        if error.sqlstate != _UNKNOWN_SETTING:
            raise
        return 0o600  # PostgreSQL 10, whose files are for their owner alone


def _open_explained(open_directory: OpenDirectory, mode: int) -> Directory:
    try:
        return open_directory(mode=mode)
    except BlockingIOError as error:
        raise WalStorageError(
            f"expected {error.filename} to be used by nobody else, but another process, or another "
            "thread of this one, receives WAL there: wait for its end, or use another directory"
        ) from error
    except OSError as error:
        raise WalStorageError(
            f"expected {error.filename} to be a directory that can be used, but the system says: "
            f"{error.strerror}"
        ) from error


def _check_system(found: Found, system: SystemIdentity) -> None:
    """Refuse to mix the WAL of two systems, which would be found out when it is needed."""
    if found.system is None or str(found.system) == system.systemid:
        return
    raise SystemMismatch(
        {
            "severity": "ERROR",
            "sqlstate": "55000",
            "message": f"expected the system {found.system}, whose WAL is in the directory, got "
            f"system {system.systemid}",
            "hint": "connect to the server that the WAL is from, or use another directory",
        },
        expected=(str(found.system), found.timeline),
        got=(system.systemid, system.timeline),
    )


def _fetch_history(writer: WalWriter) -> Receiving[None]:
    history = yield Ask(methodcaller("timeline_history", writer.timeline))
    yield Store(partial(writer.add_history, writer.timeline, history.content))


def _write_batch(writer: WalWriter, batch: Any, sync: bool) -> None:
    """Write what a batch brought, up to the end that was asked for."""
    for message in batch:
        if writer.reached_end:
            break
        data = getattr(message, "data", None)  # a keepalive has none, in either twin
        if data is not None:
            writer.write(message.wal_start, data)
    if sync:
        writer.flush()
