"""A directory in memory that knows what would survive a loss of power, and fails where it is told.

The model is Linux's: what is written is in memory until the file is synced, and a name until its
directory is. A sync that fails leaves the pages clean: what they held may be lost, and a later sync
of the same file does not notice.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from pgrepl.physical.abc import Entry


class PowerLoss(BaseException):
    """The machine is gone. No code catches this."""


@dataclass
class Inode:
    """A file without a name."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, int]] = field(default_factory=list)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        end = offset + len(data)
        self.content.extend(bytes(max(end - len(self.content), 0)))
        self.content[offset:end] = data
        self.dirty.append((offset, end))

    def sync(self) -> None:
        self.durable.extend(bytes(max(len(self.content) - len(self.durable), 0)))
        for start, end in self.dirty:
            self.durable[start:end] = self.content[start:end]
        self.dirty.clear()

    def fail_to_sync(self) -> None:
        self.dirty.clear()


class Disk:
    """What is on the medium, and what the system has in memory; shared by directories.

    `before`: called with a number and the name of every operation before it is done; what it raises
    is what the operation comes to.
    """

    def __init__(self, before: Callable[[int, str], None] | None = None) -> None:
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.before = before
        self.done: list[str] = []
        self._numbers = itertools.count()

    def step(self, what: str) -> None:
        if self.before is not None:
            self.before(next(self._numbers), what)
        self.done.append(what)

    def after_power_loss(self, names_kept: bool = False, contents_kept: bool = False) -> Disk:
        """Return what is found: of what was not synced, either kind of thing may be there or
        not."""
        left = Disk()
        for name, inode in (self.names if names_kept else self.durable_names).items():
            content = inode.content if contents_kept else inode.durable
            left.put(name, bytes(content))
        return left

    def whatever_is_left(self) -> list[Disk]:
        """Return all that may be found: after a loss of power, and after the end of the process
        alone, to which everything is as it was."""
        lost = [
            self.after_power_loss(names_kept, contents_kept)
            for names_kept in (False, True)
            for contents_kept in (False, True)
        ]
        self.before = None
        return [*lost, self]

    def put(self, name: str, content: bytes) -> None:
        """Add a file that is durable."""
        self.names[name] = self.durable_names[name] = Inode(bytearray(content), bytearray(content))


class MemoryDirectory:
    """See `pgrepl.physical.abc.Directory`."""

    path = "archive"

    def __init__(self, disk: Disk, mode: int = 0o600) -> None:
        self.disk = disk
        self.mode = mode
        self.closed = False

    def entries(self) -> list[Entry]:
        self.disk.step("list")
        return [Entry(n, len(inode.content), True) for n, inode in self.disk.names.items()]

    def create(self, name: str) -> MemoryFile:
        self.disk.step(f"create {name}")
        if name in self.disk.names:
            raise FileExistsError(errno.EEXIST, "File exists", name)
        self.disk.names[name] = Inode()
        return MemoryFile(self.disk, name)

    def open(self, name: str) -> MemoryFile | None:
        self.disk.step(f"open {name}")
        return MemoryFile(self.disk, name) if name in self.disk.names else None

    @contextlib.contextmanager
    def read(self, name: str) -> Iterator[IO[bytes]]:
        self.disk.step(f"read {name}")
        yield io.BytesIO(self.disk.names[name].content)

    def rename(self, old: str, new: str) -> None:
        self.disk.step(f"rename {old} {new}")
        self.disk.names[new] = self.disk.names.pop(old)

    def remove(self, name: str) -> None:
        self.disk.step(f"remove {name}")
        self.disk.names.pop(name, None)

    def sync_file(self, name: str) -> None:
        self.disk.step(f"sync {name}")
        self.disk.names[name].sync()

    def sync(self) -> None:
        self.disk.step("sync names")
        self.disk.durable_names = dict(self.disk.names)

    def close(self) -> None:
        self.closed = True


class MemoryFile:
    """See `pgrepl.physical.abc.File`."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._name = name
        self._inode = disk.names[name]
        self._failed = False
        self._closed = False

    @property
    def size(self) -> int:
        return len(self._inode.content)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        assert not self._closed
        half = len(data) // 2
        self._inode.write(data[:half], offset)
        self._disk.step(f"write {self._name}")  # a write may be cut off in the middle
        self._inode.write(data[half:], offset + half)

    def sync(self) -> None:
        assert not self._closed
        assert not self._failed, "synced again after a failure, as if that told anything"
        try:
            self._disk.step(f"sync {self._name}")
        except OSError:
            self._failed = True
            self._inode.fail_to_sync()
            raise
        self._inode.sync()

    def close(self) -> None:
        self._closed = True
