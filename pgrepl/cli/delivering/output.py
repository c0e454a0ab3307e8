"""What is streamed, on its way to a file descriptor, and the positions that it stands for.

Law: a position is written when the last byte of what it stands for, and all before it, was taken by
the operating system, and durable when it would survive a crash as far as that can be had: of a
regular file when `sync` has come back, of anything else, a pipe or a terminal, when it is written.
Nothing is buffered behind that. An fsync that failed is never tried again, since the system may
have thrown away what it could not write.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..unfinished import share

__all__ = ["Output"]

# What a pipe takes without blocking once it is ready.
_PIECE: Final[int] = getattr(select, "PIPE_BUF", 4096)
_ENCODED: Final = 1 << 20
"""Characters of a line that are encoded at once."""
_FLAGS: Final[int] = (
    os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
)


class Output:
    """Writes what it is given, in pieces that do not block once the descriptor is ready.

    `written` and `durable` are the highest positions for which that holds. `path`: the file to open
    again after a `reopen`, None for a descriptor that somebody else has opened. `is_file`: it is a
    regular file, which is always ready.
    """

    def __init__(
        self,
        descriptor: int,
        path: Path | None = None,
        *,
        syncs: bool = True,
        mend: Callable[[int], None] | None = None,
    ) -> None:
        """`syncs` False: what is written counts as durable, of a file as well. `mend` is called
        with the descriptor of each file that is opened anew."""
        self.path = path
        self.written = 0
        self.durable = 0
        self._syncs = syncs
        self._mend = mend
        self._unwritten = bytearray()
        self._count = 0  # bytes that were written
        self._whole = 0  # of them, up to the end of a unit: a line, or a message
        # (bytes that must have been written for it, position), an entry for each unit, both rising.
        self._marks: deque[tuple[int, int]] = deque()
        self._write_to(descriptor)

    @classmethod
    def of(
        cls, path: Path, *, syncs: bool = True, mend: Callable[[int], None] | None = None
    ) -> Output:
        """Open a file to append to, and make it where there is none. Raises `OSError`, and what
        `mend` raises, which is called with the descriptor before anything is written."""
        return cls(_open_to_append(path, mend), path, syncs=syncs, mend=mend)

    def _write_to(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)

    @property
    def pending(self) -> bool:
        """Whether there is something left to write or a position that is not done."""
        return bool(self._unwritten or self._marks)

    @property
    def unsynced(self) -> bool:
        """Whether something was written that `sync` would make durable."""
        return self.durable < self.written

    def put(self, line: str | None, position: int = 0) -> None:
        """Add a line, if there is one, and then a position, if it is not 0."""
        if line is None:
            self.put_bytes(b"", position)
            return
        # Piece by piece, so that other threads can run between two of them.
        for start in range(0, len(line), _ENCODED):
            self._unwritten += line[start : start + _ENCODED].encode()
        self.put_bytes(b"\n", position)

    def put_bytes(self, data: bytes, position: int = 0) -> None:
        """Add bytes that are to be written whole or not at all, and then a position."""
        self._unwritten += data
        if data or position:
            self._marks.append((self._count + len(self._unwritten), position))

    def cut(self) -> None:
        """Forget what is not written yet, but for the rest of a unit that has begun."""
        rest = 0
        if self._whole < self._count:
            rest = next((end for end, _ in self._marks if end > self._count), 0) - self._count
        del self._unwritten[max(rest, 0) :]
        while self._marks and self._marks[-1][0] > self._count + rest:
            self._marks.pop()

    def write(self) -> None:
        """Write one piece. Raises `BrokenPipeError` when nobody reads any more, or `OSError`."""
        if self._unwritten:
            # A file takes it all at once. The slice is a copy, since the buffer changes behind it.
            piece = self._unwritten if self.is_file else self._unwritten[:_PIECE]
            count = os.write(self.descriptor, piece)
            del self._unwritten[:count]
            self._count += count
        while self._marks and self._marks[0][0] <= self._count:
            self._whole, position = self._marks.popleft()
            self.written = max(self.written, position)
        if not (self.is_file and self._syncs):
            self.durable = self.written

    def sync(self) -> None:
        """Make durable what was written. Raises `OSError`, and is not to be called after that."""
        if self.unsynced:
            os.fsync(self.descriptor)
            self.durable = self.written

    def reopen(self) -> None:
        """Make durable what was written and go on in the file that has the path now, made where
        there is none. Nothing must be pending. Raises `OSError`."""
        if self.path is None:
            return
        self.sync()
        before, descriptor = self.descriptor, _open_to_append(self.path, self._mend)
        self._write_to(descriptor)
        os.close(before)

    def take_back(self) -> None:
        """After a failed write: take the beginning of a unit off the end of the file again.

        So that whatever goes on in it begins a line of its own. Of a file that was opened here, and
        unless somebody else has written behind it.
        """
        begun, self._count = self._count - self._whole, self._whole
        self._unwritten.clear()
        self._marks.clear()
        if begun and self.is_file and self.path is not None:
            with contextlib.suppress(OSError):
                end = os.lseek(self.descriptor, 0, os.SEEK_CUR)
                if os.fstat(self.descriptor).st_size == end:
                    os.ftruncate(self.descriptor, end - begun)

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self.path is not None:
            os.close(self.descriptor)


def _open_to_append(path: Path, mend: Callable[[int], None] | None) -> int:
    is_new = False
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        descriptor, is_new = os.open(path, _FLAGS | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR), True
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            if is_new and os.name == "posix":
                _sync_folder(path.parent)
            if mend is not None:
                mend(descriptor)
            share(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sync_folder(folder: Path) -> None:
    """See to it that the name of a new file outlives a crash, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
