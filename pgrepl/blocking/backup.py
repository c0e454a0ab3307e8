"""A base backup that is being read: the events of `protocol.backup_stream`.

The command goes out when the first event is asked for. Nothing but its end, an error or the end of
the connection ends a backup at the server, so that one which is left early costs the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from ..ownership import Uncopied
from ..protocol.backup_stream import BackupEvent, BackupStream

__all__ = ["Backup"]


class Backup(Uncopied, Iterator[BackupEvent]):
    """A base backup, made by `Connection.base_backup`: iterate over it for its events, once.

    A `TimeoutError` loses nothing: the next event can be asked for again. Until the last event, or
    an error, the connection takes no commands. As a context manager it closes the connection where
    the backup was left before its end.
    """

    def __init__(
        self,
        stream: BackupStream,
        receive: Callable[[], BackupEvent | None],
        give_up: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._receive = receive
        self._give_up = give_up

    def __next__(self) -> BackupEvent:
        event = self._receive()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream.is_under_way:
            self._give_up()
