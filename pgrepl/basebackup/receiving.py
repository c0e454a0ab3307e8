"""Receiving a base backup, as one conversation: with a server, and with who works on files.

Law: nothing here waits, or touches a socket or a file, but for the manifest of the backup to build
on, which is read as it is sent. It yields what it wants, `Ask` of the connections or `Store` of the
disk, and is given what came of it, so that both flavours drive the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from ..errors import Error, ServerError, SystemMismatch, UsageError
from ..physical.settings import file_mode
from ..protocol.backup_stream import ArchiveData, BackupEnd, BackupEvent, BackupStart
from ..protocol.replication import SystemIdentity
from .files import BackupFiles
from .progress import BEAT, ProgressMeter
from .settings import ReceivedBackup, Settings

__all__ = ["Ask", "BackupReceiver", "Receiving", "Store", "Wal"]

_Result = TypeVar("_Result")

_UNKNOWN_SETTING: Final = "42704"
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Ask:
    """Call this, which asks a connection; the answer is what comes of it, or what it raises."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Store:
    """Work on files, which may take long; the answer is what it returns, or what it raises."""

    work: Callable[[], Any]


Receiving: TypeAlias = Generator[Ask | Store, Any, _Result]


class Wal(Protocol):
    """WAL that is received beside the backup; `finish` and `give_up` are asked for."""

    def begin(self) -> None:
        """Begin to receive; from then on `finish` or `give_up` must be called."""

    def check(self) -> None:
        """Raise what has gone wrong there, if anything has."""

    def finish(self, end: int, beat: Callable[[], None]) -> Any:
        """Return when all WAL up to `end` is there; `beat` is called meanwhile."""

    def give_up(self) -> Any:
        """Stop, wherever it is. Safe to call again."""


