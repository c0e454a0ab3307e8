"""Reads the fields of a binary value, one after the other.

Law: whatever the bytes, what comes out is fields or a `ValueError` that tells what was expected and
what came. A count is held against the bytes that are there before anything is made for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, final

__all__ = ["Fields", "fixed", "size_error"]

_I32: Final = struct.Struct(">i")


def size_error(name: str, expected: int, data: bytes) -> ValueError:
    """Return the error for a binary value of a fixed size that has another one."""
    return ValueError(f"expected {expected} bytes for a binary {name}, got {len(data)}")


def fixed(name: str, layout: str) -> Callable[[bytes], Any]:
    """Return a function that reads a binary value of a single field, as `struct` describes it."""
    compiled = struct.Struct(layout)
    unpack = compiled.unpack

    def binary(data: bytes) -> Any:
        try:
            return unpack(data)[0]
        except struct.error:
            raise size_error(name, compiled.size, data) from None

    return binary


@final
class Fields:
    """The fields of one value, read from the front."""

    __slots__ = ("_at", "_data", "_name")

    def __init__(self, name: str, data: bytes) -> None:
        self._name = name
        self._data = data
        self._at = 0

    def error(self, expected: str, got: object) -> ValueError:
        """Return the error that says so of this value, and where."""
        return ValueError(
            f"expected {expected} in a binary {self._name}, got {got} (offset {self._at})"
        )

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Read what `layout` describes."""
        return layout.unpack(self.raw(layout.size))

    def integer(self) -> int:
        """Read a signed integer of 32 bits."""
        value: int = self.take(_I32)[0]
        return value

    def count(self, least: int, what: str) -> int:
        """Read how many there are of something that takes at least `least` bytes each."""
        count = self.integer()
        if count < 0 or count * least > len(self._data) - self._at:
            raise self.error(f"a number of {what} that fits its size", count)
        return count

    def require(self, size: int, what: str) -> None:
        """Check that `size` bytes are left, which is the least that `what` takes."""
        if size > len(self._data) - self._at:
            raise self.error(f"at least {size} bytes for {what}", len(self._data) - self._at)

    def raw(self, size: int) -> bytes:
        """Read `size` bytes."""
        start, self._at = self._at, self._at + size
        if size < 0 or self._at > len(self._data):
            self._at = start
            raise self.error(f"{size} more bytes", len(self._data) - start)
        return self._data[start : self._at]

    def value(self) -> bytes | None:
        """Read a length and as many bytes; a length of -1 is NULL."""
        size = self.integer()
        if size < -1:
            raise self.error("a length of -1 or more", size)
        return None if size == -1 else self.raw(size)

    def cstr(self) -> bytes:
        """Read bytes up to a zero byte."""
        stop = self._data.find(0, self._at)
        if stop < 0:
            raise self.error("a zero byte behind a string", "none")
        start, self._at = self._at, stop + 1
        return self._data[start:stop]

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._data):
            raise self.error("nothing more", f"{len(self._data) - self._at} bytes")
