"""`receive_base_backup`: from the events of a base backup to files that a server starts from.

Law: what is called a backup is whole, and durable. Files are synced before their directories, the
manifest gets its name last of all, and whatever cuts a run off before that leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from ..blocking.backup import Backup
from ..blocking.connection import Connection
from ..errors import Error, ProtocolError, ServerError, SystemMismatch, UsageError
from ..ownership import Owner
from ..physical.settings import file_mode
from ..protocol.backup_stream import (
    ArchiveData,
    ArchiveStart,
    BackupEnd,
    BackupEvent,
    BackupStart,
    ManifestData,
    ManifestStart,
    Progress,
    Tablespace,
)
from ..protocol.base_backup import BackupOptions
from ..transport.clock import monotonic
from .archives import Archives, pack_wal
from .compression import ArchiveCompression
from .extracting import Extraction
from .settings import BackupFormat, BackupProgress, Phase, ReceivedBackup, Settings, WalMethod
from .tree import Tree, TreeFile
from .wal import ARCHIVE_STATUS, WalBeside, complete_wal

__all__ = ["receive_base_backup"]

_BEAT: Final = 0.2  # seconds between two calls of `progress`, whatever comes
_WAL: Final = "pg_wal"
_MANIFEST: Final = "backup_manifest"
_UNFINISHED: Final = "backup_manifest.tmp"
_UNKNOWN_SETTING: Final = "42704"
_PIECE: Final = 1 << 16


def receive_base_backup(
    connection: Connection,
    directory: str | Path,
    *,
    format: BackupFormat = "tar",
    wal: WalMethod = "fetch",
    wal_connection: Connection | None = None,
    slot: str | None = None,
    create_slot: bool = False,
    temporary_slot: bool = True,
    compress: str = "none",
    label: str = "pgrepl base backup",
    checkpoint: Literal["fast", "spread"] | None = None,
    max_rate: int | None = None,
    verify_checksums: bool | None = None,
    manifest: Literal["yes", "no", "force-encode"] | None = None,
    manifest_checksums: (
        Literal["NONE", "CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"] | None
    ) = None,
    incremental: str | Path | None = None,
    tablespace_mapping: Mapping[str, str | Path] | None = None,
    fsync: bool = True,
    clean: bool = True,
    progress: Callable[[BackupProgress], object] | None = None,
) -> ReceivedBackup:
    """Take a base backup into a directory, as pg_basebackup does, which must be empty or absent.

    `format`: ``tar`` keeps the archives, ``plain`` unpacks them into a data directory that a server
    can start from. `wal`: ``fetch`` has the server put the WAL into the backup, as far as it still
    has it then; ``stream`` receives it meanwhile by `wal_connection`, through `slot`, which
    `create_slot` makes to stay, or through one that is gone with the connection, or without one
    where `temporary_slot` is False. ``none`` leaves it to an archive.

    `compress`: ``gzip:5``, ``lz4`` or ``zstd:3`` for the archives, ``server-gzip``, ``server-lz4``
    or ``server-zstd`` for the network too (PostgreSQL 15); in plain format what the server
    compressed is unpacked. `max_rate` in KiB a second. `manifest`: None is yes, where the server
    can (13). `incremental`: the manifest of the backup to build on (17).

    `tablespace_mapping`: where to put tablespaces, by their directory at the server, absolute
    paths both; plain format needs one for each that there is. `fsync` False leaves it to the system
    when things become durable, `clean` False leaves what there is of a backup that failed.
    `progress` is called several times a second, whatever comes; what it raises ends the backup.

    An error, or whatever ends it early, closes the connection once the backup has begun. Raises
    `UsageError`, `BackupStorageError`, `WalStorageError`, `SystemMismatch` where `wal_connection`
    leads to another system, `ProtocolError` for archives that PostgreSQL does not make, and what
    `Connection.base_backup`, `Connection.upload_manifest` and `physical.receive_wal` raise.
    """
    asked: BackupOptions = {
        "label": label,
        "checkpoint": checkpoint,
        "max_rate": max_rate,
        "verify_checksums": verify_checksums,
        "manifest": manifest,
        "manifest_checksums": manifest_checksums,
    }
    settings = Settings(
        format=format,
        wal=wal,
        wal_connection=wal_connection,
        slot=slot,
        create_slot=create_slot,
        temporary_slot=temporary_slot,
        compression=ArchiveCompression.parse(compress),
        incremental=incremental,
        tablespace_mapping=tablespace_mapping or {},
        fsync=fsync,
        clean=clean,
        progress=progress,
        asked=asked,
    )
    return _Receiving(connection, settings).run(directory)


class _Receiving:
    """One backup."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._owner = Owner()
        self._connection = connection
        self._settings = settings
        self._trees: list[Tree] = []
        self._sink: Extraction | Archives | None = None
        self._manifest: TreeFile | None = None
        self._wal: WalBeside | None = None
        self._slot: str | None = None
        self._start: BackupStart | None = None
        self._end: BackupEnd | None = None
        self._files: list[str] = []
        self._progress = _ProgressMeter(settings.progress)

    def run(self, directory: str | Path) -> ReceivedBackup:
        settings = self._settings
        backup = self._connection.base_backup(
            timeout=_BEAT, **settings.command(self._connection.server_version)
        )
        group = _group_reads(self._connection)
        with _opening(directory):
            self._trees.append(Tree(directory, group=group))
        try:
            return self._run(backup, group)
        except BaseException:
            # Not by a child that the callback for progress has forked: the backup goes on.
            if not self._owner.is_parent:
                self._give_up()
            raise
        finally:
            for tree in self._trees:
                tree.close()

    def _run(self, backup: Backup, group: bool) -> ReceivedBackup:
        settings = self._settings
        if settings.incremental is not None:
            self._upload(settings.incremental)
        if settings.wal == "stream":
            self._prepare_wal()
        self._progress.enter("beginning")
        with backup:
            while (event := self._next(backup)) is not None:
                if isinstance(event, BackupStart):
                    self._begin(event, group)
                else:
                    with self._storing("store the backup"):
                        self._take(event)
        start, end = self._start, self._end
        assert start is not None
        assert end is not None
        self._finish(end)
        return ReceivedBackup(
            self._main.path,
            start.start_lsn,
            end.end_lsn,
            start.timeline,
            tuple(each for each in start.tablespaces if each.oid is not None),
            tuple(self._files),
            self._progress.received,
        )

    @property
    def _main(self) -> Tree:
        return self._trees[0]

    def _storing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return self._main.storing(what)

    def _beat(self) -> None:
        if self._wal is not None:
            self._wal.check()
        self._progress.tell()

    # Before it begins

    def _upload(self, path: str | Path) -> None:
        """Give the server the manifest of the backup to build on."""

        def pieces() -> Iterator[bytes]:
            with _reading(path), Path(path).open("rb") as file:
                while piece := file.read(_PIECE):
                    self._beat()
                    yield piece

        self._connection.upload_manifest(pieces())

    def _prepare_wal(self) -> None:
        """Let the server keep the WAL from before the backup begins."""
        settings, connection = self._settings, self._settings.wal_connection
        assert connection is not None
        _expect_same_system(self._connection, connection)
        if settings.slot is not None:
            if settings.create_slot:
                connection.create_physical_slot(settings.slot, reserve_wal=True)
            self._slot = settings.slot
        elif settings.temporary_slot:
            self._slot = f"pgrepl_basebackup_{connection.pid}"
            connection.create_physical_slot(self._slot, temporary=True, reserve_wal=True)

    # While it comes

    def _next(self, backup: Backup) -> BackupEvent | None:
        while True:
            self._beat()
            with contextlib.suppress(TimeoutError):
                return next(backup, None)

    def _begin(self, start: BackupStart, group: bool) -> None:
        self._start = start
        self._progress.begin(start.tablespaces)
        settings = self._settings
        if settings.format == "plain":
            mapped = self._open_tablespaces(start.tablespaces, group)
        with self._storing("make directories"):
            if settings.wal == "stream":
                self._begin_wal(start)
            if settings.format == "plain":
                self._sink = self._extraction(start.tablespaces, mapped)
            else:
                here = settings.compression
                self._sink = Archives(
                    self._main, here.here() if here and here.where == "client" else None
                )

    def _open_tablespaces(
        self, tablespaces: tuple[Tablespace, ...], group: bool
    ) -> dict[int, Tree]:
        """Open the directory of each tablespace that has one of its own."""
        mapping = {str(old): new for old, new in self._settings.tablespace_mapping.items()}
        mapped: dict[int, Tree] = {}
        for oid, location in _apart(tablespaces):
            if location not in mapping:
                raise UsageError(
                    f"expected a tablespace_mapping for the tablespace in {location!r}: the "
                    "directory here that it is to go to, which may be of the same name"
                )
            with _opening(mapping[location]):
                tree = Tree(mapping[location], group=group)
            self._trees.append(tree)
            mapped[oid] = tree
            for other in self._trees[:-1]:
                if _overlap(other.path.resolve(), tree.path.resolve()):
                    raise UsageError(
                        "expected tablespaces and the backup in directories apart, got "
                        f"{other.path} and {tree.path}"
                    )
        return mapped

    def _begin_wal(self, start: BackupStart) -> None:
        connection = self._settings.wal_connection
        assert connection is not None
        self._main.make_directory([_WAL])
        self._main.make_directory([_WAL, ARCHIVE_STATUS])
        self._wal = WalBeside(
            connection,
            self._main.path / _WAL,
            slot=self._slot,
            start=start.start_lsn,
            timeline=start.timeline,
            fsync=self._settings.fsync,
        )
        self._wal.begin()

    def _extraction(
        self, tablespaces: tuple[Tablespace, ...], mapped: dict[int, Tree]
    ) -> Extraction:
        inside = [each.oid for each in tablespaces if each.oid is not None]
        inside = [oid for oid in inside if oid not in mapped]
        if inside:
            self._main.make_directory(["pg_tblspc"])
            for oid in inside:
                self._main.make_directory(["pg_tblspc", str(oid)])
        compression = self._settings.compression
        return Extraction(
            self._main,
            mapped,
            tablespaces,
            decompressor=compression.decompressor() if compression else None,
            reserved=frozenset({_MANIFEST, _UNFINISHED}),
            streamed_wal=self._wal is not None,
        )

    def _take(self, event: BackupEvent) -> None:
        sink, progress = self._sink, self._progress
        assert sink is not None
        match event:
            case ArchiveData(data=data):
                sink.write(data)
                progress.add(len(data))
            case ArchiveStart():
                self._expect_name(event)
                sink.begin(event)
                progress.enter("receiving")
                progress.next_archive()
            case Progress(done=done):
                progress.told(done)
            case ManifestStart():
                sink.finish()
                self._manifest = self._main.create([_UNFINISHED])
            case ManifestData(data=data):
                assert self._manifest is not None
                self._manifest.write(data)
            case BackupEnd():
                sink.finish()
                self._end = event

    def _expect_name(self, start: ArchiveStart) -> None:
        compression = self._settings.compression
        suffix = compression.suffix if compression and compression.where == "server" else ""
        wanted = f"{'base' if start.oid is None else start.oid}.tar{suffix}"
        if start.name != wanted:
            raise ProtocolError(
                f"expected the archive {wanted} of a base backup, got {start.name[:40]!r}"
            )
        if self._settings.format == "tar":
            client = compression is not None and not suffix
            self._files.append(wanted + (compression.suffix if compression and client else ""))

    # The end

    def _finish(self, end: BackupEnd) -> None:
        if self._wal is not None:
            self._progress.enter("wal")
            self._wal.finish(end.end_lsn, self._beat)
            with self._storing("complete the WAL"):
                complete_wal(self._main, _WAL)
                if self._settings.format == "tar":
                    self._files.append(self._pack_wal())
        if self._manifest is not None:
            self._manifest.close()
        self._progress.enter("syncing")
        if self._settings.fsync:
            for tree in reversed(self._trees):
                with tree.storing("sync the backup"):
                    tree.sync(self._beat)
                    tree.sync_names()
        with self._storing("name the manifest"):
            if self._manifest is not None:
                self._main.rename([_UNFINISHED], _MANIFEST)
            if self._settings.fsync:
                self._main.sync_names()

    def _pack_wal(self) -> str:
        compression = self._settings.compression
        here = compression.here() if compression and compression.where == "client" else None
        return pack_wal(self._main, _WAL, here, self._beat)

    def _give_up(self) -> None:
        """Leave nothing behind: no thread, no file, no slot."""
        settings = self._settings
        if self._wal is not None:
            self._wal.give_up()
        if settings.create_slot and self._slot is not None and settings.wal_connection is not None:
            with contextlib.suppress(Error, TimeoutError):
                settings.wal_connection.drop_slot(self._slot, timeout=_BEAT * 10)
        for file in (self._sink, self._manifest):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        if settings.clean:
            for tree in reversed(self._trees):
                with contextlib.suppress(OSError):
                    tree.remove()


