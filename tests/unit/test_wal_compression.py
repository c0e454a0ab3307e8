"""Segments, compressed and read back, whole or not."""

from __future__ import annotations

import gzip
import io
import os

import pytest

from pgrepl.errors import UsageError
from pgrepl.physical.compression import Compression, Damaged, Unreadable, measure

SIZE = 1 << 20
WAL = (os.urandom(100) + bytes(924)) * 1024


def compressed(text: str, data: bytes = WAL) -> bytes:
    compressor = Compression.parse(text).compressor(len(data))
    pieces = [compressor.compress(data[i : i + 70_001]) for i in range(0, len(data), 70_001)]
    return b"".join([*pieces, compressor.flush()])


@pytest.fixture(params=["gzip", "gzip:1", "zstd", "zstd:19"])
def method(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    if text.startswith("zstd"):
        needs_zstd()
    return text


def needs_zstd() -> None:
    try:
        Compression("zstd", 3).compressor(SIZE)
    except UsageError as error:
        pytest.skip(str(error))


def suffix_of(method: str) -> str:
    return Compression.parse(method).suffix


def test_there_and_back(method: str) -> None:
    data = compressed(method)
    assert len(data) < len(WAL) // 4
    assert measure(suffix_of(method), io.BytesIO(data), SIZE) == (SIZE, WAL[:64])
    if method.startswith("gzip"):
        assert gzip.decompress(data) == WAL


def test_levels_make_a_difference() -> None:
    assert len(compressed("gzip:9")) < len(compressed("gzip:1"))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.999])
def test_cut_off(method: str, part: float) -> None:
    data = compressed(method)
    try:
        size, _ = measure(suffix_of(method), io.BytesIO(data[: int(len(data) * part)]), SIZE)
    except Damaged:
        return
    assert size < SIZE


def test_damaged(method: str) -> None:
    data = bytearray(compressed(method))
    data[len(data) // 2] ^= 0xFF
    # To its end, where the checksum is: what is damaged may well have become longer.
    with pytest.raises(Damaged):
        measure(suffix_of(method), io.BytesIO(data), 64 * SIZE)
    with pytest.raises(Damaged):
        measure(suffix_of(method), io.BytesIO(b"no such thing" * 10), SIZE)


def test_more_than_a_segment_is_not_read_to_its_end(method: str) -> None:
    bomb = compressed(method, bytes(64 * SIZE))
    size, beginning = measure(suffix_of(method), io.BytesIO(bomb), SIZE)
    assert SIZE < size < 64 * SIZE
    assert beginning == bytes(64)


def test_what_the_system_says_is_no_damage() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        measure(".gz", io.BufferedReader(Broken()), SIZE)


def test_nothing_reads_lz4() -> None:
    with pytest.raises(Unreadable, match=r"\.lz4: decompress"):
        measure(".lz4", io.BytesIO(), SIZE)


@pytest.mark.parametrize(
    ("text", "method", "level"),
    [("gzip", "gzip", 6), ("gzip:5", "gzip", 5), ("zstd", "zstd", 3), ("zstd:22", "zstd", 22)],
)
def test_words(text: str, method: str, level: int) -> None:
    assert Compression.parse(text) == Compression(method, level)


@pytest.mark.parametrize(
    "text",
    ["", "lz4", "GZIP", "gzip:", "gzip:0", "gzip:10", "gzip:x", "gzip:٥", "zstd:23", "zstd:-1"],
)
def test_words_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="expected a (compression|level)"):
        Compression.parse(text)


def test_without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("zstandard", "compression.zstd"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError, match=r"pgrepl\[zstd\]"):
        Compression("zstd", 3).compressor(SIZE)
    with pytest.raises(Unreadable, match=r"pgrepl\[zstd\]"):
        measure(".zst", io.BytesIO(), SIZE)