class BackupReceiver:
    """One backup: the conversation, and what a driver needs while it waits for the disk."""

    def __init__(
        self,
        connection: Any,
        settings: Settings,
        next_event: Callable[[], Any],
        wal: Callable[..., Wal],
        *,
        beat_of_files: Callable[[], None] | None = None,
        gathered: int = 0,
    ) -> None:
        """`next_event` asks for the next one, None behind the last; `wal` makes what receives WAL.
        `beat_of_files` is called by who works on files, by default `beat`. `gathered`: how many
        bytes of archives are collected before they are stored."""
        self._connection = connection
        self._settings = settings
        self._next_event = next_event
        self._make_wal = wal
        self._gathered = gathered
        self._progress = ProgressMeter(settings.progress)
        self._files = BackupFiles(settings, self._progress, beat_of_files or self.beat)
        self._wal: Wal | None = None
        self._slot: str | None = None

    # For the driver

    def beat(self) -> None:
        """Look whether WAL still comes, and tell the progress. Raises what is wrong there, and what
        the application raises."""
        if self._wal is not None:
            self._wal.check()
        self._progress.tell()

    def close(self) -> None:
        """Let go of all files. To be called at the end, whatever that was."""
        self._files.close()

    # The conversation

    def run(self, directory: str | Path) -> Receiving[ReceivedBackup]:
        """Receive a backup into a directory."""
        settings, files = self._settings, self._files
        group = yield from _group_reads(self._connection)
        yield Store(partial(files.open, directory, group))
        if settings.incremental is not None:
            pieces = self._pieces(settings.incremental)
            yield _asked(self._connection, methodcaller("upload_manifest", pieces))
        if settings.wal == "stream":
            yield from self._prepare_wal()
        self._progress.enter("beginning")
        start, end = yield from self._receive(group)
        yield from self._finish(end)
        return ReceivedBackup(
            files.path,
            start.start_lsn,
            end.end_lsn,
            start.timeline,
            tuple(each for each in start.tablespaces if each.oid is not None),
            tuple(files.names),
            self._progress.received,
        )

    def _pieces(self, path: str | Path) -> Iterator[bytes]:
        """Read the manifest of the backup to build on."""
        with _reading(path), Path(path).open("rb") as file:
            while piece := file.read(_PIECE):
                self.beat()
                yield piece

    def _prepare_wal(self) -> Receiving[None]:
        """Let the server keep the WAL from before the backup begins."""
        settings, connection = self._settings, self._settings.wal_connection
        assert connection is not None
        yield from _expect_same_system(self._connection, connection)
        if settings.slot is not None:
            if settings.create_slot:
                yield _asked(
                    connection,
                    methodcaller("create_physical_slot", settings.slot, reserve_wal=True),
                )
            self._slot = settings.slot
        elif settings.temporary_slot:
            self._slot = f"pgrepl_basebackup_{connection.pid}"
            yield _asked(
                connection,
                methodcaller("create_physical_slot", self._slot, temporary=True, reserve_wal=True),
            )

    def _receive(self, group: bool) -> Receiving[tuple[BackupStart, BackupEnd]]:
        start: BackupStart | None = None
        end: BackupEnd | None = None
        while (event := (yield from self._next_stored())) is not None:
            if isinstance(event, BackupStart):
                start = event
                yield from self._begin(event, group)
            elif isinstance(event, BackupEnd):
                end = event
        assert start is not None
        assert end is not None
        return start, end

    def _next_stored(self) -> Receiving[BackupEvent | None]:
        """Receive the next event, or several pieces of an archive, and store them; return the last
        of them, None behind the end."""
        events: list[BackupEvent] = []
        size = 0
        while True:
            self.beat()
            failure: Exception | None = None
            try:
                event: BackupEvent | None = yield Ask(self._next_event)
            except Exception as error:
                event, failure = None, error
            if isinstance(event, ArchiveData):
                events.append(event)
                size += len(event.data)
                if size < self._gathered:
                    continue
            elif event is not None and not isinstance(event, BackupStart):
                events.append(event)
            if events:
                yield Store(partial(self._files.store, events))
                events, size = [], 0
            if failure is None:
                return event
            if not isinstance(failure, TimeoutError):
                raise failure

    def _begin(self, start: BackupStart, group: bool) -> Receiving[None]:
        yield Store(partial(self._files.begin, start, group))
        settings = self._settings
        if settings.wal == "stream":
            self._wal = self._make_wal(
                settings.wal_connection,
                self._files.wal_path,
                slot=self._slot,
                start=start.start_lsn,
                timeline=start.timeline,
                fsync=settings.fsync,
            )
            self._wal.begin()

    def _finish(self, end: BackupEnd) -> Receiving[None]:
        if self._wal is not None:
            self._progress.enter("wal")
            yield Ask(partial(self._wal.finish, end.end_lsn, self.beat))
            yield Store(self._files.complete_wal)
        self._progress.enter("syncing")
        self.beat()
        yield Store(self._files.finish)

    def give_up(self) -> Receiving[None]:
        """Leave nothing behind: no receiver of WAL, no file, no slot."""
        settings = self._settings
        if self._wal is not None:
            yield Ask(self._wal.give_up)
        if settings.create_slot and self._slot is not None:
            with contextlib.suppress(Error, TimeoutError):
                yield _asked(
                    settings.wal_connection,
                    methodcaller("drop_slot", self._slot, timeout=BEAT * 10),
                )
        yield Store(self._files.give_up)


def _asked(connection: Any, call: Callable[[Any], Any]) -> Ask:
    return Ask(partial(call, connection))


def _group_reads(connection: Any) -> Receiving[bool]:
    try:
        mode = yield _asked(connection, methodcaller("show", "data_directory_mode"))
    except ServerError as error:
        if error.sqlstate != _UNKNOWN_SETTING:
            raise
        return False  # PostgreSQL 10, whose files are for their owner alone
    return file_mode(mode) == 0o640


def _expect_same_system(connection: Any, other: Any) -> Receiving[None]:
    identify = methodcaller("identify_system")
    expected: SystemIdentity = yield _asked(connection, identify)
    got: SystemIdentity = yield _asked(other, identify)
    if expected.systemid != got.systemid:
        raise SystemMismatch(
            {
                "severity": "ERROR",
                "sqlstate": "55000",
                "message": f"expected WAL of the system {expected.systemid}, got a connection to "
                f"system {got.systemid}",
                "hint": "connect both to the same server",
            },
            expected=(expected.systemid, expected.timeline),
            got=(got.systemid, got.timeline),
        )


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"expected {path} to be the manifest of a base backup, but the system says: "
            f"{error.strerror}"
        ) from error
