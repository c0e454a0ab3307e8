"""All that a base backup leaves on disk, from its first directory to the name of its manifest.

Law: what is called a backup is whole, and durable. Files are synced before their directories, the
manifest gets its name last of all, and whatever cuts a run off before that leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from ..errors import ProtocolError, UsageError
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
from .archives import Archives, pack_wal
from .extracting import Extraction
from .progress import ProgressMeter
from .settings import Settings
from .tree import Tree, TreeFile
from .wal import ARCHIVE_STATUS, complete_wal

__all__ = ["BackupFiles"]

_WAL: Final = "pg_wal"
_MANIFEST: Final = "backup_manifest"
_UNFINISHED: Final = "backup_manifest.tmp"


class BackupFiles:
    """The directories and files of one backup. To be used by one thread at a time.

    `beat` is called again and again where something takes long. Raises `BackupStorageError`, and
    what `beat` raises.
    """

    def __init__(
        self, settings: Settings, progress: ProgressMeter, beat: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._beat = beat
        self._trees: list[Tree] = []
        self._sink: Extraction | Archives | None = None
        self._manifest: TreeFile | None = None
        self.names: list[str] = []
        """Of the tar format: what the archives are called, in their order."""

    @property
    def path(self) -> Path:
        """The directory of the backup."""
        return self._main.path

    @property
    def wal_path(self) -> Path:
        """Where WAL that comes by another connection goes."""
        return self._main.path / _WAL

    @property
    def _main(self) -> Tree:
        return self._trees[0]

    def _storing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return self._main.storing(what)

    # The beginning

    def open(self, directory: str | Path, group: bool) -> None:
        """Open the directory; `group` may read what is in it. Raises `UsageError`."""
        with _opening(directory):
            self._trees.append(Tree(directory, group=group))

    def begin(self, start: BackupStart, group: bool) -> None:
        """Make what is there before the first archive. Raises `UsageError`."""
        settings = self._settings
        self._progress.begin(start.tablespaces)
        if settings.format == "plain":
            mapped = self._open_tablespaces(start.tablespaces, group)
        with self._storing("make directories"):
            if settings.wal == "stream":
                self._main.make_directory([_WAL])
                self._main.make_directory([_WAL, ARCHIVE_STATUS])
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
            streamed_wal=self._settings.wal == "stream",
        )

    # While it comes

    def store(self, events: Iterable[BackupEvent]) -> None:
        """Store what has come. Raises `ProtocolError` for what PostgreSQL does not send."""
        with self._storing("store the backup"):
            for event in events:
                self._store(event)

    def _store(self, event: BackupEvent) -> None:
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
            self.names.append(wanted + (compression.suffix if compression and client else ""))

    # The end

    def complete_wal(self) -> None:
        """Make of the WAL that has come what belongs to the backup, all of it being there."""
        with self._storing("complete the WAL"):
            complete_wal(self._main, _WAL)
            if self._settings.format == "tar":
                compression = self._settings.compression
                here = compression.here() if compression and compression.where == "client" else None
                self.names.append(pack_wal(self._main, _WAL, here, self._beat))

    def finish(self) -> None:
        """Make all of it durable, and give the manifest its name."""
        if self._manifest is not None:
            self._manifest.close()
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

    def give_up(self) -> None:
        """Remove what was made, unless it is to be left. Does what it can."""
        for file in (self._sink, self._manifest):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        if self._settings.clean:
            for tree in reversed(self._trees):
                with contextlib.suppress(OSError):
                    tree.remove()

    def close(self) -> None:
        """Let go of the directories. Safe to call again."""
        for tree in self._trees:
            tree.close()


def _apart(tablespaces: tuple[Tablespace, ...]) -> Iterator[tuple[int, str]]:
    """The tablespaces with a directory of their own, and where that is at the server.

    Those in the data directory itself are made by allow_in_place_tablespaces.
    """
    for each in tablespaces:
        if each.oid is not None and each.location not in (None, f"pg_tblspc/{each.oid}"):
            yield each.oid, str(each.location)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


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
