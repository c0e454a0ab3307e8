"""`receive_base_backup`: what goes wrong, what is durable in which order, and what goes on
beside it."""

from __future__ import annotations

import asyncio
import errno
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pgrepl
from pgrepl import BackupStorageError, ConnectionFailed, Lsn, ProtocolError, UsageError
from pgrepl.basebackup import BackupProgress, ReceivedBackup
from pgrepl.physical import ReceivedWal
from tests.support.backup_archives import (
    FLAVOURS,
    MAIN,
    PLAIN,
    SPACE,
    SPACES,
    AwaitedServer,
    Server,
    contents,
    directory,
    events,
    everything,
    file,
    tar,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="backups are received on POSIX")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


Receive = Callable[..., ReceivedBackup]


@pytest.fixture(params=FLAVOURS)
def receive(request: pytest.FixtureRequest) -> Receive:
    """What takes a backup, in both flavours."""
    return FLAVOURS[request.param]


# What goes wrong


@pytest.mark.parametrize("form", ["plain", "tar"])
@pytest.mark.parametrize("there", [False, True])
def test_a_connection_that_is_lost(receive: Receive, target: Path, form: str, there: bool) -> None:
    if there:
        target.mkdir()
    sent = [*list(events((MAIN, PLAIN), cut=600))[:4], ConnectionFailed("gone")]
    with pytest.raises(ConnectionFailed):
        receive(Server(sent), target, format=form)
    assert target.exists() == there
    assert not there or everything(target) == []
    target.mkdir(exist_ok=True)
    with pytest.raises(ConnectionFailed):
        receive(Server(sent), target, format=form, clean=False)
    assert everything(target)
    assert not (target / "backup_manifest").exists()


