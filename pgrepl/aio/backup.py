"""A base backup that is being read in an event loop; see `blocking.backup`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from ..ownership import Uncopied
from ..protocol.backup_stream import BackupEvent, BackupStream
from ..public import imported_from

__all__ = ["AsyncBackup"]


class AsyncBackupWire(Protocol):
    """What a base backup needs of its connection."""

    async def next_event(self, backup: BackupStream, timeout: float | None) -> BackupEvent | None:
        """Wait for the next event; None behind the last one."""

    async def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting."""


@imported_from("pgrepl.basebackup")
class AsyncBackup(Uncopied, AsyncIterator[BackupEvent]):
    """A base backup, made by `AsyncConnection.base_backup`; see `Backup`.

    A cancellation loses nothing either.
    """

    def __init__(self, wire: AsyncBackupWire, stream: BackupStream, timeout: float | None) -> None:
        self._wire = wire
        self._stream = stream
        self._timeout = timeout  # of each event

    async def __anext__(self) -> BackupEvent:
        event = await self._wire.next_event(self._stream, self._timeout)
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream.is_under_way:
            await self._wire.disconnect()
