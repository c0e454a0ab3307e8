"""Segments, compressed: how, and how to tell that one is whole.

gzip comes with Python, and so does zstd from 3.14 on; before that it needs the package
`zstandard`, which is the extra `pgrepl[zstd]`, and lz4 the package `lz4`, which is `pgrepl[lz4]`.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

from ..errors import UsageError

__all__ = ["Compression", "Compressor", "Damaged", "Unreadable", "lz4_decompressor", "measure"]

_LEVELS: Final = {
    "gzip": (range(1, 10), 6),
    "lz4": (range(1, 13), 1),
    "zstd": (range(1, 23), 3),
}
_SUFFIXES: Final = {"gzip": ".gz", "lz4": ".lz4", "zstd": ".zst"}
_GZIP_FORMAT: Final = 31  # zlib: the largest window, and gzip's header and trailer
_CHUNK: Final = 1 << 18
_HEADER: Final = 64
# Bytes that are read at once: four of zstd can stand for 128 KiB, a few of lz4 for a whole block.
_STEP: Final = 512


class Compressor(Protocol):
    """Takes a segment piece by piece."""

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return what can be written now."""

    def flush(self) -> bytes:
        """Return the rest."""


class Damaged(Exception):
    """What should be compressed data is not, or ends before its end."""


class Unreadable(Exception):
    """Nothing is here that could read this compression; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How to compress complete segments: `method` ``gzip``, ``lz4`` or ``zstd``, and a level."""

    method: str
    level: int

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Read ``gzip``, ``gzip:5``, ``lz4``, ``zstd:3`` and the like. Raises `UsageError`."""
        method, colon, level = text.partition(":")
        if method not in _LEVELS:
            raise UsageError(
                "expected a compression 'gzip', 'lz4' or 'zstd', with a level as in 'gzip:5' or "
                f"without, got {text!r}"
            )
        levels, default = _LEVELS[method]
        if not colon:
            return cls(method, default)
        if not (level.isascii() and level.isdigit() and int(level) in levels):
            raise UsageError(
                f"expected a level of {method} from {levels[0]} to {levels[-1]}, got {level!r}"
            )
        return cls(method, int(level))

    @property
    def suffix(self) -> str:
        """What is added to the name of a segment: ``.gz``, ``.lz4`` or ``.zst``."""
        return _SUFFIXES[self.method]

    def compressor(self, size: int | None) -> Compressor:
        """Return a compressor for one segment of that size, or for a file whose size is not known.

        Raises `UsageError`.
        """
        if self.method == "gzip":
            return zlib.compressobj(self.level, wbits=_GZIP_FORMAT)
        try:
            if self.method == "lz4":
                return _Lz4Compressor(self.level, size)
            return _zstd_compressor(self.level, size)
        except ImportError:
            raise UsageError(_MISSING[self.suffix]) from None


class _Lz4Compressor:
    """One frame, with a checksum of what is in it, as gzip and zstd have theirs."""

    def __init__(self, level: int, size: int | None) -> None:
        from lz4 import frame

        self._stream = frame.LZ4FrameCompressor(compression_level=level, content_checksum=True)
        self._header: bytes = self._stream.begin(source_size=size or 0)

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        header, self._header = self._header, b""
        compressed: bytes = self._stream.compress(data)
        return header + compressed

    def flush(self) -> bytes:
        end: bytes = self._stream.flush()
        return self._header + end


_MISSING: Final = {
    ".lz4": "lz4 needs the package lz4: install pgrepl with its extra [lz4]",
    ".zst": "zstd needs the package zstandard: install pgrepl with its extra [zstd]",
}


def measure(suffix: str, file: IO[bytes], limit: int) -> tuple[int, bytes]:
    """Return how many bytes a compressed file has, and the first of them.

    Reads on until there are more than `limit`, no further. Raises `Damaged` and `Unreadable`.
    """
    size, beginning = 0, b""
    reader = _reader(suffix, file)
    try:
        while size <= limit and (piece := reader.read(_CHUNK)):
            beginning = beginning or bytes(piece[:_HEADER])
            size += len(piece)
    except OSError as error:
        if not isinstance(error, gzip.BadGzipFile):
            raise
        raise Damaged(str(error)) from error
    except Exception as error:
        # Each of the libraries has errors of its own.
        raise Damaged(str(error)) from error
    return size, beginning


def _reader(suffix: str, file: IO[bytes]) -> Any:
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=file)
    try:
        return _lz4_reader(file) if suffix == ".lz4" else _zstd_reader(file)
    except ImportError:
        raise Unreadable(f"{_MISSING[suffix]}, or decompress the file first") from None


def lz4_decompressor() -> Any:
    """Return what decompresses one frame of lz4. Raises `ImportError` where nothing does."""
    from lz4 import frame

    return frame.LZ4FrameDecompressor()


def _lz4_reader(file: IO[bytes]) -> Any:
    lz4_decompressor()  # there is one, or this says what is missing
    return _Frames(file, lz4_decompressor)


if sys.version_info >= (3, 14):

    def _zstd_compressor(level: int, size: int | None) -> Compressor:
        from compression import zstd

        compressor = zstd.ZstdCompressor(
            options={
                zstd.CompressionParameter.compression_level: level,
                zstd.CompressionParameter.checksum_flag: True,
            }
        )
        compressor.set_pledged_input_size(size)
        return compressor

    def _zstd_reader(file: IO[bytes]) -> Any:
        from compression import zstd

        return zstd.ZstdFile(file)


else:

    def _zstd_compressor(level: int, size: int | None) -> Compressor:
        import zstandard

        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        return compressor.compressobj(size=-1 if size is None else size)

    def _zstd_reader(file: IO[bytes]) -> Any:
        import zstandard

        return _Frames(file, lambda: zstandard.ZstdDecompressor().decompressobj())


class _Frames:
    """Reads what was compressed piece by piece, and notices when it ends too early.

    zstandard's own reader does not: to it a frame without its last bytes is as good as any. And
    lz4's asks its file for as much as it likes.
    """

    def __init__(self, file: IO[bytes], begin: Callable[[], Any]) -> None:
        self._file = file
        self._begin = begin
        self._frame: Any = None
        self._rest = b""

    def read(self, _: int) -> bytes:
        while data := self._rest or self._file.read(_STEP):
            if self._frame is None:
                self._frame = self._begin()
            piece: bytes = self._frame.decompress(data)
            self._rest = b""
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data or b"", None
            if piece:
                return piece
        if self._frame is not None:
            raise EOFError("it ends before its end")
        return b""
