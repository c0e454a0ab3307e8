"""Tar files of base backups: what is read out of them, however they are cut, and what is refused.

The archives are made by Python's tarfile.
"""

from __future__ import annotations

import os
import tarfile
from typing import Any

import pytest

from pgrepl.basebackup.tar import Member, MemberKind, TarReader
from pgrepl.errors import ProtocolError
from tests.support.backup_archives import directory, file, link, member, tar

pytestmark = pytest.mark.skipif(os.name != "posix", reason="backups are received on POSIX")

FINE = (
    directory("base"),
    directory("base/1"),
    file("base/1/1259", b"a" * 512),
    file("base/1/empty", b""),
    directory("./pg_wal"),
    file("./pg_wal/0", b"b" * 700),
    link("pg_tblspc/16384", "/srv/space"),
    file("na\udcffme \\ \x1b", b"c"),
)


def read(content: bytes, cut: int = 1 << 20) -> list[tuple[Member, bytes]]:
    """All members with their contents."""
    reader = TarReader("base.tar")
    found: list[tuple[Member, bytearray]] = []
    for at in range(0, len(content), cut):
        for each in reader.feed(content[at : at + cut]):
            if isinstance(each, Member):
                found.append((each, bytearray()))
            else:
                found[-1][1].extend(each)
    reader.finish()
    return [(each, bytes(data)) for each, data in found]


@pytest.mark.parametrize("cut", [1, 7, 511, 512, 513, 1 << 20])
def test_members(cut: int) -> None:
    found = read(tar(*FINE), cut)
    assert [(each.kind.name, each.name, data) for each, data in found] == [
        ("DIRECTORY", "base", b""),
        ("DIRECTORY", "base/1", b""),
        ("FILE", "base/1/1259", b"a" * 512),
        ("FILE", "base/1/empty", b""),
        ("DIRECTORY", "pg_wal", b""),
        ("FILE", "pg_wal/0", b"b" * 700),
        ("LINK", "pg_tblspc/16384", b""),
        ("FILE", "na\udcffme \\ \x1b", b"c"),
    ]
    assert found[6][0].target == "/srv/space"
    assert all(each.size == len(data) for each, data in found)


@pytest.mark.parametrize("end", [1024, 1536, 10240])
def test_the_end_has_at_least_two_blocks(end: int) -> None:
    assert len(read(tar(file("a"), end=end))) == 1
    assert read(bytes(end)) == []


def test_sizes_beyond_what_octal_digits_hold() -> None:
    reader = TarReader("base.tar")
    info = tarfile.TarInfo("large")
    info.size = 1 << 40
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    # tarfile writes such a number only with another magic.
    [found] = reader.feed(as_ustar(header))
    assert isinstance(found, Member)
    assert found.size == 1 << 40
    assert found.kind is MemberKind.FILE


def as_ustar(header: bytes) -> bytes:
    """Give a header PostgreSQL's magic, and the checksum that goes with that."""
    block = bytearray(header)
    block[257:265] = b"ustar\x0000"
    return bytes(summed(block))


def summed(block: bytearray) -> bytearray:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def changed(offset: int, value: bytes, again: bool = True) -> bytes:
    """An archive of one file, with other bytes in its header."""
    content = bytearray(tar(file("a")))
    content[offset : offset + len(value)] = value
    if again:
        content[:512] = summed(content[:512])
    return bytes(content)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "..", "../x", "a/../b", "a/..", "a//b", "", ".", "./", "././a", "./../a", "a/"],
)
def test_v14_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(ProtocolError, match="a name inside of it, got"):
        read(tar(file(name)))


@pytest.mark.parametrize("name", ["/", "a//", "../", "./", "a/../"])
def test_v14_directories_that_lead_elsewhere(name: str) -> None:
    content = bytearray(tar(directory("x")))
    content[:100] = name.encode().ljust(100, b"\0")
    content[:512] = summed(content[:512])
    with pytest.raises(ProtocolError, match="a name inside of it, got"):
        read(bytes(content))


@pytest.mark.parametrize("kind", [b"1", b"3", b"4", b"6", b"7", b"x", b"g", b"L", b"S", b"\0"])
def test_v14_types_that_no_backup_has(kind: bytes) -> None:
    content = bytearray(tar(member("a", b"0", target="/etc/passwd")))
    content[156:157] = kind
    content[:512] = summed(content[:512])
    with pytest.raises(ProtocolError, match="a file, a directory or a symbolic link, got type"):
        read(bytes(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(0, b"b", again=False), "the right checksum"),
        (changed(257, b"ustar  \0"), "got b'ustar  "),
        (changed(345, b"folder"), "a name of 99 bytes at most"),
        (changed(124, b"0000000000x\0"), "a number for a size"),
        (changed(124, bytes(12)), "a number for a size"),
        (changed(124, b"-0000000001\0"), "a number for a size"),
        (changed(124, b"\xff" * 12), "a number for a size"),
        (changed(124, b"\x80" + b"\xff" * 11), "a size that makes sense"),
        (changed(148, b"        ", again=False), "a number for a checksum"),
        (tar(file("a"), end=512) + tar(file("b")), "nothing behind its end"),
        (tar(file("a")) + b"\1" * 512, "nothing behind its end"),
    ],
)
def test_headers_that_are_wrong(content: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        read(content)


@pytest.mark.parametrize("kind", [b"2", b"5"])
def test_only_files_have_contents(kind: bytes) -> None:
    with pytest.raises(ProtocolError, match="a size that makes sense, got 3 bytes"):
        read(tar(member("a", kind, b"abc")))


def test_an_archive_that_is_cut_off_anywhere() -> None:
    content = tar(*FINE)
    for length in range(0, len(content), 17):
        with pytest.raises(ProtocolError, match="to be whole, it is cut off"):
            read(content[:length])
    assert read(content)


def test_nothing_is_collected() -> None:
    """A piece of content is a view of what came in, and goes out at once."""
    reader = TarReader("base.tar")
    content = tar(file("a", b"x" * 1000))
    out: list[Any] = list(reader.feed(content[:600]))
    assert [len(each) for each in out[1:]] == [88]
    piece = memoryview(content)[600:700]
    [again] = reader.feed(piece)
    assert isinstance(again, memoryview)
    assert again.obj is content
