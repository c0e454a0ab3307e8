"""`receive_base_backup` on a real disk, with archives that no server of PostgreSQL would send.

On real servers: tests/live/test_receive_base_backup.py.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgrepl import Lsn, ProtocolError, UsageError
from pgrepl.basebackup import ReceivedBackup, Tablespace
from tests.support.backup_archives import (
    FLAVOURS,
    MAIN,
    PLAIN,
    SPACE,
    SPACES,
    Server,
    contents,
    directory,
    events,
    everything,
    file,
    link,
    member,
    receive,
    tar,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="backups are received on POSIX")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture(params=FLAVOURS)
def take(request: pytest.FixtureRequest) -> Callable[..., ReceivedBackup]:
    """What takes a backup, in both flavours."""
    return FLAVOURS[request.param]


# What becomes of it


@pytest.mark.parametrize("cut", [1, 999, 1 << 20])
def test_a_data_directory(take: Callable[..., ReceivedBackup], target: Path, cut: int) -> None:
    server = Server(events((MAIN, PLAIN), manifest=b'{"a": 1}', cut=cut))
    received = take(server, target)
    assert contents(target) == {
        "base/1/1259": b"rows",
        "f": b"x",
        "backup_manifest": b'{"a": 1}',
    }
    assert received == ReceivedBackup(
        target, Lsn("0/2000028"), Lsn("0/2000100"), 1, (), (), len(PLAIN)
    )
    assert not server.left_early


@pytest.mark.parametrize(
    ("mode", "version", "folders", "files"),
    [
        ("0700", 180000, 0o700, 0o600),
        ("0750", 180000, 0o750, 0o640),
        ("", 100000, 0o700, 0o600),
    ],
)
@pytest.mark.parametrize("umask", [0, 0o27, 0o77])
def test_who_may_read_it(
    target: Path, mode: str, version: int, folders: int, files: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        server = Server(events((MAIN, PLAIN)), mode=mode, server_version=version)
        receive(server, target)
    finally:
        os.umask(before)
    for path in [target, *target.rglob("*")]:
        wanted = folders if path.is_dir() else files
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_an_empty_directory_will_do(target: Path) -> None:
    target.mkdir(mode=0o755)
    receive(Server(events((MAIN, PLAIN))), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert (target / "f").exists()


def test_directories_above_are_made(target: Path) -> None:
    receive(Server(events((MAIN, PLAIN))), target / "a" / "b")
    assert (target / "a" / "b" / "f").exists()


def test_tablespaces(take: Callable[..., ReceivedBackup], target: Path, tmp_path: Path) -> None:
    main = tar(directory("pg_tblspc"), link("pg_tblspc/16384", "/srv/space"))
    space = tar(directory("PG_18"), file("PG_18/1", b"moved"))
    server = Server(events((SPACE, space), (MAIN, main)))
    received = take(server, target, tablespace_mapping={"/srv/space": tmp_path / "here"})
    assert received.tablespaces == (SPACE,)
    assert contents(tmp_path / "here") == {"PG_18/1": b"moved"}
    assert (target / "pg_tblspc" / "16384").readlink() == tmp_path / "here"


def test_tablespaces_inside(target: Path) -> None:
    """As allow_in_place_tablespaces makes them: in the data directory, without a link."""
    inside = Tablespace(16385, "pg_tblspc/16385", 50)
    space = tar(directory("PG_18"), file("PG_18/1", b"inside"))
    receive(Server(events((inside, space), (MAIN, tar(directory("pg_tblspc"))))), target)
    assert contents(target)["pg_tblspc/16385/PG_18/1"] == b"inside"


def test_archives(take: Callable[..., ReceivedBackup], target: Path) -> None:
    server = Server(events((SPACE, tar(file("s"))), (MAIN, PLAIN)))
    received = take(server, target, format="tar")
    assert received.files == ("16384.tar", "base.tar")
    assert contents(target) == {
        "base.tar": PLAIN,
        "16384.tar": tar(file("s")),
        "backup_manifest": b"{}",
    }


def test_archives_compressed_here(target: Path) -> None:
    received = receive(
        Server(events((MAIN, PLAIN), manifest=None)), target, format="tar", compress="gzip:1"
    )
    assert received.files == ("base.tar.gz",)
    [(name, data)] = contents(target).items()
    assert name == "base.tar.gz"
    assert gzip.decompress(data) == PLAIN


def test_archives_compressed_by_zstd(target: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    receive(Server(events((MAIN, PLAIN))), target, format="tar", compress="zstd")
    data = (target / "base.tar.zst").read_bytes()
    assert zstandard.ZstdDecompressor().decompressobj().decompress(data) == PLAIN


def test_archives_compressed_by_lz4(target: Path) -> None:
    frame = pytest.importorskip("lz4.frame")
    receive(Server(events((MAIN, PLAIN))), target, format="tar", compress="lz4")
    assert frame.decompress((target / "base.tar.lz4").read_bytes()) == PLAIN


def test_archives_compressed_by_the_server(target: Path) -> None:
    server = Server(events((MAIN, b"whatever"), suffix=".lz4"))
    received = receive(server, target, format="tar", compress="server-lz4:1")
    assert received.files == ("base.tar.lz4",)
    assert contents(target)["base.tar.lz4"] == b"whatever"
    assert server.options["compression"] == "lz4"
    assert server.options["compression_detail"] == "1"


SUFFIXES = {"gzip": ".gz", "lz4": ".lz4", "zstd": ".zst"}


@pytest.mark.parametrize("cut", [1, 50, 1 << 20])
@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd"])
def test_unpacked_from_what_the_server_compressed(target: Path, cut: int, method: str) -> None:
    large = tar(file("zeros", bytes(5 << 20)), file("f"))
    server = Server(events((MAIN, compressed(method, large)), suffix=SUFFIXES[method]))
    receive(server, target, compress=f"server-{method}")
    assert contents(target) == {
        "zeros": bytes(5 << 20),
        "f": b"x",
        "backup_manifest": b"{}",
    }


def compressed(method: str, data: bytes) -> bytes:
    if method == "gzip":
        return gzip.compress(data)
    if method == "lz4":
        packed: bytes = pytest.importorskip("lz4.frame").compress(data, content_checksum=True)
        return packed
    zstandard = pytest.importorskip("zstandard")
    made: bytes = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return made


@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "it is cut off"),
        (lambda data: data + b"\0", "more"),
        (lambda data: b"\0" * 20, "damaged bytes"),
        (lambda data: data[:30] + b"\xff\xff\xff\xff" + data[34:], "damaged bytes|expected"),
    ],
)
def test_damaged_in_compression(target: Path, method: str, damage: Any, message: str) -> None:
    content = damage(compressed(method, PLAIN))
    server = Server(events((MAIN, content), suffix=SUFFIXES[method]))
    with pytest.raises(ProtocolError, match=message):
        receive(server, target, compress=f"server-{method}")
    assert not target.exists()


# What is asked of the server


def test_the_command(target: Path, tmp_path: Path) -> None:
    server = Server(events((MAIN, PLAIN)))
    receive(server, target, checkpoint="fast", max_rate=32, label="l", verify_checksums=False)
    assert {name: value for name, value in server.options.items() if value is not None} == {
        "label": "l",
        "checkpoint": "fast",
        "max_rate": 32,
        "verify_checksums": False,
        "manifest": "yes",
        "progress": False,
        "wal": True,
        "wait": False,
        "tablespace_map": False,
    }
    old = Server(events((MAIN, PLAIN), manifest=None), server_version=120000)
    receive(old, tmp_path / "old", format="tar", wal="none", progress=lambda _: None)
    assert old.options["manifest"] is None
    assert (old.options["wal"], old.options["wait"]) == (False, True)
    assert old.options["tablespace_map"] is True
    assert old.options["progress"] is True


def test_incremental(take: Callable[..., ReceivedBackup], target: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest"
    manifest.write_bytes(b"m" * 100_000)
    server = Server(events((MAIN, PLAIN)))
    take(server, target, incremental=manifest)
    assert server.uploaded == manifest.read_bytes()
    assert server.options["incremental"] is True
    with pytest.raises(UsageError, match="to be the manifest of a base backup, but"):
        take(Server(()), tmp_path / "b", incremental=tmp_path / "nowhere")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, "a format"),
        ({"wal": "all"}, "wal 'none', 'fetch' or 'stream'"),
        ({"wal": "stream"}, "a wal_connection for wal='stream'"),
        ({"slot": "s"}, "no slot with wal='fetch'"),
        ({"wal": "none", "create_slot": True}, "no slot with wal='none'"),
        ({"wal": "stream", "wal_connection": object(), "create_slot": True}, "its name"),
        ({"compress": "gzip"}, "no compression by the client in plain format"),
        ({"compress": "lzma"}, r"\[client-\]gzip"),
        ({"compress": "elsewhere-gzip"}, r"\[client-\]gzip"),
        ({"compress": "gzip:"}, r"\[client-\]gzip"),
        ({"compress": "gzip:10"}, "a level of gzip from 1 to 9"),
        ({"format": "tar", "tablespace_mapping": {"/a": "/b"}}, "no tablespace_mapping in tar"),
        ({"tablespace_mapping": {"a": "/b"}}, "absolute paths"),
        ({"tablespace_mapping": {"/a": "b"}}, "absolute paths"),
    ],
)
def test_what_makes_no_sense(target: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        receive(Server(()), target, **options)
    assert not target.exists()


# Where it may not go


def test_a_directory_with_something_in_it(target: Path) -> None:
    target.mkdir()
    (target / ".hidden").write_text("dear")
    with pytest.raises(UsageError, match="to be an empty directory, or none at all"):
        receive(Server(()), target)
    assert everything(target) == [".hidden"]


def test_no_directory_at_all(target: Path) -> None:
    target.write_text("a file")
    for path in (target, target / "below"):
        with pytest.raises(UsageError, match="a directory that can be made or used, but"):
            receive(Server(()), path)
    assert target.read_text() == "a file"


def test_tablespaces_that_nobody_gave_a_place(target: Path, tmp_path: Path) -> None:
    outside = Tablespace(16384, str(tmp_path / "outside"), 1)
    server = Server(events((outside, tar(file("x"))), (MAIN, PLAIN)))
    with pytest.raises(UsageError, match="a tablespace_mapping for the tablespace in"):
        receive(server, target)
    assert everything(tmp_path) == []
    assert server.left_early


@pytest.mark.parametrize("new", ["backup", "backup/inside", ".", "other"])
def test_tablespaces_in_one_another(target: Path, tmp_path: Path, new: str) -> None:
    spaces = [Tablespace(oid, f"/srv/{oid}", 1) for oid in (1, 2)]
    server = Server(events(*((each, tar(file("x"))) for each in spaces), (MAIN, PLAIN)))
    mapping = {each.location: tmp_path / new for each in spaces}
    with pytest.raises(UsageError, match="in directories apart|to be an empty directory"):
        receive(server, target, tablespace_mapping=mapping)
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    "entries",
    [
        [link("away", "/etc")],
        [link("away", "/srv/space")],
        [directory("pg_tblspc"), link("pg_tblspc/16384", "/etc")],
        [directory("pg_tblspc"), link("pg_tblspc/16385", "/srv/space")],
        [directory("pg_tblspc"), link("pg_tblspc/16384", "../../..")],
        [*SPACES, link("pg_tblspc/16384", "/srv/space")],
        [*SPACES, directory("pg_tblspc/16384")],
        [*SPACES, file("pg_tblspc/16384")],
        [*SPACES, file("pg_tblspc/16384/x")],
        [*SPACES, directory("pg_tblspc/16384/x")],
        [*SPACES, link("pg_tblspc/16384/x", "/etc")],
        [*SPACES, file("../outside")],
        [*SPACES, file("/tmp/outside")],
        [*SPACES, member("hard", tarfile.LNKTYPE, target="f")],
        [*SPACES, member("device", tarfile.CHRTYPE)],
        [*SPACES, member("fifo", tarfile.FIFOTYPE)],
        [*SPACES, file("a"), file("a")],
        [*SPACES, file("a"), directory("a")],
        [*SPACES, directory("a"), directory("a")],
        [*SPACES, file("a"), file("a/b")],
        [*SPACES, file("nowhere/b")],
        [*SPACES, directory("nowhere/b")],
        [*SPACES, file("backup_manifest")],
        [*SPACES, file("backup_manifest.tmp")],
        [*SPACES, directory("backup_manifest")],
        [directory("pg_tblspc")],
    ],
)
def test_v14_hostile_archives(target: Path, tmp_path: Path, entries: list[Any]) -> None:
    """Refused, and nothing is left of it, nor is anything anywhere else."""
    server = Server(events((SPACE, tar(file("f"))), (MAIN, tar(*entries))))
    with pytest.raises(ProtocolError):
        receive(server, target, tablespace_mapping={"/srv/space": tmp_path / "here"})
    assert everything(tmp_path) == []
    assert server.left_early


def test_v14_links_in_tablespaces(target: Path, tmp_path: Path) -> None:
    space = tar(directory("pg_tblspc"), link("pg_tblspc/16384", "/srv/space"))
    with pytest.raises(ProtocolError, match="which is no tablespace of the backup"):
        receive(
            Server(events((SPACE, space), (MAIN, PLAIN))),
            target,
            tablespace_mapping={"/srv/space": tmp_path / "here"},
        )
    assert everything(tmp_path) == []


@pytest.mark.parametrize("form", ["plain", "tar"])
@pytest.mark.parametrize(
    "name", ["../base.tar", "base.tar.gz", "/etc/passwd", "backup_manifest", "base\x1b[2J"]
)
def test_v14_names_of_archives(target: Path, form: str, name: str) -> None:
    server = Server(events((MAIN, PLAIN), names=lambda _: name))
    with pytest.raises(ProtocolError, match=r"expected the archive base\.tar .*, got") as caught:
        receive(server, target, format=form)
    assert str(caught.value).isprintable()
    assert not target.exists()


def test_an_archive_that_is_cut_off(target: Path) -> None:
    for length in (0, 100, 600, len(PLAIN) - 600):
        with pytest.raises(ProtocolError, match="it is cut off"):
            receive(Server(events((MAIN, PLAIN[:length]))), target)
        assert not target.exists()


def test_v14_a_link_that_somebody_puts_there_meanwhile(target: Path, tmp_path: Path) -> None:
    """Nothing is written through it, and what it leads to stays when all is removed."""
    dear = tmp_path / "dear"
    dear.mkdir()
    (dear / "letter").write_text("dear")

    def once() -> Iterator[Any]:
        swapped = False
        for event in events((MAIN, tar(directory("base"), file("f"), file("base/x"))), cut=512):
            if not swapped and (target / "f").exists():
                swapped = True
                (target / "base").rmdir()
                (target / "base").symlink_to(dear)
            yield event

    with pytest.raises(ProtocolError, match="in a directory that has not come"):
        receive(Server(once()), target)
    assert everything(tmp_path) == ["dear", "dear/letter"]
