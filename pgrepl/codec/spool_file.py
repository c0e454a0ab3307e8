"""A temporary file of a spool: written at its end by one thread, read anywhere by any.

Law: it is never closed under anybody. Whoever needs it holds it, and with the last of them it is
gone: the descriptor is closed, and what the file took on disk is free.
"""

from __future__ import annotations

import os
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, final

from ..errors import SpoolError

__all__ = ["SpoolFile", "damaged"]

_HAS_PREAD: Final = hasattr(os, "pread")


def damaged() -> SpoolError:
    """Return the error for a file in which something else stands than was written."""
    return SpoolError(
        "expected to read from a temporary file what was written to it, got something else: "
        "another program or the disk has damaged it; start the stream again, which brings what was "
        "not acknowledged once more"
    )


class _Closing:
    """Closes a file when nobody has this any more.

    Apart from `SpoolFile`: what weak references lead to is found by them while its own ``__del__``
    runs, and would be handed out closed. Here they have been cleared before.
    """

    __slots__ = ("_file",)

    def __init__(self, file: Any) -> None:
        self._file: Final = file

    def __del__(self) -> None:
        self._file.close()


@final
class SpoolFile:
    """A file without a name where the system allows that. Raises `OSError`."""

    __slots__ = ("__weakref__", "_closing", "_descriptor", "_file", "_turn", "size")

    def __init__(self, directory: str | Path | None) -> None:
        import tempfile  # which loads compression and more, for a file that few streams need

        file: Any = tempfile.TemporaryFile(  # noqa: SIM115 - closed when nobody has this any more
            buffering=0, prefix="pgrepl-", dir=directory
        )
        self._file = file
        self._closing: Final = _Closing(file)
        self.size = 0
        """Bytes that were written."""
        self._descriptor: int | None = None
        try:
            if _HAS_PREAD:
                self._descriptor = file.fileno()
        except OSError:
            pass  # something that is read as if it were a file
        # Where nothing is read but from the file's one position, who has this may move that.
        self._turn: SimpleQueue[None] = SimpleQueue()
        self._turn.put(None)

    def append(self, data: memoryview) -> None:
        """Write to the end."""
        if self._descriptor is not None:
            self._write(data)
            return
        self._turn.get()
        try:
            self._file.seek(self.size)
            self._write(data)
        finally:
            self._turn.put(None)

    def _write(self, data: memoryview) -> None:
        while data:
            written = self._file.write(data)
            self.size += written
            data = data[written:]

    def read(self, offset: int, room: memoryview) -> None:
        """Fill `room` with what stands there. Raises `SpoolError` if there is not that much."""
        while room:
            size = self._read_some(offset, room)
            if not size:
                raise damaged()
            offset += size
            room = room[size:]

    def _read_some(self, offset: int, room: memoryview) -> int:
        # Without the file's position: a forked child shares that.
        if self._descriptor is not None:
            data = os.pread(self._descriptor, len(room), offset)
            room[: len(data)] = data
            return len(data)
        self._turn.get()
        try:
            self._file.seek(offset)
            return int(self._file.readinto(room) or 0)
        finally:
            self._turn.put(None)
