"""A base backup that is being read in an event loop; see `blocking.backup`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from ..ownership import Uncopied
from ..protocol.backup_stream import BackupEvent, BackupStream

__all__ = ["AsyncBackup"]


class AsyncBackup(Uncopied, AsyncIterator[BackupEvent]):
    """A base backup, made by `AsyncConnection.base_backup`; see `Backup`.

    A cancellation loses nothing either.
    """

    def __init__(
        self,
        stream: BackupStream,
        receive: Callable[[], Awaitable[BackupEvent | None]],
        give_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._receive = receive
        self._give_up = give_up

    async def __anext__(self) -> BackupEvent:
        event = await self._receive()
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
            await self._give_up()
