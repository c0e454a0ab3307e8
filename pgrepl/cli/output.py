"""Lines on their way to a file descriptor, and the positions that they stand for.

Law: a position is done when the last byte of its line, and all before it, was taken by the
operating system. Nothing is buffered behind that, so what is acknowledged was written.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Final

__all__ = ["Output"]

# What a pipe takes without blocking once it is ready.
_PIECE: Final[int] = getattr(select, "PIPE_BUF", 4096)


class Output:
    """Writes lines to `descriptor` in pieces that do not block once it is ready for writing."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._unwritten = bytearray()
        self._written = 0
        self._mid_line = False
        # (bytes that must have been written for it, position), both rising.
        self._marks: deque[tuple[int, int]] = deque()

    @property
    def pending(self) -> bool:
        """Whether there is something left to write or a position that is not done."""
        return bool(self._unwritten or self._marks)

    def put(self, line: str | None, position: int = 0) -> None:
        """Add a line, if there is one, and then a position, if it is not 0."""
        if line is not None:
            self._unwritten += line.encode() + b"\n"
        if position:
            self._marks.append((self._written + len(self._unwritten), position))

    def cut(self) -> None:
        """Forget what is not written yet, but for the rest of a line that has begun."""
        rest = self._unwritten.find(b"\n") + 1 if self._mid_line else 0
        del self._unwritten[rest:]
        while self._marks and self._marks[-1][0] > self._written + rest:
            self._marks.pop()

    def write(self) -> int:
        """Write one piece; return the highest position that is done by that, or 0.

        Raises `BrokenPipeError` when nobody reads any more, or another `OSError`.
        """
        if self._unwritten:
            count = os.write(self.descriptor, self._unwritten[:_PIECE])
            self._mid_line = not self._unwritten[:count].endswith(b"\n")
            del self._unwritten[:count]
            self._written += count
        done = 0
        while self._marks and self._marks[0][0] <= self._written:
            done = self._marks.popleft()[1]
        return done
