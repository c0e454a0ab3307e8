"""What comes in answer to BASE_BACKUP, as events: the same ones from servers old and new.

Law: nothing is collected. Each piece of an archive is handed out as it comes, and the caller says
when it wants the next. The order of the events:

    BackupStart
    (ArchiveStart (ArchiveData | Progress)*)+
    [ManifestStart (ManifestData | Progress)*]
    BackupEnd

An archive is a tar file, whole and terminated, compressed if that was asked for; there is one for
each tablespace. Up to PostgreSQL 14 each comes as a COPY of its own, without the two blocks of
zeros that end a tar file, which are added here; from 15 on all of them and the manifest come in one
COPY, each message with a type of its own. `BackupEnd` comes when the server has ended the command
without an error: it finds pages with wrong checksums after everything has been sent.

Names come from the server and may be anything: who writes files by them has to check them.

Source: PostgreSQL documentation, "Streaming Replication Protocol", BASE_BACKUP.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import ProtocolError
from ..lsn import Lsn
from ..public import imported_from
from .answers import lsn, number, only_row, text, timeline
from .backend import BodyReader, ServerState, unexpected
from .base_backup import BackupOptions, base_backup_command, wants_manifest
from .conversation import Conversation, Frame
from .query import Answer, Result
from .quoting import has_option_lists
from .session_settings import command

__all__ = [
    "ArchiveData",
    "ArchiveStart",
    "BackupEnd",
    "BackupEvent",
    "BackupStart",
    "BackupStream",
    "ManifestData",
    "ManifestStart",
    "Progress",
    "Tablespace",
]

_END_OF_TAR: Final = bytes(1024)
_MAX_OID: Final = 0xFFFFFFFF


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace of the backup. Its `oid` and `location`, a path at the server, are None of the
    main data directory; `size` in bytes, estimated, or None where no progress was asked for."""

    oid: int | None
    location: str | None
    size: int | None


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class BackupStart:
    """The backup begins: from `start_lsn` of `timeline` on its WAL is needed."""

    start_lsn: Lsn
    timeline: int
    tablespaces: tuple[Tablespace, ...]


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class ArchiveStart:
    """An archive begins: ``base.tar`` for the main data directory, or ``<oid>.tar``, with ``.gz``,
    ``.lz4`` or ``.zst`` behind it where the server compresses. `path` and `oid` of its tablespace
    are None of the main data directory."""

    name: str
    path: str | None
    oid: int | None


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class ArchiveData:
    """The next bytes of the archive; read-only, they stay what they are."""

    data: memoryview


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class Progress:
    """How many bytes of the current tablespace the server has dealt with; PostgreSQL 15."""

    done: int


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class ManifestStart:
    """The archives are over; the manifest begins."""


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class ManifestData:
    """The next bytes of the manifest; read-only, they stay what they are."""

    data: memoryview


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class BackupEnd:
    """The backup is whole: up to `end_lsn` of `timeline` its WAL is needed."""

    end_lsn: Lsn
    timeline: int


BackupEvent: TypeAlias = (
    BackupStart | ArchiveStart | ArchiveData | Progress | ManifestStart | ManifestData | BackupEnd
)


class _State(enum.Enum):
    NEW = enum.auto()  # nothing was said yet
    HEADER = enum.auto()  # where it starts, and the tablespaces
    BETWEEN = enum.auto()  # old: archives; new: before the COPY
    COPY = enum.auto()  # new: in the COPY, no archive yet
    ARCHIVE = enum.auto()
    MANIFEST = enum.auto()
    TRAILER = enum.auto()  # where it ends
    ENDED = enum.auto()


