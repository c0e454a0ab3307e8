"""A reader of a payload that nobody has checked yet: the twin of src_c/pgr_cursor.h.

Every read is held against the end; the first field that is not there raises a `Flaw`, which
`Decoder.feed` turns into an error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..faults import Fault, Flaw

__all__ = ["BINARY", "I16", "I32", "NULL", "TEXT", "U8", "Cursor", "Span", "Tuple"]

U8: Final = struct.Struct(">B")
I16: Final = struct.Struct(">h")
I32: Final = struct.Struct(">i")

NULL, UNCHANGED, TEXT, BINARY = b"nutb"
"""What kind of value a column has."""


class Span(NamedTuple):
    start: int
    stop: int


class Tuple(NamedTuple):
    mark: int
    offset: int  # of the column count
    columns: list[tuple[int, int, int]]  # kind, and where the value starts and stops


class Cursor:
    """Reads fields one after the other; the first one that is not there raises."""

    __slots__ = ("at", "data", "end", "transactional", "whole", "xid")

    def __init__(self, data: bytes, whole: Callable[[Cursor], None] | None = None) -> None:
        self.data = data
        self.whole = whole  # asked when all fields were read, before anything is made of them
        self.transactional = False  # a Message that belongs to a transaction
        self.at = 1  # behind the tag
        self.end = len(data)
        self.xid: int | None = None  # of a message that has one

    def flaw(
        self, fault: Fault, offset: int, expected: int = 0, got: int = 0, where: str = ""
    ) -> Flaw:
        return Flaw(fault, self.data[0], offset, expected, got, where)

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        at = self.at
        if self.end - at < layout.size:
            raise self._truncated(layout)
        self.at = at + layout.size
        return layout.unpack_from(self.data, at)

    def _truncated(self, layout: struct.Struct) -> Flaw:
        sizes = (struct.calcsize(f">{code}") for code in layout.format[1:])
        at = self.at
        while (left := self.end - at) >= (size := next(sizes)):
            at += size
        return self.flaw(Fault.TRUNCATED, at, size, left)

    def one(self, layout: struct.Struct) -> int:
        value: int = self.take(layout)[0]
        return value

    def flags(self, known: int) -> int:
        flags = self.one(U8)
        if flags & ~known:
            raise self.flaw(Fault.FLAGS, self.at - 1, known, flags)
        return flags

    def count(self, layout: struct.Struct) -> int:
        count = self.one(layout)
        if count < 0:
            raise self.flaw(Fault.COUNT, self.at - layout.size, 0, count)
        return count

    def span(self, size: int) -> Span:
        left = self.end - self.at
        if left < size:
            raise self.flaw(Fault.TRUNCATED, self.at, size, left)
        self.at += size
        return Span(self.at - size, self.at)

    def cstr(self) -> Span:
        start = self.at
        stop = self.data.find(0, start)
        if stop < 0:
            raise self.flaw(Fault.UNTERMINATED, start, 0, self.end - start)
        self.at = stop + 1
        return Span(start, stop)

    def row(self, mark: int) -> Tuple:
        """Read the tuple behind a mark: where the time goes, hence no call for each field."""
        offset = self.at
        count = self.count(I16)
        data, end, at = self.data, self.end, self.at
        columns = []
        for _ in range(count):
            if at == end:
                raise self.flaw(Fault.TRUNCATED, at, 1, 0)
            kind = data[at]
            at += 1
            size = 0
            if kind in (TEXT, BINARY):
                if end - at < 4:
                    raise self.flaw(Fault.TRUNCATED, at, 4, end - at)
                size = I32.unpack_from(data, at)[0]
                if size < 0:
                    raise self.flaw(Fault.COLUMN_LENGTH, at, 0, size)
                at += 4
                if end - at < size:
                    raise self.flaw(Fault.TRUNCATED, at, size, end - at)
            elif kind != NULL and kind != UNCHANGED:
                raise self.flaw(Fault.COLUMN_KIND, at - 1, 0, kind)
            columns.append((kind, at, at + size))
            at += size
        self.at = at
        return Tuple(mark, offset, columns)

    def finish(self) -> None:
        if self.at < self.end:
            raise self.flaw(Fault.TRAILING, self.at, 0, self.end - self.at)
        if self.whole is not None:
            self.whole(self)

    def text(self, span: Span) -> str:
        """Return a name; bytes of it that are not UTF-8 are written as in ``\\xe9``."""
        return self.data[span.start : span.stop].decode("utf-8", "backslashreplace")
