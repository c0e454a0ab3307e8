"""A directory of its own, and what is made in it, so that nothing outside of it is ever touched.

Law: every name is looked up relative to the directory that was opened first, component by
component, and never through a link; whatever is made is new. The directory itself is absent or
empty when it is opened, so that all that is in it later was made here, and may be removed again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from ..errors import BackupStorageError, UsageError

__all__ = ["Tree", "TreeFile"]

_POSIX: Final = os.name == "posix"
_DIRECTORY: Final = 0 if not _POSIX else os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOFOLLOW: Final = 0 if not _POSIX else os.O_NOFOLLOW

Parts = Sequence[str]


class Tree:
    """An open directory, made if it is not there; a context manager that closes itself.

    `group`: the group may read what is in it, as it may at the server; else its owner alone. Names
    are given as their parts, none of which may be empty, ``.`` or ``..``. Raises `UsageError` for
    a directory that is not empty; every method raises `OSError`.
    """

    def __init__(self, path: str | Path, *, group: bool = False) -> None:
        if not _POSIX:
            raise UsageError(
                "expected a POSIX system (Linux, macOS, WSL): files cannot be opened relative to a "
                "directory here, nor be told apart from links"
            )
        self.path: Final = Path(path).absolute()
        self._modes = (0o750, 0o640) if group else (0o700, 0o600)
        self._made = _make(self.path, self._modes[0])
        try:
            self._descriptor = os.open(self.path, _DIRECTORY)
        except BaseException:
            self._unmake()
            raise
        # The directory that was used last, since its neighbours are likely to follow.
        self._parent: tuple[tuple[str, ...], int] | None = None
        try:
            self._expect_empty()
        except BaseException:
            self.close()
            raise
        with contextlib.suppress(PermissionError):  # it may belong to somebody else
            os.fchmod(self._descriptor, self._modes[0])

    def _expect_empty(self) -> None:
        with os.scandir(self._descriptor) as entries:
            if next(entries, None) is not None:
                raise UsageError(
                    f"expected {self.path} to be an empty directory, or none at all, but there is "
                    "something in it: remove that, or use another directory"
                )

    # Making

    def make_directory(self, parts: Parts) -> None:
        """Make a directory, which must not be there."""

        def make(name: str, parent: int) -> None:
            os.mkdir(name, self._modes[0], dir_fd=parent)
            os.chmod(name, self._modes[0], dir_fd=parent)  # whatever the umask

        self._inside(parts, make)

    def create(self, parts: Parts) -> TreeFile:
        """Make a file, which must not be there, for writing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | _NOFOLLOW

        def create(name: str, parent: int) -> TreeFile:
            descriptor = os.open(name, flags, self._modes[1], dir_fd=parent)
            os.fchmod(descriptor, self._modes[1])
            return TreeFile(descriptor, self._shown(parts))

        file: TreeFile = self._inside(parts, create)
        return file

    def make_link(self, parts: Parts, target: str) -> None:
        """Make a symbolic link, which must not be there."""
        self._inside(parts, lambda name, parent: os.symlink(target, name, dir_fd=parent))

    def rename(self, parts: Parts, name: str) -> None:
        """Give a file another name in the same directory."""
        self._inside(
            parts, lambda old, parent: os.rename(old, name, src_dir_fd=parent, dst_dir_fd=parent)
        )

    def remove_file(self, parts: Parts) -> None:
        """Remove a file."""
        self._inside(parts, lambda name, parent: os.unlink(name, dir_fd=parent))

    def remove_directory(self, parts: Parts) -> None:
        """Remove a directory, which must be empty."""
        self._forget_parent()
        self._inside(parts, lambda name, parent: os.rmdir(name, dir_fd=parent))

    # Looking

    def names(self, parts: Parts) -> list[str]:
        """Return what is in a directory, in order."""
        found: list[str] = self._inside([*parts, ""], lambda _, parent: _names(parent))
        return sorted(found)

    @contextlib.contextmanager
    def read(self, parts: Parts) -> Iterator[int]:
        """A descriptor for reading a file."""
        flags = os.O_RDONLY | os.O_CLOEXEC | _NOFOLLOW
        descriptor: int = self._inside(
            parts, lambda name, parent: os.open(name, flags, dir_fd=parent)
        )
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    # The end

    def sync(self, beat: Callable[[], None]) -> None:
        """Return when all that is in it is durable; files first, and then their directories.

        `beat` is called for each of them.
        """
        _sync_below(self._descriptor, beat)

    def sync_names(self) -> None:
        """Return when the names in the directory itself are durable, and its own is."""
        os.fsync(self._descriptor)
        if self._made:
            parent = os.open(self.path.parent, _DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)

    def remove(self) -> None:
        """Remove all that is in it, and itself if it was made here. Does what it can."""
        self._forget_parent()
        for name in _names(self._descriptor):
            with contextlib.suppress(OSError):
                status = os.lstat(name, dir_fd=self._descriptor)
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(name, ignore_errors=True, dir_fd=self._descriptor)
                else:
                    os.unlink(name, dir_fd=self._descriptor)
        self._unmake()

    def close(self) -> None:
        """Let it go. Safe to call again."""
        self._forget_parent()
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def storing(self, what: str) -> Iterator[None]:
        """Raise `BackupStorageError` for what the system says in the body."""
        try:
            yield
        except OSError as error:
            name = f"{error.filename!r} in " if isinstance(error.filename, str) else ""
            raise BackupStorageError(
                f"expected to {what} in {name}{self.path}, but the system says: "
                f"{error.strerror or type(error).__name__}. There is no backup; put that right and "
                "begin again"
            ) from error

    # Inside

    def _inside(self, parts: Parts, work: Callable[[str, int], Any]) -> Any:
        *parents, name = parts
        try:
            return work(name, self._open_parent(tuple(parents)))
        except OSError as error:
            error.filename, error.filename2 = self._shown(parts), None
            raise

    def _open_parent(self, parts: tuple[str, ...]) -> int:
        if self._descriptor < 0:
            # Else it would be taken for the working directory of the process.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if not parts:
            return self._descriptor
        if self._parent is not None:
            known, descriptor = self._parent
            if known == parts:
                return descriptor
        self._forget_parent()
        descriptor = os.dup(self._descriptor)
        try:
            for part in parts:
                below = os.open(part, _DIRECTORY | _NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
        except BaseException:
            os.close(descriptor)
            raise
        self._parent = (parts, descriptor)
        return descriptor

    def _forget_parent(self) -> None:
        if self._parent is not None:
            (_, descriptor), self._parent = self._parent, None
            os.close(descriptor)

    def _shown(self, parts: Parts) -> str:
        return "/".join(parts).rstrip("/")

    def _unmake(self) -> None:
        if self._made:
            with contextlib.suppress(OSError):
                self.path.rmdir()


class TreeFile:
    """A new file that is being written."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    def write(self, data: bytes | memoryview) -> None:
        """Write all of the bytes behind those that are there."""
        rest = memoryview(data)
        try:
            while rest:
                count = os.write(self._descriptor, rest)
                if not count:
                    raise OSError(errno.EIO, "the system takes no more bytes")
                rest = rest[count:]
        except OSError as error:
            error.filename = self._name
            raise

    def close(self) -> None:
        """Close it. Safe to call again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _make(path: Path, mode: int) -> bool:
    """Make a directory and those above it, and say whether it was not there."""
    try:
        path.mkdir(mode)
    except FileExistsError:
        return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode)
    return True


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _sync_below(directory: int, beat: Callable[[], None]) -> None:
    with os.scandir(directory) as scanned:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scanned]
    for name, is_directory in sorted(entries, key=lambda entry: entry[1]):
        if not is_directory and stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
            continue  # its name is synced with the directory, and there is no more to it
        flags = _DIRECTORY if is_directory else os.O_RDONLY | os.O_CLOEXEC
        descriptor = os.open(name, flags | _NOFOLLOW, dir_fd=directory)
        try:
            if is_directory:
                _sync_below(descriptor, beat)
            else:
                os.fsync(descriptor)
        except OSError as error:
            error.filename = error.filename or name
            raise
        finally:
            os.close(descriptor)
        beat()
    os.fsync(directory)
