"""Both drivers of `receive_wal`: a slow disk, an interruption, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from pgrepl.errors import WalStorageError
from pgrepl.physical import drivers
from pgrepl.physical.directory import WalDirectory, WalFile
from pgrepl.physical.receiving import Options, ReceivedWal, Receiver
from pgrepl.transport.clock import monotonic
from tests.support.wal_server import DEFAULTS, SEGMENT, Connection, Server

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs directory descriptors")

START: Final = 5 * SEGMENT
FIFTH: Final = "000000010000000000000005"


class Awaited:
    """The same connection, awaited; a cancellation finds it in the waiting."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def server_version(self) -> int:
        return self._connection.server.version

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._connection, name)

        async def call(*args: Any, **keywords: Any) -> Any:
            await asyncio.sleep(0)
            return method(*args, **keywords)

        return call


def run(api: str, connection: Connection, path: Path, **options: Any) -> ReceivedWal:
    """Receive with one of the drivers, on a real directory."""
    connection.server_version = connection.server.version  # type: ignore[attr-defined]
    wanted = Options(**{"stop": lambda: connection.exhausted, **DEFAULTS, **options})
    made = Receiver(wanted, partial(WalDirectory, path), monotonic)
    if api == "blocking":
        return drivers._Blocking(connection, made).run()  # type: ignore[arg-type]
    awaited: Any = Awaited(connection)
    return asyncio.run(_run(awaited, made))


async def _run(connection: Any, made: Receiver) -> ReceivedWal:
    return await drivers._Async(connection, made).run()


@pytest.fixture(params=["blocking", "async"])
def api(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def server_of(size: int, **what: Any) -> Server:
    return Server(START + size, slot_start=START, **what)


def test_received(api: str, tmp_path: Path) -> None:
    server = server_of(2 * SEGMENT + 5)
    received = run(api, Connection(server), tmp_path)
    assert received.segments == 2
    assert (tmp_path / FIFTH).read_bytes() == server.wal(1, START, START + SEGMENT)
    assert {path.name[-8:] for path in tmp_path.iterdir()} == {"00000005", "00000006", ".partial"}
    WalDirectory(tmp_path).close()  # and the lock is free


def test_statuses_go_out_while_the_disk_takes_its_time(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk waits here for statuses to be sent: if they were not, this would never end."""
    server = server_of(SEGMENT)
    connection = Connection(server)
    heard = threading.Semaphore(0)
    server.on_report = lambda *_: heard.release()
    real, slow = WalFile.sync, []

    def sync(self: WalFile) -> None:
        slow.append(threading.current_thread())
        while heard.acquire(blocking=False):
            pass
        for _ in range(3):
            assert heard.acquire(timeout=60)
        assert server.flushed == START
        real(self)

    monkeypatch.setattr(WalFile, "sync", sync)
    run(api, connection, tmp_path, status_interval=0.01)
    assert slow
    assert threading.current_thread() not in slow
    assert server.flushed == START + SEGMENT


def test_a_status_that_cannot_be_sent_while_the_disk_works(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is full for now is no reason to stop."""
    server = server_of(SEGMENT)
    connection = Connection(server)
    tried = threading.Event()

    def full(*_: object, **__: object) -> None:
        tried.set()
        raise TimeoutError

    monkeypatch.setattr(connection, "send_standby_status", full)
    real = WalFile.sync

    def sync(self: WalFile) -> None:
        assert tried.wait(60)
        real(self)

    monkeypatch.setattr(WalFile, "sync", sync)
    assert run(api, connection, tmp_path, status_interval=0.01).segments == 1


def test_an_error_of_the_disk_closes_the_connection(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(server_of(SEGMENT))

    def fail(self: WalFile) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(WalFile, "sync", fail)
    with pytest.raises(WalStorageError, match="Input/output"):
        run(api, connection, tmp_path)
    assert connection.closed
    assert {flushed for _, flushed, _, _ in connection.server.reports} == {START}
    WalDirectory(tmp_path).close()


def test_a_directory_that_is_not_there_leaves_the_connection(api: str, tmp_path: Path) -> None:
    connection = Connection(server_of(SEGMENT))
    with pytest.raises(WalStorageError, match=r"nothing to be a directory.*No such file"):
        run(api, connection, tmp_path / "nothing")
    assert not connection.closed


def test_a_directory_that_another_one_uses(api: str, tmp_path: Path) -> None:
    connection = Connection(server_of(SEGMENT))
    with WalDirectory(tmp_path), pytest.raises(WalStorageError, match="by nobody else"):
        run(api, connection, tmp_path)
    assert not connection.closed


def test_an_interruption_of_the_blocking_one(tmp_path: Path) -> None:
    connection = Connection(server_of(SEGMENT))

    def interrupt(timeout: float) -> Any:
        raise KeyboardInterrupt

    connection.receive_wal_messages = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run("blocking", connection, tmp_path)
    assert connection.closed
    WalDirectory(tmp_path).close()


def test_a_cancellation_while_the_disk_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the disk, so that nobody else finds the directory in use."""
    server = server_of(SEGMENT)
    connection = Connection(server)
    connection.server_version = server.version  # type: ignore[attr-defined]
    begun, go_on = threading.Event(), threading.Event()
    real = WalFile.sync

    def sync(self: WalFile) -> None:
        begun.set()
        assert go_on.wait(60)
        real(self)

    monkeypatch.setattr(WalFile, "sync", sync)
    options = Options(**{"stop": lambda: connection.exhausted, **DEFAULTS})

    async def main() -> None:
        made = Receiver(options, partial(WalDirectory, tmp_path), monotonic)
        awaited: Any = Awaited(connection)
        task = asyncio.create_task(_run(awaited, made))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        WalDirectory(tmp_path).close()

    asyncio.run(main())
    assert connection.closed
    assert server.flushed <= START
