"""The directory that WAL is received into: nothing outside of it is touched, whatever is in it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pgrepl.errors import UsageError
from pgrepl.physical.directory import WalDirectory

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs directory descriptors")

NAME = "000000010000000000000001"


def test_a_file_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    with WalDirectory(tmp_path) as directory:
        assert directory.open(NAME) is None
        file = directory.create(NAME)
        file.write(b"abcdef", 0)
        file.write(memoryview(b"XY"), 2)
        file.write(b"", 6)
        file.sync()
        assert file.size == 6
        file.close()
        file.close()
        directory.rename(NAME, "other")
        directory.sync_file("other")
        directory.sync()
        with directory.read("other") as reader:
            assert reader.read() == b"abXYef"
        assert [(e.name, e.size, e.regular) for e in directory.entries()] == [("other", 6, True)]
        reopened = directory.open("other")
        assert reopened is not None
        assert reopened.size == 6
        reopened.close()
        directory.remove("other")
        directory.remove("other")
        assert directory.entries() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_modes_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        with WalDirectory(tmp_path, mode=mode) as directory:
            directory.create(NAME).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == mode


def test_v14_new_files_are_new(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    with WalDirectory(tmp_path) as directory, pytest.raises(FileExistsError):
        directory.create(NAME)
    assert (tmp_path / NAME).read_bytes() == b"mine"


@pytest.mark.parametrize("dangling", [False, True])
def test_v14_links_lead_nowhere(tmp_path: Path, dangling: bool) -> None:
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_bytes(b"precious")
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / NAME).symlink_to(victim)
    with WalDirectory(archive) as directory:
        for refused in (directory.open, directory.create, directory.read, directory.sync_file):
            with pytest.raises(OSError) as caught:
                refused(NAME)
            assert caught.value.errno in (errno.ELOOP, errno.EEXIST)
        [entry] = directory.entries()
        assert not entry.regular
        # A name is taken from the link; what it leads to stays.
        directory.create("new").close()
        directory.rename("new", NAME)
        assert directory.entries()[0].regular
    assert victim.exists() != dangling
    if not dangling:
        assert victim.read_bytes() == b"precious"


def test_v14_the_directory_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    archive, link = tmp_path / "archive", tmp_path / "link"
    archive.mkdir()
    link.symlink_to(archive)
    with WalDirectory(link) as directory:
        # And stays the one that was opened.
        link.unlink()
        link.symlink_to(tmp_path)
        directory.create(NAME).close()
    assert (archive / NAME).exists()
    assert not (tmp_path / NAME).exists()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with WalDirectory(tmp_path) as directory:
        for name in ("fifo", "folder"):
            # A FIFO that nobody reads would keep whoever opens it for writing.
            with pytest.raises(OSError):
                directory.open(name)
            with pytest.raises(OSError, match="regular"):
                directory.read(name)


def test_one_at_a_time(tmp_path: Path) -> None:
    with WalDirectory(tmp_path), pytest.raises(BlockingIOError) as caught:
        WalDirectory(tmp_path)
    assert caught.value.filename == str(tmp_path)
    WalDirectory(tmp_path).close()


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from pgrepl.physical.directory import WalDirectory\n"
        "directory = WalDirectory(sys.argv[1]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -9
    WalDirectory(tmp_path).close()


def test_a_file_that_somebody_removed(tmp_path: Path) -> None:
    with WalDirectory(tmp_path) as directory:
        file = directory.create(NAME)
        (tmp_path / NAME).unlink()
        file.write(b"into the void", 0)
        with pytest.raises(FileNotFoundError, match="somebody has removed"):
            file.sync()
        file.close()


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    with WalDirectory(archive) as directory:
        archive.rmdir()
        with pytest.raises(FileNotFoundError):
            directory.create(NAME)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WalDirectory(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        WalDirectory(tmp_path / "file")


def test_v14_a_closed_directory_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = WalDirectory(tmp_path)
    directory.close()
    directory.close()
    with pytest.raises(OSError) as caught:
        directory.create(NAME)
    assert caught.value.errno == errno.EBADF
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    with WalDirectory(tmp_path) as directory:
        file = directory.create(NAME)
        file.write(b"0123456789", 1)
        file.close()
    assert (tmp_path / NAME).read_bytes() == b"\x000123456789"
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with WalDirectory(tmp_path) as directory:
        file = directory.create("full")
        with pytest.raises(OSError, match="no more") as caught:
            file.write(b"x", 0)
        assert caught.value.filename == "full"
        file.close()


def test_without_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for fsync, wanted in ((False, 0), (True, 3)):
        with WalDirectory(tmp_path, fsync=fsync) as directory:
            file = directory.create(NAME)
            file.sync()
            file.close()
            directory.sync_file(NAME)
            directory.sync()
            directory.remove(NAME)
        assert len(synced) == wanted


def test_a_system_without_directory_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path)
    monkeypatch.setattr("pgrepl.physical.directory._POSIX", False)
    with pytest.raises(UsageError, match="POSIX"):
        WalDirectory(path)
