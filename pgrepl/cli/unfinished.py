"""The last line of a file, where a run that was killed, or a loss of power, left it unfinished.

Law: what goes on in a file begins a line of its own. So a line without its end is cut off before
anything is written; it was never acknowledged, and comes again. Nothing else is: not what may be
somebody else's, by its own looks or because another process is just writing it.

Memory is bounded, however long line and file are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import IO, Final

__all__ = ["cut_back", "is_appended_to", "share"]

_BLOCK: Final = 1 << 16
_BEGINNING: Final = 64
"""Bytes of a line by which it is judged."""
_TRIES: Final = 20
_PAUSE: Final = 0.1
"""Seconds between two tries, while somebody else has the file."""


def cut_back(
    descriptor: int,
    name: str,
    is_ours: Callable[[bytes], bool],
    say: Callable[[str], None],
) -> None:
    """Cut off a last line that has no end, and say so. For a descriptor that appends.

    `is_ours` is asked by the first bytes of the line. Raises `OSError`, also where the line is not
    ours, or another process has the file and does not finish it. What is no regular file is left
    alone.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not os.fstat(descriptor).st_size:
        return
    with _opened_for_reading(descriptor, name) as file:
        if file is None:
            say(f"{name} cannot be read, so nobody knows whether its last line is whole")
            return
        for _ in range(_TRIES):
            if _ends_with_whole_line(file):
                return
            with _locked_alone(file) as is_alone:
                if is_alone and (count := _cut_last_line(descriptor, file, is_ours)):
                    say(
                        f"{name} ended in the middle of a line, as a run that was killed leaves "
                        f"it: {count} bytes without an end are taken off again"
                    )
                    return
            time.sleep(_PAUSE)
    raise OSError(errno.EBUSY, "another process is in the middle of a line of it")


def _cut_last_line(descriptor: int, file: IO[bytes], is_ours: Callable[[bytes], bool]) -> int:
    """Return how many bytes were cut off; 0: the file grows, so that somebody writes to it."""
    size = file.seek(0, os.SEEK_END)
    start = _start_of_last_line(file, size)
    file.seek(start)
    if not is_ours(file.read(_BEGINNING)):
        raise OSError(
            errno.EILSEQ,
            "its last line has no end, and is none that this program writes: end it, or take "
            "another file",
        )
    if os.fstat(descriptor).st_size != size:
        return 0
    os.ftruncate(descriptor, start)
    return size - start


def _ends_with_whole_line(file: IO[bytes]) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    return file.read(1) in (b"", b"\n")


def _start_of_last_line(file: IO[bytes], size: int) -> int:
    """Return where the last line begins, read backwards."""
    while size:
        start = max(size - _BLOCK, 0)
        file.seek(start)
        end = file.read(size - start).rfind(b"\n")
        if end >= 0:
            return start + end + 1
        size = start
    return 0


@contextlib.contextmanager
def _opened_for_reading(descriptor: int, name: str) -> Iterator[IO[bytes] | None]:
    """Open the same file for reading, which its descriptor may not be; None: it cannot be."""
    status = os.fstat(descriptor)
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    for path in (name, f"/proc/self/fd/{descriptor}"):
        try:
            reader = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            continue
        with os.fdopen(reader, "rb", buffering=0) as file:
            if os.path.samestat(os.fstat(reader), status):
                yield file
                return
    yield None


@contextlib.contextmanager
def _locked_alone(file: IO[bytes]) -> Iterator[bool]:
    """Have the file for oneself among those that `share` it; say whether that is so."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield True
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    except OSError:  # a file system that has no locks
        yield True
        return
    try:
        yield True
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def share(descriptor: int) -> None:
    """Let other runs know, for as long as it is open, that somebody writes to the file."""
    with contextlib.suppress(ModuleNotFoundError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def is_appended_to(descriptor: int) -> bool:
    """Whether what is written to a descriptor goes to the end of a file, as by a shell's >>."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return False
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
