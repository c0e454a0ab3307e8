"""`receive_base_backup` in an event loop: who works where, and what a cancellation leaves."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pgrepl
from pgrepl import ConnectionFailed, UsageError
from pgrepl.basebackup import BackupProgress, receive_base_backup
from pgrepl.basebackup.tree import Tree, TreeFile
from pgrepl.physical import ReceivedWal
from tests.support.backup_archives import (
    MAIN,
    PLAIN,
    AwaitedServer,
    Server,
    contents,
    directory,
    events,
    everything,
    receive_async,
    tar,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="backups are received on POSIX")

PATIENCE = 30


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def silent_after(count: int, is_silent: asyncio.Event | None = None) -> Iterator[Any]:
    """A server that says no more after so many events. Where it is asked once more behind them,
    they were stored."""
    yield from list(events((MAIN, PLAIN), cut=600))[:count]
    yield TimeoutError()
    while True:
        if is_silent is not None:
            is_silent.set()
        yield TimeoutError()


def test_connections_of_two_kinds(target: Path) -> None:
    blocking, awaited = Server(()), AwaitedServer(Server(()))
    for one, other in ((blocking, awaited), (awaited, blocking)):
        connections: Any = (one, other)
        with pytest.raises(UsageError, match="both connections of one kind"):
            receive_base_backup(connections[0], target, wal="stream", wal_connection=connections[1])


@pytest.mark.parametrize("connection", [Server(()), AwaitedServer(Server(()))])
def test_one_connection_for_both(target: Path, connection: Any) -> None:
    """It is refused before anything is begun, and can be used on."""
    with pytest.raises(UsageError, match="expected a second connection for the WAL beside"):
        receive_base_backup(connection, target, wal="stream", wal_connection=connection)
    assert not target.exists()
    assert getattr(connection, "server", connection).options == {}


def test_where_things_are_done(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in one thread, progress in the loop's, which goes on while the disk takes its time."""
    loop_thread, at_work = threading.get_ident(), set()
    begun, turns = threading.Event(), threading.Semaphore(0)
    real = Tree.sync

    def sync(self: Tree, beat: Any) -> None:
        at_work.add(threading.get_ident())
        begun.set()
        for _ in range(3):
            assert turns.acquire(timeout=PATIENCE)
        real(self, beat)

    write = TreeFile.write

    def noted(self: TreeFile, data: Any) -> None:
        at_work.add(threading.get_ident())
        write(self, data)

    monkeypatch.setattr(Tree, "sync", sync)
    monkeypatch.setattr(TreeFile, "write", noted)
    monkeypatch.setattr("pgrepl.basebackup.progress.BEAT", 0.0)
    monkeypatch.setattr("pgrepl.basebackup.drivers.BEAT", 0.001)
    told: list[BackupProgress] = []

    def tell(progress: BackupProgress) -> None:
        assert threading.get_ident() == loop_thread
        told.append(progress)
        if begun.is_set():
            turns.release()

    asyncio.run(receive_async(Server(events((MAIN, PLAIN))), target, progress=tell))
    assert len(at_work) == 1
    assert loop_thread not in at_work
    assert {each.phase for each in told} == {"beginning", "receiving", "syncing"}


def test_pieces_are_stored_together(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is not asked for each of them; nothing is kept back while nothing comes."""
    asked = []
    submit = asyncio.wrap_future

    def counted(work: Any) -> Any:
        asked.append(work)
        return submit(work)

    monkeypatch.setattr("pgrepl.basebackup.drivers.asyncio.wrap_future", counted)
    zeros = tar(directory("base")) + bytes(1 << 20)
    sent = list(events((MAIN, zeros), cut=1000))
    asyncio.run(receive_async(Server(sent), target, format="tar", fsync=False))
    assert len(sent) > 1000
    assert len(asked) < 20
    assert (target / "base.tar").read_bytes() == zeros


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("count", range(1, 6))
def test_cancelled_while_the_server_says_nothing(target: Path, count: int, clean: bool) -> None:
    """What is left is what Ctrl-C leaves of a blocking one."""
    is_silent = asyncio.Event()
    server = Server(silent_after(count, is_silent))

    async def main() -> None:
        task = asyncio.create_task(receive_async(server, target, clean=clean))
        await is_silent.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert server.left_early
    assert target.exists() is not clean
    if not clean:
        assert not (target / "backup_manifest").exists()
        assert ("base" in everything(target)) == (count > 2)


def test_cancelled_while_the_disk_works(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work ends where it next looks up, and all is removed behind it."""
    begun, ended = threading.Event(), threading.Event()

    def sync(self: Tree, beat: Any) -> None:
        begun.set()
        try:
            while True:
                beat()
        finally:
            ended.set()

    monkeypatch.setattr(Tree, "sync", sync)

    async def main() -> None:
        task = asyncio.create_task(receive_async(Server(events((MAIN, PLAIN))), target))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
        assert not target.exists()
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(main())


def test_cancelled_again_while_it_is_removed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for that any more; it is done all the same."""
    begun, go_on = threading.Event(), threading.Event()
    real = Tree.remove

    def remove(self: Tree) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        real(self)

    monkeypatch.setattr(Tree, "remove", remove)

    async def main() -> None:
        sent = [*list(events((MAIN, PLAIN)))[:3], ConnectionFailed("gone")]
        task = asyncio.create_task(receive_async(Server(sent), target))
        await asyncio.to_thread(begun.wait, PATIENCE)
        for _ in range(2):  # while it gives up, and while it lets go of the directories
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        while target.exists():
            await asyncio.sleep(0.001)
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(main())


def test_cancelled_with_wal_beside(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The WAL is stopped in order, so that its connection can drop the slot that was made."""
    begun = asyncio.Event()
    stopped = []

    async def receive_wal(connection: Any, folder: Path, **options: Any) -> ReceivedWal:
        begun.set()
        while not options["stop"]():
            await asyncio.sleep(0.001)
        stopped.append(folder)
        return ReceivedWal(1, pgrepl.Lsn(options["start"]), pgrepl.Lsn(options["start"]), 0)

    monkeypatch.setattr("pgrepl.basebackup.wal.receive_wal", receive_wal)
    beside = Server(())

    async def main() -> None:
        task = asyncio.create_task(
            receive_async(
                Server(silent_after(3)),
                target,
                wal="stream",
                wal_connection=beside,
                slot="mine",
                create_slot=True,
            )
        )
        await begun.wait()
        assert beside.slots == ["mine"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert stopped == [target / "pg_wal"]
    assert beside.slots == []
    assert not target.exists()


def test_wal_whose_task_is_cancelled(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loop that ends does to all tasks: the backup does not wait for WAL for ever."""

    async def receive_wal(*_: Any, **__: Any) -> ReceivedWal:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("pgrepl.basebackup.wal.receive_wal", receive_wal)

    async def main() -> None:
        whole = events((MAIN, tar(directory("pg_wal"), directory("pg_wal/archive_status"))))
        task = asyncio.create_task(
            receive_async(Server(whole), target, wal="stream", wal_connection=Server(()))
        )
        while not (found := [each for each in asyncio.all_tasks() if "WAL" in each.get_name()]):
            await asyncio.sleep(0.001)
        found[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not target.exists()


def test_two_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        await asyncio.gather(
            *(
                receive_async(Server(events((MAIN, PLAIN))), tmp_path / name)
                for name in ("one", "other")
            )
        )

    asyncio.run(main())
    assert contents(tmp_path / "one") == contents(tmp_path / "other") != {}