class BackupStream:
    """One base backup: the command, and the events of its answer."""

    def __init__(self, state: ServerState, options: BackupOptions) -> None:
        """Raises what `base_backup_command` raises."""
        self._server = state
        self._command = base_backup_command(state, options)
        self._manifest_to_come = wants_manifest(options)
        self._one_copy = has_option_lists(state)
        self._state = _State.NEW
        self._answer = Answer(state)
        # Those whose archive is to come, in the order in which the server announced them.
        self._tablespaces: list[Tablespace] = []

    @property
    def is_under_way(self) -> bool:
        """Whether the server was asked, and has more to send."""
        return self._state not in (_State.NEW, _State.ENDED)

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come, by its end or by an error."""
        return self._state is _State.ENDED

    def next_event(self) -> Conversation[BackupEvent | None]:
        """Receive the next event; None behind the last one.

        Raises `ServerError` when its whole answer was read, and `ProtocolError`.
        """
        if self._state is _State.NEW:
            yield from command(self._server, self._command)
            self._state = _State.HEADER
        event: BackupEvent | None = None
        while event is None and self._state is not _State.ENDED:
            frame: Frame = yield from self._server.receive()
            try:
                event = self._take(frame)
            except BaseException:
                self._state = _State.ENDED
                raise
        return event

    def _take(self, frame: Frame) -> BackupEvent | None:
        tag = frame[0]
        if self._answer.error is not None and tag in (b"H", b"d", b"c"):
            raise unexpected(frame, "the end of a base backup that failed")
        if tag == b"H":
            return self._copy_begins(frame)
        if tag == b"d":
            return self._data(frame)
        if tag == b"c":
            return self._copy_ends(frame)
        return self._answered(frame)

    # Result sets, which stand before and behind the archives

    def _answered(self, frame: Frame) -> BackupEvent | None:
        before = len(self._answer.results)
        if self._answer.take(frame):
            self._state, state = _State.ENDED, self._state
            if self._answer.error is not None:
                raise self._answer.error
            if state is not _State.TRAILER:
                raise unexpected(frame, "the archives of a base backup before its end")
            return self._end(self._answer.results)
        if frame[0] == b"C":
            if self._state is not _State.HEADER and not self._takes_trailer():
                raise unexpected(frame, "an archive of a base backup")
            if self._state is _State.HEADER and before == 1:
                self._state = _State.BETWEEN
                return self._start(self._answer.results)
        return None

    def _takes_trailer(self) -> bool:
        """Whether all that was announced has come, so that the end may follow."""
        if self._state is _State.BETWEEN and not self._one_copy and not self._missing():
            self._state = _State.TRAILER
        return self._state is _State.TRAILER

    def _start(self, results: list[Result]) -> BackupStart:
        start_lsn, start_timeline = only_row(results[:1], 2, "BASE_BACKUP")
        self._tablespaces = [_tablespace(row) for row in results[1].rows]
        _check_tablespaces(self._tablespaces)
        return BackupStart(lsn(start_lsn), timeline(start_timeline), tuple(self._tablespaces))

    def _end(self, results: list[Result]) -> BackupEnd:
        end_lsn, end_timeline = only_row(results[2:], 2, "BASE_BACKUP")
        return BackupEnd(lsn(end_lsn), timeline(end_timeline))

    # Archives

    def _copy_begins(self, frame: Frame) -> BackupEvent | None:
        if self._state is not _State.BETWEEN:
            raise unexpected(frame, "no COPY at this point of a base backup")
        reader = BodyReader(frame)
        reader.take(1)  # formats, which a backup does not have
        reader.take(2 * reader.int16())
        reader.finish()
        if self._one_copy:
            self._state = _State.COPY
            return None
        if self._tablespaces:
            self._state = _State.ARCHIVE
            tablespace = self._tablespaces.pop(0)
            name = "base" if tablespace.oid is None else str(tablespace.oid)
            return ArchiveStart(f"{name}.tar", tablespace.location, tablespace.oid)
        return self._manifest_begins(frame)

    def _copy_ends(self, frame: Frame) -> BackupEvent | None:
        BodyReader(frame).finish()
        state = self._state
        if state not in (_State.COPY, _State.ARCHIVE, _State.MANIFEST):
            raise unexpected(frame, "a COPY before its end")
        if not self._one_copy:
            self._state = _State.BETWEEN
            return ArchiveData(memoryview(_END_OF_TAR)) if state is _State.ARCHIVE else None
        if missing := self._missing():
            raise unexpected(frame, f"{missing} before the end of a base backup")
        self._state = _State.TRAILER
        return None

    def _missing(self) -> str:
        if self._tablespaces:
            return f"{len(self._tablespaces)} more archives"
        return "a manifest" if self._manifest_to_come else ""

    def _manifest_begins(self, frame: Frame) -> ManifestStart:
        if self._missing() != "a manifest":
            raise unexpected(frame, self._missing() or "the end of a base backup")
        self._manifest_to_come = False
        self._state = _State.MANIFEST
        return ManifestStart()

    def _data(self, frame: Frame) -> BackupEvent | None:
        if self._one_copy and self._state in (_State.COPY, _State.ARCHIVE, _State.MANIFEST):
            return self._typed(frame)
        return self._piece(memoryview(frame[1]), frame)

    def _piece(self, data: memoryview, frame: Frame) -> BackupEvent:
        if self._state is _State.ARCHIVE:
            return ArchiveData(data)
        if self._state is _State.MANIFEST:
            return ManifestData(data)
        raise unexpected(frame, "an archive before its data")

    def _typed(self, frame: Frame) -> BackupEvent:
        """Take a message of a new server, which begins with its type."""
        reader = BodyReader(frame)
        kind = reader.take(1)
        if kind == b"d":
            return self._piece(memoryview(frame[1])[1:], frame)
        if kind == b"n":
            name, path = reader.string(), reader.string()
            reader.finish()
            return self._archive_begins(name, path or None, frame)
        if kind == b"p":
            (done,) = struct.unpack(">q", reader.take(8))
            reader.finish()
            if done < 0:
                raise ProtocolError(
                    f"expected a number of bytes of 0 or more, got {done}", tag=b"d", offset=1
                )
            return Progress(done)
        if kind == b"m":
            reader.finish()
            return self._manifest_begins(frame)
        raise ProtocolError(
            "expected a message of type n, d, p or m in the archives of a base backup, "
            f"got {kind!r}",
            tag=b"d",
            offset=0,
        )

    def _archive_begins(self, name: str, path: str | None, frame: Frame) -> ArchiveStart:
        for tablespace in self._tablespaces:
            if tablespace.location == path:
                self._tablespaces.remove(tablespace)
                self._state = _State.ARCHIVE
                return ArchiveStart(name, path, tablespace.oid)
        raise unexpected(frame, "the archive of a tablespace that was announced, once")


def _tablespace(row: tuple[str | None, ...]) -> Tablespace:
    if len(row) != 3:
        raise ProtocolError(f"expected 3 columns for a tablespace, got {len(row)}")
    oid, location, size = row
    if (oid is None) != (location is None):
        raise ProtocolError("expected a tablespace with an OID and a location, got one of them")
    if oid is not None and not 1 <= number(oid) <= _MAX_OID:
        raise ProtocolError(f"expected the OID of a tablespace, got {oid[:40]!r}")
    return Tablespace(
        None if oid is None else number(oid),
        None if location is None else text(location),
        None if size is None else number(size) * 1024,
    )


def _check_tablespaces(tablespaces: list[Tablespace]) -> None:
    """Each once, and the main data directory among them."""
    if sum(each.location is None for each in tablespaces) != 1:
        raise ProtocolError("expected one main data directory among the tablespaces of a backup")
    for column in ([each.oid for each in tablespaces], [each.location for each in tablespaces]):
        if len(set(column)) != len(column) or "" in column:
            raise ProtocolError("expected each tablespace of a base backup once, with a location")