@pytest.mark.parametrize("form", ["plain", "tar"])
@pytest.mark.parametrize("allowed", [0, 1, 2, 3])
def test_a_disk_that_is_full(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch, form: str, allowed: int
) -> None:
    left = [allowed]
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return write(descriptor, data[: max(len(data) // 2, 1)])  # and it takes only a part

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BackupStorageError, match="the system says: No space left on device"):
        receive(Server(events((MAIN, PLAIN))), target, format=form)
    monkeypatch.undo()
    assert not target.exists()


def test_writes_that_take_only_a_part(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    receive(Server(events((MAIN, tar(file("f", bytes(range(256))))))), target)
    monkeypatch.undo()
    assert (target / "f").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("failing", [0, 1, 2, 5])
def test_a_file_that_cannot_be_synced(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    calls = [0]

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > failing:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(BackupStorageError, match="expected to sync the backup"):
        receive(Server(events((MAIN, PLAIN))), target)
    monkeypatch.undo()
    assert not target.exists()
    assert calls[0] == failing + 1


def test_a_folder_that_may_not_be_written_to(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for permissions, which root does not heed."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with pytest.raises(UsageError, match="the system says: Permission denied"):
            receive(Server(()), target)
    # Below a directory that is there already.
    mkdir = os.mkdir
    monkeypatch.setattr(os, "mkdir", lambda *a, **k: refuse() if k else mkdir(*a))
    with pytest.raises(BackupStorageError, match="'base' in .*Permission denied") as caught:
        receive(Server(events((MAIN, PLAIN))), target)
    assert isinstance(caught.value.__cause__, PermissionError)


def test_names_in_errors_can_be_printed(receive: Receive, target: Path) -> None:
    name = "\x1b[2J" + "x" * 90
    for entries in ([file(name), file(name)], [file(f"{name}/x")]):
        with pytest.raises(ProtocolError) as caught:
            receive(Server(events((MAIN, tar(*entries)))), target)
        assert str(caught.value).isprintable()


# In which order


@pytest.mark.parametrize("form", ["plain", "tar"])
def test_synced_before_it_has_its_name(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc, which is Linux's, to see what is synced")
    done: list[tuple[str, Path]] = []
    fsync, rename = os.fsync, os.rename

    def noted(descriptor: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def renamed(old: str, new: str, **descriptors: int) -> None:
        done.append(("rename", Path(new)))
        rename(old, new, **descriptors)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", renamed)
    main = tar(*SPACES, directory("base"), file("base/1"))
    mapping = {"/srv/space": tmp_path / "here"} if form == "plain" else None
    receive(
        Server(events((SPACE, tar(file("s"))), (MAIN, main))),
        target,
        format=form,
        tablespace_mapping=mapping,
    )
    monkeypatch.undo()
    order = [path for what, path in done if what == "sync"]
    named = done.index(("rename", Path("backup_manifest")))
    # The names of the directory itself are durable again behind that, and those before it.
    assert done[named + 1 :] == [("sync", target), ("sync", tmp_path)]
    before = [path for what, path in done[:named] if what == "sync"]
    for path in [target, *target.rglob("*"), *(tmp_path / "here").rglob("*"), tmp_path]:
        if path.name == "backup_manifest":
            path = path.with_name("backup_manifest.tmp")
        if not path.is_symlink():
            assert path in before, path
            if path.parent in before and path != tmp_path:
                last = max(at for at, each in enumerate(before) if each == path.parent)
                assert order.index(path) < last


def test_nothing_is_synced_that_need_not_be(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("synced"))
    receive(Server(events((MAIN, PLAIN))), target, fsync=False)
    assert (target / "backup_manifest").exists()


# While it goes on


def test_progress(receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BackupProgress] = []
    monkeypatch.setattr("pgrepl.basebackup.progress.BEAT", 0.0)
    sent: list[Any] = list(events((SPACE, tar(file("s", b"x" * 3000))), (MAIN, PLAIN)))
    sent[2:2] = [TimeoutError(), TimeoutError(), pgrepl.basebackup.Progress(77)]
    receive(Server(sent), target, format="tar", progress=told.append)
    assert told[0] == BackupProgress("beginning", 0, None)
    phases = [each.phase for each in told]
    assert sorted(set(phases), key=phases.index) == ["beginning", "receiving", "syncing"]
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert BackupProgress("receiving", 77, 15 * 10) in told
    assert told[-1].total == 150


def test_a_callback_that_ends_it(receive: Receive, target: Path) -> None:
    class Enough(BaseException):
        pass

    for phase in ("beginning", "receiving", "syncing"):

        def until(progress: BackupProgress, phase: str = phase) -> None:
            if progress.phase == phase:
                raise Enough

        with pytest.raises(Enough):
            receive(Server(events((MAIN, PLAIN))), target, progress=until)
        assert not target.exists()


# WAL beside


class Wal:
    """In place of `receive_wal`: a server whose WAL comes in steps."""

    def __init__(self, *positions: int | BaseException) -> None:
        self.positions = list(positions)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, connection: Any, folder: Path, **options: Any) -> Any:
        if isinstance(connection, AwaitedServer):
            return self.receive_in_a_task(folder, options)
        while options["end"] is None and not options["stop"]():
            time.sleep(0.001)
        return self.received(folder, options)

    async def receive_in_a_task(self, folder: Path, options: dict[str, Any]) -> ReceivedWal:
        while options["end"] is None and not options["stop"]():
            await asyncio.sleep(0.001)
        return self.received(folder, options)

    def received(self, folder: Path, options: dict[str, Any]) -> ReceivedWal:
        self.calls.append(options)
        position = self.positions.pop(0)
        if isinstance(position, BaseException):
            raise position
        (folder / "000000010000000000000002.partial").write_bytes(b"wal")
        (folder / "000000010000000000000001").write_bytes(b"before")
        (folder / "00000002.history").write_bytes(b"history")
        return ReceivedWal(1, Lsn(options["start"]), Lsn(position), 1)


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 30
    while threading.active_count() > before:  # one that has done its work may be about to end
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("positions", [(0x2000100,), (0x2000028, 0x2000050, 0x2000100)])
def test_wal_in_a_data_directory(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch, positions: tuple[int, ...]
) -> None:
    wal = Wal(*positions)
    monkeypatch.setattr("pgrepl.basebackup.wal.receive_wal", wal)
    main = tar(directory("pg_wal"), directory("./pg_wal/archive_status"), directory("pg_wal/sums"))
    beside = Server(())
    receive(Server(events((MAIN, main))), target, wal="stream", wal_connection=beside)
    assert contents(target) == {
        "backup_manifest": b"{}",
        "pg_wal/000000010000000000000001": b"before",
        "pg_wal/000000010000000000000002": b"wal",
        "pg_wal/00000002.history": b"history",
        "pg_wal/archive_status/000000010000000000000001.done": b"",
        "pg_wal/archive_status/000000010000000000000002.done": b"",
        "pg_wal/archive_status/00000002.history.done": b"",
    }
    assert beside.slots == ["pgrepl_basebackup_7"]
    assert [call["end"] for call in wal.calls] == [None, *[0x20000FF] * (len(positions) - 1)]
    assert {(call["start"], call["timeline"], call["slot"]) for call in wal.calls} == {
        (0x2000028, 1, "pgrepl_basebackup_7")
    }


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("compress", ["none", "gzip"])
def test_wal_in_an_archive(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch, compress: str
) -> None:
    monkeypatch.setattr("pgrepl.basebackup.wal.receive_wal", Wal(0x2000100))
    received = receive(
        Server(events((MAIN, PLAIN))),
        target,
        format="tar",
        wal="stream",
        wal_connection=Server(()),
        temporary_slot=False,
        compress=compress,
    )
    suffix = ".gz" if compress == "gzip" else ""
    assert received.files == (f"base.tar{suffix}", f"pg_wal.tar{suffix}")
    assert everything(target) == sorted([*received.files, "backup_manifest"])
    with tarfile.open(target / f"pg_wal.tar{suffix}") as archive:
        assert sorted(archive.getnames()) == [
            "000000010000000000000001",
            "000000010000000000000002",
            "00000002.history",
            "archive_status/000000010000000000000001.done",
            "archive_status/000000010000000000000002.done",
            "archive_status/00000002.history.done",
        ]
        member = archive.extractfile("000000010000000000000002")
        assert member is not None
        assert member.read() == b"wal"


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("name", ["pg_wal/x", "pg_wal/archive_status/x", "pg_wal"])
def test_wal_that_was_not_asked_for(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("pgrepl.basebackup.wal.receive_wal", Wal(0))
    main = tar(directory("pg_wal"), directory("pg_wal/archive_status"), file(name))
    with pytest.raises(ProtocolError, match="where WAL was not asked for"):
        receive(Server(events((MAIN, main))), target, wal="stream", wal_connection=Server(()))
    assert not target.exists()


@pytest.mark.usefixtures("no_threads_left")
def test_wal_that_fails(receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backup ends at once, and the slot that was made for it goes."""
    failed = threading.Event()

    def fail(connection: Any, *_: Any, **__: Any) -> Any:
        return fail_in_a_task() if isinstance(connection, AwaitedServer) else fail_at_once()

    async def fail_in_a_task() -> None:
        fail_at_once()

    def fail_at_once() -> None:
        failed.set()
        raise pgrepl.WalStorageError("the disk")

    def sent() -> Iterator[Any]:
        whole = events((MAIN, PLAIN))
        yield next(whole)
        deadline = time.monotonic() + 30
        while not failed.is_set() or time.monotonic() < deadline:
            yield TimeoutError()

    monkeypatch.setattr("pgrepl.basebackup.wal.receive_wal", fail)
    beside = Server(())
    with pytest.raises(pgrepl.WalStorageError, match="the disk"):
        receive(
            Server(sent()),
            target,
            wal="stream",
            wal_connection=beside,
            slot="mine",
            create_slot=True,
        )
    assert beside.slots == []
    assert not target.exists()


@pytest.mark.usefixtures("no_threads_left")
def test_a_backup_that_fails_beside_its_wal(
    receive: Receive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrepl.basebackup.wal.receive_wal", Wal(0))
    sent = [*list(events((MAIN, PLAIN)))[:3], ConnectionFailed("gone")]
    with pytest.raises(ConnectionFailed):
        receive(Server(sent), target, wal="stream", wal_connection=Server(()))
    assert not target.exists()


def test_another_system(receive: Receive, target: Path) -> None:
    with pytest.raises(pgrepl.SystemMismatch, match="expected WAL of the system 1, got"):
        receive(Server(()), target, wal="stream", wal_connection=Server((), system="2"))
    assert not target.exists()
