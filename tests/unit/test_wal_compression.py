"""Segments, compressed and read back, whole or not."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgrepl.errors import UsageError
from pgrepl.physical.compression import Compression, Damaged, Unreadable, measure

SIZE = 1 << 20
WAL = (os.urandom(100) + bytes(924)) * 1024


def compressed(text: str, data: bytes = WAL) -> bytes:
    compressor = Compression.parse(text).compressor(len(data))
    pieces = [compressor.compress(data[i : i + 70_001]) for i in range(0, len(data), 70_001)]
    return b"".join([*pieces, compressor.flush()])


@pytest.fixture(params=["gzip", "gzip:1", "lz4", "lz4:9", "zstd", "zstd:19"])
def method(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    try:
        Compression.parse(text).compressor(SIZE)
    except UsageError as error:
        pytest.skip(str(error))
    return text


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


@pytest.mark.parametrize("level", [1, 12])
def test_other_programs_read_lz4(level: int, tmp_path: Path) -> None:
    """And check it: the size is in the header, and a checksum at the end."""
    info = pytest.importorskip("lz4.frame").get_frame_info(compressed(f"lz4:{level}"))
    assert (info["content_size"], info["content_checksum"]) == (SIZE, True)
    program = shutil.which("lz4")
    if program is None:
        pytest.skip("there is no program lz4 here")
    path = tmp_path / "000000010000000000000001.lz4"
    path.write_bytes(compressed(f"lz4:{level}"))
    subprocess.run([program, "-t", path], check=True, capture_output=True)
    unpacked = subprocess.run([program, "-dc", path], check=True, capture_output=True)
    assert unpacked.stdout == WAL


@pytest.mark.parametrize(
    ("text", "method", "level"),
    [
        ("gzip", "gzip", 6),
        ("gzip:5", "gzip", 5),
        ("zstd", "zstd", 3),
        ("zstd:22", "zstd", 22),
        ("lz4", "lz4", 1),
        ("lz4:12", "lz4", 12),
    ],
)
def test_words(text: str, method: str, level: int) -> None:
    assert Compression.parse(text) == Compression(method, level)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lzma",
        "lz4:0",
        "lz4:13",
        "GZIP",
        "gzip:",
        "gzip:0",
        "gzip:10",
        "gzip:x",
        "gzip:٥",
        "zstd:23",
        "zstd:-1",
    ],
)
def test_words_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="expected a (compression|level)"):
        Compression.parse(text)


@pytest.mark.parametrize(
    ("method", "suffix", "modules"),
    [("zstd", ".zst", ["zstandard", "compression.zstd"]), ("lz4", ".lz4", ["lz4", "lz4.frame"])],
)
def test_without_the_package(
    method: str, suffix: str, modules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"install pgrepl with its extra \[{method}\]"):
        Compression(method, 3).compressor(SIZE)
    with pytest.raises(Unreadable, match=rf"install pgrepl with its extra \[{method}\]"):
        measure(suffix, io.BytesIO(), SIZE)
