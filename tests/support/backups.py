"""Base backups on disk: their events written to files, unpacked, and run as a server.

Law: nothing here trusts a name that comes from a server; what is written is called after the kind
of archive it is.
"""

from __future__ import annotations

import contextlib
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Final

from pgrepl import basebackup
from pgrepl.testing import TemporaryServer

__all__ = ["SavedBackup", "restored_server", "save"]

_MODES: Final = {".tar": "r:", ".gz": "r:gz"}


class SavedBackup:
    """A base backup in files, and the events other than data that came with it."""

    def __init__(self, folder: Path) -> None:
        self.events: list[basebackup.BackupEvent] = []
        self.archives: dict[int | None, Path] = {}
        self.manifest: Path | None = None
        self._folder = folder

    @property
    def start(self) -> basebackup.BackupStart:
        """The first event."""
        assert isinstance(self.events[0], basebackup.BackupStart)
        return self.events[0]

    @property
    def end(self) -> basebackup.BackupEnd:
        """The last event."""
        assert isinstance(self.events[-1], basebackup.BackupEnd)
        return self.events[-1]

    def take(self, event: basebackup.BackupEvent, files: contextlib.ExitStack) -> IO[bytes] | None:
        """Take note of an event; return the file that data from here on belongs to, where another
        one begins."""
        self.events.append(event)
        if isinstance(event, basebackup.ArchiveStart):
            path = self._folder / f"{event.oid or 'base'}{Path(event.name).suffix}"
            self.archives[event.oid] = path
        elif isinstance(event, basebackup.ManifestStart):
            path = self.manifest = self._folder / "backup_manifest"
        else:
            return None
        return files.enter_context(path.open("xb"))

    def open_archive(self, oid: int | None = None) -> tarfile.TarFile:
        """An archive, to be closed."""
        path = self.archives[oid]
        return tarfile.open(path, _MODES[path.suffix])  # type: ignore[call-overload,no-any-return]

    def unpack(self, target: Path, tablespaces: Mapping[int, Path] | None = None) -> Path:
        """Make a data directory of it, with the manifest in it; each tablespace goes to a folder of
        its own."""
        target.mkdir(mode=0o700)
        with self.open_archive() as archive:
            archive.extractall(target, filter="tar")
        for oid, folder in (tablespaces or {}).items():
            folder.mkdir(mode=0o700)
            with self.open_archive(oid) as archive:
                archive.extractall(folder, filter="tar")
            link = target / "pg_tblspc" / str(oid)
            link.unlink(missing_ok=True)
            link.symlink_to(folder)
        if self.manifest is not None:
            shutil.copy(self.manifest, target / "backup_manifest")
        return target


def save(events: Iterable[basebackup.BackupEvent], folder: Path) -> SavedBackup:
    """Write a base backup into a new folder while it comes."""
    folder.mkdir()
    saved = SavedBackup(folder)
    file: IO[bytes] | None = None
    with contextlib.ExitStack() as files:
        for event in events:
            if isinstance(event, basebackup.ArchiveData | basebackup.ManifestData):
                assert file is not None
                file.write(event.data)
            else:
                file = saved.take(event, files) or file
    return saved


def restored_server(
    bin_directory: Path,
    fill: Callable[[Path], object],
    *,
    settings: Mapping[str, str | int | bool] | None = None,
    standby: bool = False,
) -> TemporaryServer:
    """A server on data that were made elsewhere: `fill` makes the data directory.

    `settings` go before those that the data bring along; a `standby` follows what they name.
    """

    def filled(path: Path) -> None:
        fill(path)
        if standby:
            (path / "standby.signal").touch()

    return TemporaryServer(bin_directory, settings=settings, fill=filled)
