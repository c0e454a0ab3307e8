"""The tar files of a base backup, read while they come, and strictly as PostgreSQL writes them.

Law: what PostgreSQL does not write is refused, never guessed at: a name that leads out of the
archive, a hard link, a device, an extended header, a wrong checksum, an end before the end. Nothing
here touches a file, and nothing but a header is ever kept.

Source: PostgreSQL's port/tar.c; POSIX, "pax", "ustar Interchange Format".
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import ProtocolError

__all__ = ["Member", "MemberKind", "TarReader"]

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_LINK: Final = slice(157, 257)
_MAGIC: Final = slice(257, 265)
_PREFIX: Final = slice(345, 500)
_USTAR: Final = b"ustar\x0000"
_OCTAL: Final = re.compile(rb" *([0-7]+)[ \0]*")
_MAX_SIZE: Final = (1 << 63) - 1


class MemberKind(enum.Enum):
    """What a member is; there are no others in a base backup."""

    FILE = b"0"
    LINK = b"2"
    DIRECTORY = b"5"


@dataclass(frozen=True, slots=True)
class Member:
    """A member begins: `parts` of its name, none of which leads anywhere else; `size` of its
    content in bytes; `target` of a symbolic link, which may be anything."""

    parts: tuple[str, ...]
    kind: MemberKind
    size: int
    target: str

    @property
    def name(self) -> str:
        """The name in the archive, without a slash at its end."""
        return "/".join(self.parts)


Found: TypeAlias = Member | memoryview


class TarReader:
    """Reads one archive: what is fed in comes out as members, each followed by the pieces of its
    content. `archive` is what it is called in errors. Raises `ProtocolError`."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._header = bytearray()
        self._left = 0  # of the content
        self._padding = 0
        self._zero_blocks = 0

    def feed(self, data: bytes | memoryview) -> Iterator[Found]:
        """Yield what the next bytes bring. To be taken to its end."""
        view = memoryview(data)
        while view:
            if self._left:
                piece = view[: self._left]
                self._left -= len(piece)
                yield piece
                view = view[len(piece) :]
            elif self._padding:
                count = min(self._padding, len(view))
                self._padding -= count
                view = view[count:]
            else:
                count = min(_BLOCK - len(self._header), len(view))
                self._header += view[:count]
                view = view[count:]
                if len(self._header) == _BLOCK and (member := self._block()):
                    yield member

    def finish(self) -> None:
        """The archive is over: it must be whole."""
        if self._left or self._padding or self._header or self._zero_blocks < 2:
            raise ProtocolError(f"expected the archive {self._archive} to be whole, it is cut off")

    def _block(self) -> Member | None:
        block = bytes(self._header)
        self._header.clear()
        if block == _ZEROS:
            self._zero_blocks += 1
            return None
        if self._zero_blocks:
            raise self._wrong("nothing behind its end, got more")
        return self._member(block)

    def _member(self, block: bytes) -> Member:
        if block[_MAGIC] != _USTAR:
            raise self._wrong(f"a header of a member, got {block[_MAGIC]!r} for its magic")
        unsigned = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
        if self._number(block[_CHECKSUM], "checksum") != unsigned:
            raise self._wrong("a header with the right checksum, got another")
        name = _text(block[_NAME])
        if any(block[_PREFIX]):
            raise self._wrong(f"a name of 99 bytes at most, got a longer one that ends in {name!r}")
        try:
            kind = MemberKind(block[156:157])
        except ValueError:
            raise self._wrong(
                f"a file, a directory or a symbolic link, got type {block[156:157]!r} for {name!r}"
            ) from None
        size = self._number(block[_SIZE], "size")
        if size > _MAX_SIZE or (size and kind is not MemberKind.FILE):
            raise self._wrong(f"a size that makes sense, got {size} bytes for {name!r}")
        self._left, self._padding = size, -size % _BLOCK
        return Member(self._parts(name, kind), kind, size, _text(block[_LINK]))

    def _parts(self, name: str, kind: MemberKind) -> tuple[str, ...]:
        """Take a name apart, which must stay inside of the archive."""
        inside = name.removeprefix("./")
        if kind is not MemberKind.FILE:
            inside = inside.removesuffix("/")
        parts = tuple(inside.split("/"))
        if any(part in ("", ".", "..") for part in parts):
            raise self._wrong(f"a name inside of it, got {name!r}")
        return parts

    def _number(self, field: bytes, what: str) -> int:
        """Read a number: octal digits, or big-endian behind a byte that says so."""
        if field[0] == 0x80:
            return int.from_bytes(field[1:])
        match = _OCTAL.fullmatch(field)
        if match is None:
            raise self._wrong(f"a number for a {what}, got {field!r}")
        return int(match[1], 8)

    def _wrong(self, what: str) -> ProtocolError:
        return ProtocolError(f"expected in the archive {self._archive} {what}")


def _text(field: bytes) -> str:
    return os.fsdecode(field.partition(b"\0")[0])
