"""What is asked for when a base backup is to be received, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..aio.connection import AsyncConnection
from ..blocking.connection import Connection
from ..errors import UsageError
from ..lsn import Lsn
from ..protocol.backup_stream import Tablespace
from ..protocol.base_backup import BackupOptions
from ..public import imported_from
from .compression import ArchiveCompression

__all__ = ["BackupFormat", "BackupProgress", "Phase", "ReceivedBackup", "Settings", "WalMethod"]

BackupFormat: TypeAlias = Literal["plain", "tar"]
WalMethod: TypeAlias = Literal["none", "fetch", "stream"]
Phase: TypeAlias = Literal["beginning", "receiving", "wal", "syncing"]

_MANIFESTS = 130000


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class BackupProgress:
    """How far a base backup has come.

    `phase`: ``beginning`` while the server makes its checkpoint, ``receiving``, ``wal`` while the
    rest of that is waited for, ``syncing``. `done`: bytes of the data directory and the
    tablespaces; `total`: the server's estimate of them, which may turn out to be wrong, None before
    it is known.
    """

    phase: Phase
    done: int
    total: int | None


@imported_from("pgrepl.basebackup")
@dataclass(frozen=True, slots=True)
class ReceivedBackup:
    """A base backup that is whole and, unless that was not wanted, durable.

    It needs the WAL of `timeline` from `start_lsn` to `end_lsn`. `files`: of the tar format, what
    they are called, without the manifest. `size`: bytes of archives that came from the server.
    """

    directory: Path
    start_lsn: Lsn
    end_lsn: Lsn
    timeline: int
    tablespaces: tuple[Tablespace, ...]
    files: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Settings:
    """See `receive_base_backup`."""

    format: BackupFormat
    wal: WalMethod
    wal_connection: Connection | AsyncConnection | None
    slot: str | None
    create_slot: bool
    temporary_slot: bool
    compression: ArchiveCompression | None
    incremental: str | Path | None
    tablespace_mapping: Mapping[str, str | Path]
    fsync: bool
    clean: bool
    progress: Callable[[BackupProgress], object] | None
    asked: BackupOptions

    def __post_init__(self) -> None:
        if self.format not in ("plain", "tar"):
            raise UsageError(f"expected a format 'plain' or 'tar', got {self.format!r}")
        if self.wal not in ("none", "fetch", "stream"):
            raise UsageError(f"expected wal 'none', 'fetch' or 'stream', got {self.wal!r}")
        self._check_streaming()
        if self.format == "tar":
            if self.tablespace_mapping:
                raise UsageError(
                    "expected no tablespace_mapping in tar format: each tablespace is an archive, "
                    "and goes where that is unpacked"
                )
        elif self.compression is not None:
            if self.compression.where == "client":
                raise UsageError(
                    "expected no compression by the client in plain format, which has no archives "
                    "to compress; 'server-gzip' compresses what goes over the network"
                )
            self.compression.decompressor()  # there is one, or this says what is missing
        for old, new in self.tablespace_mapping.items():
            if not (Path(old).is_absolute() and Path(new).is_absolute()):
                raise UsageError(
                    f"expected absolute paths in tablespace_mapping, got {str(old)!r}, {str(new)!r}"
                )

    def _check_streaming(self) -> None:
        if self.wal == "stream":
            if self.wal_connection is None:
                raise UsageError(
                    "expected a wal_connection for wal='stream': a second connection to the same "
                    'server, made like the first with replication="physical"'
                )
            if self.create_slot and self.slot is None:
                raise UsageError("expected a slot where create_slot is given: its name")
        elif self.slot is not None or self.create_slot:
            raise UsageError(
                f"expected no slot with wal={self.wal!r}: only streamed WAL can go through one"
            )

    def command(self, server_version: int) -> BackupOptions:
        """Return the options of the command itself."""
        asked = self.asked.copy()
        asked["progress"] = self.progress is not None
        asked["wal"] = self.wal == "fetch"
        # What is asked for brings the last WAL along; else it must be in the archive by then.
        asked["wait"] = self.wal == "none"
        asked["tablespace_map"] = self.format == "tar"
        if asked.get("manifest") is None and server_version >= _MANIFESTS:
            asked["manifest"] = "yes"
        if self.incremental is not None:
            asked["incremental"] = True
        if self.compression is not None and self.compression.where == "server":
            asked["compression"] = self.compression.method  # type: ignore[typeddict-item]
            asked["compression_detail"] = self.compression.detail or None
        return asked
