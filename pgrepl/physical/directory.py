"""A directory of WAL files on disk, written so that nothing outside of it is ever touched.

Law: a name is opened relative to the directory that was opened first, never by a path, and never
through a link; a new file is new. Whatever a server, or whoever can write to the directory, puts
there: a link leads nowhere. The directory itself may be reached by one, since its owner says where
it is.

One process at a time: the directory is locked while it is open, and free again when its process
has ended in whatever way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

from ..errors import UsageError
from .abc import Entry

__all__ = ["WalDirectory"]

_POSIX: Final = os.name == "posix"


class WalDirectory:
    """An open directory; see `abc.Directory`.

    `fsync` False: nothing is made durable, and everything counts as if it were. `mode`: of new
    files. Raises `OSError`, `BlockingIOError` where another process has it open.
    """

    def __init__(self, path: str | Path, *, fsync: bool = True, mode: int = 0o600) -> None:
        if not _POSIX:
            raise UsageError(
                "expected a POSIX system (Linux, macOS, WSL): files cannot be opened relative to a "
                "directory here, nor be told apart from links"
            )
        self._path = os.fspath(path)
        self._fsync = fsync
        self._mode = mode
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(self._descriptor, self._path)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """The path that it was opened by."""
        return self._path

    def entries(self) -> list[Entry]:
        """Return what is in it."""
        found = []
        with os.scandir(self._descriptor) as scanned:
            for entry in scanned:
                # One that is gone by now was none of ours.
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    regular = stat.S_ISREG(status.st_mode)
                    found.append(Entry(entry.name, status.st_size, regular))
        return found

    def create(self, name: str) -> WalFile:
        """Make a file, which must not be there."""
        descriptor = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.fchmod(descriptor, self._mode)  # whatever the umask: the server's own rule
        except BaseException:
            os.close(descriptor)
            raise
        return WalFile(descriptor, name, self._fsync)

    def open(self, name: str) -> WalFile | None:
        """Open a file for writing; None: it is not there."""
        try:
            descriptor = self._open(name, os.O_WRONLY)
        except FileNotFoundError:
            return None
        return WalFile(descriptor, name, self._fsync)

    def read(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return os.fdopen(self._open(name, os.O_RDONLY), "rb")

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, or a link by that name, but not what it leads to."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def sync_file(self, name: str) -> None:
        """Return when a file is durable."""
        descriptor = self._open(name, os.O_RDONLY)
        try:
            if self._fsync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Return when all names are durable."""
        if self._fsync:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Let it go, and the lock with it."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _open(self, name: str, flags: int) -> int:
        if self._descriptor < 0:
            # Else it would be taken for the working directory of the process, or for another file.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), name)
        # Without blocking, since a FIFO of that name would keep whoever opens it.
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(name, flags, self._mode, dir_fd=self._descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "expected a regular file", name)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WalFile:
    """A file that is being written; see `abc.File`."""

    def __init__(self, descriptor: int, name: str, fsync: bool) -> None:
        self._descriptor = descriptor
        self._name = name
        self._fsync = fsync

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return os.fstat(self._descriptor).st_size

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of the bytes there."""
        with memoryview(data) as rest, self._named():
            written = 0
            while written < len(rest):
                count = os.pwrite(self._descriptor, rest[written:], offset + written)
                if not count:
                    raise OSError(errno.EIO, "the system takes no more bytes")
                written += count

    def sync(self) -> None:
        """Return when what was written is durable."""
        with self._named():
            if os.fstat(self._descriptor).st_nlink == 0:
                # It takes bytes, and syncs them, and nobody will ever find them again.
                raise FileNotFoundError(errno.ENOENT, "somebody has removed the file")
            if self._fsync:
                os.fsync(self._descriptor)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Add to what the system says of which file it is, which it was given a number of."""
        try:
            yield
        except OSError as error:
            error.filename = self._name
            raise

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _lock(descriptor: int, path: str) -> None:
    # Not at the top: Windows has no such module, and must get as far as the error that says so.
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        error.filename = path
        raise
    except OSError:
        # A file system that has no locks, of a network for instance. It is a safeguard, no need.
        return
