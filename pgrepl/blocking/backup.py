"""A base backup that is being read: the events of `protocol.backup_stream`.

The command goes out when the first event is asked for. Nothing but its end, an error or the end of
the connection ends a backup at the server, so that one which is left early costs the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from ..ownership import Uncopied
from ..protocol.backup_stream import BackupEvent, BackupStream
from ..public import imported_from

__all__ = ["Backup"]


class BackupWire(Protocol):
    """What a base backup needs of its connection."""

    def next_event(self, backup: BackupStream, timeout: float | None) -> BackupEvent | None:
        """Wait for the next event; None behind the last one."""

    def disconnect(self) -> None:
        """Close the connection, telling the server if that takes no waiting."""


@imported_from("pgrepl.basebackup")
class Backup(Uncopied, Iterator[BackupEvent]):
    """A base backup, made by `Connection.base_backup`: iterate over it for its events, once.

    A `TimeoutError` loses nothing: the next event can be asked for again. Until the last event, or
    an error, the connection takes no commands. As a context manager it closes the connection where
    the backup was left before its end.
    """

    def __init__(self, wire: BackupWire, stream: BackupStream, timeout: float | None) -> None:
        self._wire = wire
        self._stream = stream
        self._timeout = timeout  # of each event

    def __next__(self) -> BackupEvent:
        event = self._wire.next_event(self._stream, self._timeout)
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
            self._wire.disconnect()
