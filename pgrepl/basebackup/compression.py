"""How archives are compressed: by the server or here, and how what the server compressed is read.

`physical.compression` has the methods of this side.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from ..errors import ProtocolError, UsageError
from ..physical.compression import Compression, lz4_decompressor

__all__ = ["ArchiveCompression", "Decompressor"]

_SUFFIXES: Final = {"gzip": ".gz", "lz4": ".lz4", "zstd": ".zst"}
_GZIP_FORMAT: Final = 31  # zlib: the largest window, and gzip's header and trailer
_MOST: Final = 1 << 20  # bytes to decompress at once
# Bytes that are taken at once: four of zstd can stand for 128 KiB, a few of lz4 for a whole block.
_STEP: Final = 512


class Decompressor(Protocol):
    """Takes a compressed archive piece by piece. Raises `ProtocolError`."""

    def feed(self, data: memoryview) -> Iterator[bytes]:
        """Yield what the next bytes bring. To be taken to its end."""

    def finish(self) -> None:
        """The archive is over: it must be whole."""


@dataclass(frozen=True, slots=True)
class ArchiveCompression:
    """How archives are compressed: `detail` is the method's level, or what the server makes of
    it."""

    where: Literal["client", "server"]
    method: str
    detail: str

    @classmethod
    def parse(cls, text: str) -> ArchiveCompression | None:
        """Read ``gzip``, ``client-zstd:5``, ``server-lz4``, ``server-zstd:level=5,workers=2``; None
        for ``none``. Raises `UsageError`."""
        if text == "none":
            return None
        name, colon, detail = text.partition(":")
        place, dash, method = name.partition("-")
        if not dash:
            place, method = "client", name
        if place not in ("client", "server") or method not in _SUFFIXES or (colon and not detail):
            raise UsageError(
                "expected a compression none, [client-]gzip, [client-]lz4, [client-]zstd, "
                "server-gzip, server-lz4 or server-zstd, with a level as in 'gzip:5' or without, "
                f"got {text!r}"
            )
        if place == "server":
            return cls("server", method, detail)
        made = cls("client", method, detail)
        made.here().compressor(None)  # there is one, or this says what is missing
        return made

    @property
    def suffix(self) -> str:
        """What is added to the name of an archive."""
        return _SUFFIXES[self.method]

    def here(self) -> Compression:
        """Return the compression of this side. Raises `UsageError`."""
        level = self.detail.removeprefix("level=")
        return Compression.parse(f"{self.method}:{level}" if level else self.method)

    def decompressor(self) -> Callable[[], Decompressor]:
        """Return what makes a decompressor. Raises `UsageError`."""
        if self.method == "gzip":
            return _Gzip
        begin = _zstd_decompressor if self.method == "zstd" else _lz4_decompressor
        begin()  # there is one, or this says what is missing
        return lambda: _Frame(begin())


class _Gzip:
    """See `Decompressor`."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_FORMAT)

    def feed(self, data: memoryview) -> Iterator[bytes]:
        rest: bytes | memoryview = data
        while rest:
            if self._stream.eof:
                raise _behind_the_end()
            try:
                piece = self._stream.decompress(rest, _MOST)
            except zlib.error as error:
                raise _damaged(error) from error
            rest = self._stream.unconsumed_tail or self._stream.unused_data
            if piece:
                yield piece
        # There may be more that it has taken in already.
        while not self._stream.eof and (piece := self._stream.decompress(b"", _MOST)):
            yield piece

    def finish(self) -> None:
        if not self._stream.eof:
            raise _cut_off()


class _Frame:
    """One frame of zstd or lz4; see `Decompressor`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def feed(self, data: memoryview) -> Iterator[bytes]:
        for at in range(0, len(data), _STEP):
            if self._stream.eof:
                raise _behind_the_end()
            try:
                piece: bytes = self._stream.decompress(data[at : at + _STEP])
            except Exception as error:
                # Each of the libraries has errors of its own.
                raise _damaged(error) from error
            if piece:
                yield piece
        if self._stream.eof and self._stream.unused_data:
            raise _behind_the_end()

    def finish(self) -> None:
        if not self._stream.eof:
            raise _cut_off()


def _zstd_decompressor() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd

            return zstd.ZstdDecompressor()
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj()
    except ImportError:
        raise UsageError(
            "zstd needs the package zstandard: install pgrepl with its extra [zstd]"
        ) from None


def _lz4_decompressor() -> Any:
    try:
        return lz4_decompressor()
    except ImportError:
        raise UsageError("lz4 needs the package lz4: install pgrepl with its extra [lz4]") from None


def _damaged(error: Exception) -> ProtocolError:
    return ProtocolError(f"expected an archive as it was compressed, got damaged bytes: {error}")


def _behind_the_end() -> ProtocolError:
    return ProtocolError("expected nothing behind the end of a compressed archive, got more")


def _cut_off() -> ProtocolError:
    return ProtocolError("expected a compressed archive to be whole, it is cut off")
