"""A base backup in tar format: each archive is a file, compressed here if that was asked for.

Law: files are called after what they are, a number and what was asked for, never as the server
says.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from typing import IO, Final, cast

from ..physical.compression import Compression, Compressor
from ..protocol.backup_stream import ArchiveStart
from .tree import Tree, TreeFile

__all__ = ["Archives", "ArchiveFile", "pack_wal"]

_READ: Final = 1 << 18


class Archives:
    """Stores the archives of one backup."""

    def __init__(self, tree: Tree, compression: Compression | None) -> None:
        self._tree = tree
        self._compression = compression
        self._file: ArchiveFile | None = None

    def begin(self, start: ArchiveStart) -> None:
        """An archive begins; its name has been checked."""
        self.end()
        self._file = ArchiveFile(self._tree, start.name, self._compression)

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the archive."""
        assert self._file is not None
        self._file.write(data)

    def end(self) -> None:
        """The archive is over."""
        if self._file is not None:
            self._file.finish()
            self._file = None

    finish = end

    def close(self) -> None:
        """Let go of the file that is open, if any."""
        if self._file is not None:
            self._file.close()


class ArchiveFile:
    """One archive that is being written, compressed or not."""

    def __init__(self, tree: Tree, name: str, compression: Compression | None) -> None:
        self.name: Final = name + (compression.suffix if compression else "")
        self._compressor: Compressor | None = (
            None if compression is None else compression.compressor(None)
        )
        self._file: TreeFile = tree.create([self.name])

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes."""
        self._file.write(data if self._compressor is None else self._compressor.compress(data))
        return len(data)

    def finish(self) -> None:
        """The archive is over."""
        if self._compressor is not None:
            self._file.write(self._compressor.flush())
        self._file.close()

    def close(self) -> None:
        """Let it go as it is. Safe to call again."""
        self._file.close()


def pack_wal(
    tree: Tree, folder: str, compression: Compression | None, beat: Callable[[], None]
) -> str:
    """Move all files of a directory into the archive ``pg_wal.tar``; return what that is called.

    Each is removed when it is in the archive, so that one segment's room is enough. `beat` is
    called for each.
    """
    out = ArchiveFile(tree, "pg_wal.tar", compression)
    try:
        # The archive is its own file, so that nothing of it has to be sought.
        with tarfile.open(fileobj=_stream(out), mode="w|", format=tarfile.USTAR_FORMAT) as archive:
            for parts in list(_files(tree, [folder])):
                _pack(tree, archive, parts)
                tree.remove_file(parts)
                beat()
        out.finish()
    finally:
        out.close()
    for name in tree.names([folder]):
        tree.remove_directory([folder, name])
    tree.remove_directory([folder])
    return out.name


def _files(tree: Tree, parts: list[str]) -> Iterable[list[str]]:
    for name in tree.names(parts):
        inside = [*parts, name]
        with tree.read(inside) as descriptor:
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if is_directory:
            yield from _files(tree, inside)
        else:
            yield inside


def _pack(tree: Tree, archive: tarfile.TarFile, parts: list[str]) -> None:
    with tree.read(parts) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        status = os.fstat(descriptor)
        member = tarfile.TarInfo("/".join(parts[1:]))
        member.size, member.mtime = status.st_size, status.st_mtime
        member.mode = stat.S_IMODE(status.st_mode)
        archive.addfile(member, file)


def _stream(out: ArchiveFile) -> IO[bytes]:
    return cast(IO[bytes], out)  # tarfile writes to it and does nothing else