class _ProgressMeter:
    """Counts what has come, and tells it several times a second."""

    def __init__(self, told_to: Callable[[BackupProgress], object] | None) -> None:
        self._told_to = told_to
        self._due = 0.0
        self._phase: Phase = "beginning"
        self._total: int | None = None
        self._before = 0  # of the archives that are over
        self._current = 0
        self.received = 0
        """Bytes of archives, as they came over the network."""

    def begin(self, tablespaces: tuple[Tablespace, ...]) -> None:
        sizes = [each.size for each in tablespaces if each.size is not None]
        self._total = sum(sizes) if len(sizes) == len(tablespaces) else None

    def enter(self, phase: Phase) -> None:
        self._phase = phase
        self._due = 0.0

    def next_archive(self) -> None:
        self._before, self._current = self._before + self._current, 0

    def add(self, count: int) -> None:
        self.received += count
        self._current += count

    def told(self, done: int) -> None:
        """The server has said how far it is; of compressed archives it alone knows."""
        self._current = done

    def tell(self) -> None:
        if self._told_to is not None and monotonic() >= self._due:
            self._due = monotonic() + _BEAT
            done = self._before + self._current
            self._told_to(BackupProgress(self._phase, done, self._total))


def _group_reads(connection: Connection) -> bool:
    try:
        return file_mode(connection.show("data_directory_mode")) == 0o640
    except ServerError as error:
        if error.sqlstate != _UNKNOWN_SETTING:
            raise
        return False  # PostgreSQL 10, whose files are for their owner alone


def _apart(tablespaces: tuple[Tablespace, ...]) -> Iterator[tuple[int, str]]:
    """The tablespaces with a directory of their own, and where that is at the server.

    Those in the data directory itself are made by allow_in_place_tablespaces.
    """
    for each in tablespaces:
        if each.oid is not None and each.location not in (None, f"pg_tblspc/{each.oid}"):
            yield each.oid, str(each.location)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _expect_same_system(connection: Connection, other: Connection) -> None:
    expected, got = connection.identify_system(), other.identify_system()
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
def _opening(directory: str | Path) -> Iterator[None]:
    """A directory that cannot be used at all is the caller's to change."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"expected {directory} to be a directory that can be made or used, but the system "
            f"says: {error.strerror}"
        ) from error


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"expected {path} to be the manifest of a base backup, but the system says: "
            f"{error.strerror}"
        ) from error
