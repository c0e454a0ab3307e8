"""Base backups, received and kept: archives, or a data directory that a server starts from.

Law: only `tree` touches files, but for the WAL beside, which `physical` receives; only `tar` reads
what a server says about them; only `drivers` and `wal` wait.
"""

from ..facade import facade as _facade

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from ..aio.backup import AsyncBackup
    from ..blocking.backup import Backup
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
    from .drivers import receive_base_backup
    from .settings import BackupProgress, ReceivedBackup

__all__ = [
    "ArchiveData",
    "ArchiveStart",
    "AsyncBackup",
    "Backup",
    "BackupEnd",
    "BackupEvent",
    "BackupOptions",
    "BackupProgress",
    "BackupStart",
    "ManifestData",
    "ManifestStart",
    "Progress",
    "ReceivedBackup",
    "Tablespace",
    "receive_base_backup",
]

_NAMES = {
    "ArchiveData": "..protocol.backup_stream",
    "ArchiveStart": "..protocol.backup_stream",
    "AsyncBackup": "..aio.backup",
    "Backup": "..blocking.backup",
    "BackupEnd": "..protocol.backup_stream",
    "BackupEvent": "..protocol.backup_stream",
    "BackupOptions": "..protocol.base_backup",
    "BackupProgress": ".settings",
    "BackupStart": "..protocol.backup_stream",
    "ManifestData": "..protocol.backup_stream",
    "ManifestStart": "..protocol.backup_stream",
    "Progress": "..protocol.backup_stream",
    "ReceivedBackup": ".settings",
    "Tablespace": "..protocol.backup_stream",
    "receive_base_backup": ".drivers",
}
"""The module that has each name, which is loaded with the first use of it."""

__getattr__, __dir__ = _facade(__name__, _NAMES)
