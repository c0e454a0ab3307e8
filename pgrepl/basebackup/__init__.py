"""Base backups, received and kept: archives, or a data directory that a server starts from.

Law: only `tree` touches files, but for the WAL beside, which `physical` receives; only `tar` reads
what a server says about them; only `drivers` and `wal` wait.
"""

from .drivers import receive_base_backup
from .settings import BackupProgress, ReceivedBackup

__all__ = ["BackupProgress", "ReceivedBackup", "receive_base_backup"]
