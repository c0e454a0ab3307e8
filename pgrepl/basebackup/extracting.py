"""A base backup in plain format: archives unpacked while they come, into a data directory.

Law: the caller says where things go, the server does not. A tablespace goes to the directory that
it is mapped to, and the one link in the data directory that leads out of it is the link to that;
any other is refused, and so is whatever comes twice or by a name that is ours.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ProtocolError
from ..protocol.backup_stream import ArchiveStart, Tablespace
from .compression import Decompressor
from .tar import Member, MemberKind, TarReader
from .tree import Tree, TreeFile

__all__ = ["Extraction"]

_LINKS = "pg_tblspc"
_WAL = "pg_wal"


class Extraction:
    """Unpacks the archives of one backup.

    `main` is the data directory; `mapped` has the directory of each tablespace by its OID, but not
    of those that are in the data directory. `reserved`: names in the data directory that are not
    the server's to use. `streamed_wal`: the directories of WAL are there, and in use.
    """

    def __init__(
        self,
        main: Tree,
        mapped: Mapping[int, Tree],
        tablespaces: tuple[Tablespace, ...],
        *,
        decompressor: Callable[[], Decompressor] | None,
        reserved: frozenset[str],
        streamed_wal: bool,
    ) -> None:
        self._main = main
        self._mapped = mapped
        self._tablespaces = {each.oid: each for each in tablespaces if each.oid is not None}
        self._decompressor = decompressor
        self._reserved = reserved
        self._streamed_wal = streamed_wal
        self._archive: _Archive | None = None
        self._links: set[int] = set()

    def begin(self, start: ArchiveStart) -> None:
        """An archive begins; the one before must be whole."""
        self.end()
        decompressor = self._decompressor() if self._decompressor else None
        self._archive = _Archive(start.oid, TarReader(start.name), decompressor)

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the archive."""
        archive = self._archive
        assert archive is not None
        for piece in archive.decompressed(data):
            for found in archive.reader.feed(piece):
                if isinstance(found, memoryview):
                    assert archive.file is not None
                    archive.file.write(found)
                else:
                    archive.close_file()
                    archive.file = self._add(archive, found)

    def end(self) -> None:
        """The archive is over."""
        if self._archive is not None:
            archive, self._archive = self._archive, None
            archive.close_file()
            archive.finish()

    def finish(self) -> None:
        """All archives are over."""
        self.end()
        if missing := self._mapped.keys() - self._links:
            raise ProtocolError(
                f"expected links to all tablespaces in {_LINKS}, got none to {min(missing)}"
            )

    def close(self) -> None:
        """Let go of the file that is open, if any."""
        if self._archive is not None:
            self._archive.close_file()

    def _add(self, archive: _Archive, member: Member) -> TreeFile | None:
        tree, parts = self._place(archive, member)
        with _once(member):
            if member.kind is MemberKind.LINK:
                self._link(archive, member)
            elif member.kind is MemberKind.FILE:
                return tree.create(parts)
            elif not self._is_there(archive, member):
                tree.make_directory(parts)
        return None

    def _place(self, archive: _Archive, member: Member) -> tuple[Tree, tuple[str, ...]]:
        if archive.oid is not None:
            mapped = self._mapped.get(archive.oid)
            if mapped is not None:
                return mapped, member.parts
            return self._main, (_LINKS, str(archive.oid), *member.parts)
        if member.name in self._reserved:
            raise _refused(member, "which is not the server's to use")
        if member.kind is MemberKind.FILE and self._streamed_wal and member.parts[0] == _WAL:
            raise _refused(member, "where WAL was not asked for in the archives")
        return self._main, member.parts

    def _is_there(self, archive: _Archive, member: Member) -> bool:
        """Whether a directory has been made already, and rightly so."""
        parts = member.parts
        if archive.oid is not None:
            return False
        if self._streamed_wal and parts in ((_WAL,), (_WAL, "archive_status")):
            return True
        # Those that have no link; their archives come before that of the data directory.
        return bool(self._unlinked()) and parts in (
            (_LINKS,),
            *((_LINKS, str(oid)) for oid in self._unlinked()),
        )

    def _unlinked(self) -> set[int]:
        return self._tablespaces.keys() - self._mapped.keys()

    def _link(self, archive: _Archive, member: Member) -> None:
        for oid, tablespace in self._tablespaces.items():
            if (
                archive.oid is None
                and member.parts == (_LINKS, str(oid))
                and member.target == tablespace.location
                and oid in self._mapped
            ):
                self._main.make_link(member.parts, str(self._mapped[oid].path))
                self._links.add(oid)
                return
        raise _refused(member, f"a link to {member.target!r}, which is no tablespace of the backup")


@dataclass
class _Archive:
    """An archive that is coming, and the file in it."""

    oid: int | None
    reader: TarReader
    decompressor: Decompressor | None
    file: TreeFile | None = None

    def decompressed(self, data: memoryview) -> Iterator[bytes | memoryview]:
        if self.decompressor is None:
            yield data
        else:
            yield from self.decompressor.feed(data)

    def finish(self) -> None:
        if self.decompressor is not None:
            self.decompressor.finish()
        self.reader.finish()

    def close_file(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


@contextlib.contextmanager
def _once(member: Member) -> Iterator[None]:
    """What is wrong with a name that is new to us is the server's fault, not the disk's."""
    try:
        yield
    except FileExistsError:
        raise _refused(member, "which has come before") from None
    except OSError as error:
        # On the way to it there is nothing, a file, or a link.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise _refused(member, "in a directory that has not come") from None


def _refused(member: Member, why: str) -> ProtocolError:
    return ProtocolError(f"expected members that can be unpacked, got {member.name!r}, {why}")
