"""`receive_base_backup`, blocking and for asyncio.

The blocking one works on files between two events, in the caller's thread. In an event loop they
are for a thread, which works on one thing at a time, and the loop looks after the rest meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypedDict, Unpack, overload

from ..aio.connection import AsyncConnection
from ..blocking.connection import Connection
from ..errors import UsageError
from ..ownership import Owner
from ..protocol.base_backup import BackupOptions
from ..protocol.conversation import Steps
from ..public import imported_from
from .compression import ArchiveCompression
from .progress import BEAT
from .receiving import Ask, BackupReceiver, Store
from .settings import BackupFormat, BackupProgress, ReceivedBackup, Settings, WalMethod
from .wal import AsyncWalBeside, WalBeside

__all__ = ["receive_base_backup"]

_Checksums: TypeAlias = Literal["NONE", "CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"]

# Bytes that are collected for the thread: to ask it costs more than to write a few messages.
_GATHERED: Final = 1 << 18


class _Keywords(TypedDict, total=False):
    """The keywords of `receive_base_backup`, which has their meanings and defaults."""

    format: BackupFormat
    wal: WalMethod
    slot: str | None
    create_slot: bool
    temporary_slot: bool
    compress: str
    label: str
    checkpoint: Literal["fast", "spread"] | None
    max_rate: int | None
    verify_checksums: bool | None
    manifest: Literal["yes", "no", "force-encode"] | None
    manifest_checksums: _Checksums | None
    incremental: str | Path | None
    tablespace_mapping: Mapping[str, str | Path] | None
    fsync: bool
    clean: bool
    progress: Callable[[BackupProgress], object] | None


@overload
def receive_base_backup(
    connection: Connection,
    directory: str | Path,
    *,
    wal_connection: Connection | None = None,
    **keywords: Unpack[_Keywords],
) -> ReceivedBackup: ...
@overload
def receive_base_backup(
    connection: AsyncConnection,
    directory: str | Path,
    *,
    wal_connection: AsyncConnection | None = None,
    **keywords: Unpack[_Keywords],
) -> Coroutine[Any, Any, ReceivedBackup]: ...


@imported_from("pgrepl.basebackup")
def receive_base_backup(
    connection: Connection | AsyncConnection,
    directory: str | Path,
    *,
    format: BackupFormat = "tar",
    wal: WalMethod = "fetch",
    wal_connection: Connection | AsyncConnection | None = None,
    slot: str | None = None,
    create_slot: bool = False,
    temporary_slot: bool = True,
    compress: str = "none",
    label: str = "pgrepl base backup",
    checkpoint: Literal["fast", "spread"] | None = None,
    max_rate: int | None = None,
    verify_checksums: bool | None = None,
    manifest: Literal["yes", "no", "force-encode"] | None = None,
    manifest_checksums: _Checksums | None = None,
    incremental: str | Path | None = None,
    tablespace_mapping: Mapping[str, str | Path] | None = None,
    fsync: bool = True,
    clean: bool = True,
    progress: Callable[[BackupProgress], object] | None = None,
) -> ReceivedBackup | Coroutine[Any, Any, ReceivedBackup]:
    """Take a base backup into a directory, as pg_basebackup does, which must be empty or absent.

    With an `AsyncConnection` it is awaited, and `wal_connection` is one as well; files are then
    worked on in a thread, and `progress` is called in the event loop.

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

    An error, a cancellation, or whatever ends it early, closes the connection once the backup has
    begun. Raises `UsageError`, `BackupStorageError`, `WalStorageError`, `SystemMismatch` where
    `wal_connection` leads to another system, `ProtocolError` for archives that PostgreSQL does not
    make, and what `Connection.base_backup`, `Connection.upload_manifest` and `physical.receive_wal`
    raise.
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
    return _driver(connection, settings).run(directory)


def _driver(connection: Connection | AsyncConnection, settings: Settings) -> _Blocking | _Async:
    """Return what drives the connection. Raises `UsageError` where that for the WAL is none to go
    beside it."""
    beside = settings.wal_connection
    is_async = isinstance(connection, AsyncConnection)
    if beside is connection:
        raise UsageError(
            "expected a second connection for the WAL beside the backup, got the same one"
        )
    if beside is not None and isinstance(beside, AsyncConnection) != is_async:
        raise UsageError(
            "expected both connections of one kind, blocking or asyncio's, got "
            f"{type(connection).__name__} and {type(beside).__name__}"
        )
    if isinstance(connection, AsyncConnection):
        return _Async(connection, settings)
    return _Blocking(connection, settings)


class _Blocking:
    """Drives a conversation with a `Connection`."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._backup = connection.base_backup(
            timeout=BEAT, **settings.command(connection.server_version)
        )
        next_event = partial(next, self._backup, None)
        self._receiver = BackupReceiver(connection, settings, next_event, WalBeside)

    def run(self, directory: str | Path) -> ReceivedBackup:
        owner = Owner()
        try:
            with self._backup:
                return Steps(self._receiver.run(directory)).run(_carry_out)
        except BaseException:
            # Not by a child that the callback for progress has forked: the backup goes on.
            if not owner.is_parent:
                Steps(self._receiver.give_up()).run(_carry_out)
            raise
        finally:
            self._receiver.close()


def _carry_out(request: Ask | Store) -> Any:
    return request.call() if isinstance(request, Ask) else request.work()


class _GivenUp(Exception):
    """What ends the work on files when the backup has come to its end."""


class _Async:
    """Drives a conversation with an `AsyncConnection`."""

    def __init__(self, connection: AsyncConnection, settings: Settings) -> None:
        self._backup = connection.base_backup(
            timeout=BEAT, **settings.command(connection.server_version)
        )
        self._receiver = BackupReceiver(
            connection,
            settings,
            partial(anext, self._backup, None),
            AsyncWalBeside,
            beat_of_files=self._go_on,
            gathered=_GATHERED,
        )
        self._given_up = False

    async def run(self, directory: str | Path) -> ReceivedBackup:
        owner = Owner()
        self._disk = ThreadPoolExecutor(1, "pgrepl receive_base_backup")
        try:
            async with self._backup:
                return await Steps(self._receiver.run(directory)).run_async(self._carry_out)
        except BaseException:
            if not owner.is_parent:
                self._given_up = True
                giving_up = Steps(self._receiver.give_up()).run_async(self._carry_out)
                # A task of its own: who is cancelled once more no longer waits for it.
                await asyncio.shield(giving_up)
            raise
        finally:
            if not owner.is_parent:
                close = self._disk.submit(self._receiver.close)
                self._disk.shutdown(wait=False)
                await asyncio.shield(asyncio.wrap_future(close))
            else:
                self._receiver.close()

    def _go_on(self) -> None:
        """Raise `_GivenUp` in the thread, if nobody wants what it does any more."""
        if self._given_up:
            raise _GivenUp

    async def _carry_out(self, request: Ask | Store) -> Any:
        if isinstance(request, Ask):
            return await request.call()
        work: Future[Any] = self._disk.submit(request.work)
        waiting = asyncio.wrap_future(work)
        waiting.add_done_callback(_retrieve_error)
        while not (await asyncio.wait([waiting], timeout=BEAT))[0]:
            if not self._given_up:
                self._receiver.beat()
        return waiting.result()


def _retrieve_error(future: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not future.cancelled():
        future.exception()
