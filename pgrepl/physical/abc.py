"""What the writing of WAL needs of a directory: the contract of `directory`, and of its stand-ins.

Everything here may raise `OSError`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import IO, NamedTuple, Protocol

__all__ = ["Directory", "Entry", "File"]


class Entry(NamedTuple):
    """A file of the directory. `regular`: it is a file itself, no link to one and nothing else."""

    name: str
    size: int
    regular: bool


class File(Protocol):
    """A file that is being written."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of the bytes there."""

    def sync(self) -> None:
        """Return when what was written is durable.

        After an error nobody knows what is, and a later call that succeeds tells nothing. A file
        that has been removed from its directory is an error too.
        """

    def close(self) -> None:
        """Close it; what was not synced may be lost. Safe to call again."""


class Directory(Protocol):
    """A directory, and nothing outside of it: names are of files in it, and links are refused."""

    @property
    def path(self) -> str:
        """What its owner calls it, for messages alone."""

    def entries(self) -> list[Entry]:
        """Return what is in it."""

    def create(self, name: str) -> File:
        """Make a file, which must not be there."""

    def open(self, name: str) -> File | None:
        """Open a file for writing; None: it is not there."""

    def read(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file for reading."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in one step; what had it before is gone."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def sync_file(self, name: str) -> None:
        """Return when a file that is complete is durable."""

    def sync(self) -> None:
        """Return when all names are durable."""

    def close(self) -> None:
        """Let it go. Safe to call again."""
