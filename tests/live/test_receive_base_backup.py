"""Base backups received into directories: verified, and started as servers that have the rows."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgrepl
import pgrepl.aio
from pgrepl.basebackup import BackupProgress, ReceivedBackup, receive_base_backup
from pgrepl.testing import TemporaryServer
from pgrepl.testing.server_account import give, server_account
from tests.live.origins import ROWS, execute, fill, run_program
from tests.live.streams import PATIENCE, eventually
from tests.support.backups import restored_server
from tests.support.clusters import Cluster


@pytest.fixture(scope="module")
def origin(programs: Path, cluster: Cluster) -> Iterator[TemporaryServer]:
    """A server of its own, with a table in a tablespace, that keeps its WAL for a while."""
    settings: dict[str, str | bool] = {"wal_keep_size": "1GB"}
    if cluster.major >= 17:
        settings["summarize_wal"] = True
    with TemporaryServer(programs, settings=settings) as server:
        fill(server)
        yield server


Receive = Callable[..., ReceivedBackup]


def receive_blocking(server: TemporaryServer, target: Path, **options: Any) -> ReceivedBackup:
    with (
        pgrepl.connect(server.dsn(), replication="physical") as connection,
        pgrepl.connect(server.dsn(), replication="physical") as beside,
    ):
        streamed = {"wal_connection": beside} if options.get("wal") == "stream" else {}
        received = receive_base_backup(
            connection, target, **{"checkpoint": "fast", **streamed, **options}
        )
        # Both can be used on.
        assert connection.identify_system().timeline == beside.identify_system().timeline == 1
        return received


def receive_in_a_loop(server: TemporaryServer, target: Path, **options: Any) -> ReceivedBackup:
    return asyncio.run(receive_async(server, target, **options))


async def receive_async(server: TemporaryServer, target: Path, **options: Any) -> ReceivedBackup:
    async with (
        await pgrepl.aio.connect(server.dsn(), replication="physical") as connection,
        await pgrepl.aio.connect(server.dsn(), replication="physical") as beside,
    ):
        streamed = {"wal_connection": beside} if options.get("wal") == "stream" else {}
        received: ReceivedBackup = await receive_base_backup(
            connection, target, **{"checkpoint": "fast", **streamed, **options}
        )
        for each in (connection, beside):
            assert (await each.identify_system()).timeline == 1
        return received


FLAVOURS = {"blocking": receive_blocking, "asyncio": receive_in_a_loop}


@pytest.fixture(params=FLAVOURS)
def receive(request: pytest.FixtureRequest) -> Receive:
    """What takes a backup, in both flavours."""
    return FLAVOURS[request.param]


def space_of(server: TemporaryServer) -> str:
    return str(server.folder / "its space")


def slots(server: TemporaryServer) -> list[tuple[Any, ...]]:
    return execute(server, "SELECT slot_name FROM pg_replication_slots")


@contextlib.contextmanager
def writer(server: TemporaryServer) -> Iterator[None]:
    """Rows are written and whole segments filled, until the end of the body."""
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS busy (id serial, t text)")
            while not stop.wait(0.02):
                connection.execute(
                    "INSERT INTO busy (t) SELECT repeat('y', 900) FROM generate_series(1, 2000)"
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
        execute(server, "DROP TABLE busy")


@pytest.mark.parametrize("wal", ["fetch", "stream"])
@pytest.mark.parametrize("busy", [False, True])
def test_a_server_starts_from_it(
    receive: Receive, origin: TemporaryServer, tmp_path: Path, programs: Path, wal: str, busy: bool
) -> None:
    """Also when it was taken while much was written."""
    told: list[BackupProgress] = []
    space, backup = tmp_path / "space", tmp_path / "backup"
    with writer(origin) if busy else contextlib.nullcontext():
        received = receive(
            origin,
            backup,
            format="plain",
            wal=wal,
            max_rate=20_000 if busy else None,
            tablespace_mapping={space_of(origin): space},
            progress=told.append,
        )
    [tablespace] = received.tablespaces
    assert tablespace.location == space_of(origin)
    assert told[0].phase == "beginning"
    assert told[-1].phase == "syncing"
    assert (told[-1].total or 0) > 1 << 20
    assert slots(origin) == []
    assert "successfully verified" in run_program(origin, "pg_verifybackup", backup)
    segments = [path for path in (backup / "pg_wal").iterdir() if path.is_file()]
    assert {path.stat().st_size for path in segments} == {16 << 20}
    done = {path.name for path in (backup / "pg_wal" / "archive_status").iterdir()}
    assert done == {f"{path.name}.done" for path in segments}

    def fill(folder: Path) -> None:
        backup.rename(folder)
        moved = folder.parent / "moved space"
        space.rename(moved)
        link = folder / "pg_tblspc" / str(tablespace.oid)
        assert link.readlink() == space
        link.unlink()
        link.symlink_to(moved)
        give(moved, server_account())

    with restored_server(programs, fill) as restored:
        assert execute(restored, ROWS) == [(3000, 3000000)]
        assert execute(restored, "SELECT seven FROM moved") == [(7,)]
        if busy:
            [(count, last)] = execute(restored, "SELECT count(*), max(id) FROM busy")
            assert count == last > 0
            assert count % 2000 == 0


@pytest.mark.parametrize("compress", ["none", "gzip:1", "zstd", "server-gzip:1", "server-zstd"])
@pytest.mark.parametrize("wal", ["fetch", "stream"])
def test_archives(
    origin: TemporaryServer, tmp_path: Path, cluster: Cluster, compress: str, wal: str
) -> None:
    """They are what the plain format makes of them."""
    if compress.startswith("server") and cluster.major < 15:
        with pytest.raises(pgrepl.UsageError, match="compression need PostgreSQL 15"):
            receive_blocking(origin, tmp_path / "backup", compress=compress)
        return
    received = receive_blocking(
        origin, tmp_path / "backup", format="tar", wal=wal, compress=compress
    )
    found = {path.name for path in (tmp_path / "backup").iterdir()}
    assert found == {*received.files, "backup_manifest"}
    data = tmp_path / "data"
    data.mkdir()
    oid = received.tablespaces[0].oid
    for name in received.files:
        into = {"base": data, "pg_wal": data / "pg_wal", str(oid): tmp_path / "space"}
        unpack(tmp_path / "backup" / name, into[name.partition(".")[0]])
    (data / "pg_tblspc" / str(oid)).symlink_to(tmp_path / "space")
    assert (data / "tablespace_map").exists()
    (tmp_path / "backup" / "backup_manifest").rename(data / "backup_manifest")
    assert "successfully verified" in run_program(origin, "pg_verifybackup", data)


def unpack(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as files:
        if path.suffix == ".zst":
            zstandard = pytest.importorskip("zstandard")
            raw = files.enter_context(path.open("rb"))
            file = files.enter_context(zstandard.ZstdDecompressor().stream_reader(raw))
            archive = files.enter_context(tarfile.open(fileobj=file, mode="r|"))
        else:
            archive = files.enter_context(tarfile.open(path))
        archive.extractall(folder, filter="tar")


@pytest.mark.parametrize("compress", ["server-gzip", "server-zstd:1"])
def test_unpacked_from_what_the_server_compressed(
    origin: TemporaryServer, tmp_path: Path, cluster: Cluster, compress: str
) -> None:
    if cluster.major < 15:
        pytest.skip("servers compress from PostgreSQL 15 on")
    mapping = {space_of(origin): tmp_path / "space"}
    received = receive_blocking(
        origin,
        tmp_path / "backup",
        format="plain",
        compress=compress,
        tablespace_mapping=mapping,
        manifest_checksums="SHA256",
    )
    assert received.size < 10 << 20
    assert "successfully verified" in run_program(origin, "pg_verifybackup", tmp_path / "backup")


def test_incremental(
    receive: Receive, origin: TemporaryServer, tmp_path: Path, programs: Path, cluster: Cluster
) -> None:
    if cluster.major < 17:
        manifest = tmp_path / "manifest"
        manifest.write_bytes(b"{}")
        with pytest.raises(pgrepl.UsageError, match="need(s)? PostgreSQL 17"):
            receive(origin, tmp_path / "more", incremental=manifest)
        assert not (tmp_path / "more").exists()
        return
    with TemporaryServer(programs, settings={"summarize_wal": True}) as server:
        execute(
            server, "CREATE TABLE big AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 9)"
        )
        full, more = tmp_path / "full", tmp_path / "more"
        first = receive(server, full, format="plain", wal="stream")
        execute(server, "INSERT INTO big SELECT 'more' FROM generate_series(1, 11)")
        second = receive(
            server, more, format="plain", wal="stream", incremental=full / "backup_manifest"
        )
        assert second.size < first.size
        combined = tmp_path / "combined"
        run_program(server, "pg_combinebackup", full, more, "-o", combined)
        assert "successfully verified" in run_program(server, "pg_verifybackup", combined)
    with restored_server(programs, lambda target: combined.rename(target)) as restored:
        assert execute(restored, ROWS) == [(20, 9044)]


# Slots


def test_slots(receive: Receive, origin: TemporaryServer, tmp_path: Path) -> None:
    options = {"wal": "stream", "format": "tar"}
    receive(origin, tmp_path / "1", **options, slot="mine", create_slot=True)
    assert slots(origin) == [("mine",)]
    with pytest.raises(pgrepl.ServerError) as caught:
        receive(origin, tmp_path / "2", **options, slot="mine", create_slot=True)
    assert caught.value.sqlstate == "42710"
    assert not (tmp_path / "2").exists()
    receive(origin, tmp_path / "2", **options, slot="mine")
    assert execute(origin, "SELECT pg_drop_replication_slot('mine')")
    receive(origin, tmp_path / "3", **options, temporary_slot=False)
    with pytest.raises(pgrepl.SlotNotFound):
        receive(origin, tmp_path / "4", **options, slot="nowhere")
    assert not (tmp_path / "4").exists()
    assert slots(origin) == []


# What goes wrong


def test_wal_whose_connection_is_lost(
    receive: Receive, origin: TemporaryServer, tmp_path: Path
) -> None:
    """The backup ends at once, with that error, and nothing of it is left."""
    killed = False

    def kill(progress: BackupProgress) -> None:
        nonlocal killed
        if not killed and progress.phase == "receiving":
            killed = bool(
                execute(
                    origin,
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                    " WHERE active AND EXISTS (SELECT FROM pg_stat_replication"
                    " WHERE state = 'streaming')",
                )
            )

    with pytest.raises(pgrepl.ServerShutdown):
        receive(origin, tmp_path / "backup", wal="stream", max_rate=1024, progress=kill)
    assert killed
    assert list(tmp_path.iterdir()) == []
    eventually(lambda: slots(origin) == [], "the slot goes with its connection")


@pytest.mark.parametrize("wal", ["fetch", "stream"])
@pytest.mark.parametrize("phase", ["beginning", "receiving"])
def test_a_task_that_is_cancelled(
    origin: TemporaryServer, tmp_path: Path, phase: str, wal: str
) -> None:
    """Nothing is left: no file, no slot, no session at the server."""

    async def main() -> None:
        begun = asyncio.Event()

        def tell(progress: BackupProgress) -> None:
            if progress.phase == phase and (phase == "beginning" or progress.done):
                begun.set()

        slot = {"slot": "mine", "create_slot": True} if wal == "stream" else {}
        task = asyncio.create_task(
            receive_async(
                origin, tmp_path / "backup", wal=wal, max_rate=1024, progress=tell, **slot
            )
        )
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []
    assert slots(origin) == []
    eventually(
        lambda: execute(origin, "SELECT 1 FROM pg_stat_replication") == [],
        "the server notices that nobody takes the backup",
    )


def test_pages_with_wrong_checksums(
    receive: Receive, origin: TemporaryServer, tmp_path: Path
) -> None:
    """The server finds them when all has come."""
    if execute(origin, "SHOW data_checksums") != [("on",)]:
        pytest.skip("the server's initdb makes clusters without checksums")
    execute(
        origin, "CREATE TABLE broken AS SELECT 1 AS a FROM generate_series(1, 1000); CHECKPOINT"
    )
    [(path,)] = execute(origin, "SELECT pg_relation_filepath('broken')")
    with (origin.data_directory / path).open("r+b") as file:
        file.seek(8000)
        file.write(b"broken")
    try:
        with pytest.raises(pgrepl.ServerError) as caught:
            receive(origin, tmp_path / "backup")
        assert caught.value.sqlstate == "XX001"
        assert list(tmp_path.iterdir()) == []
        receive(origin, tmp_path / "backup", verify_checksums=False)
    finally:
        execute(origin, "DROP TABLE broken")


@pytest.mark.parametrize("wal", ["none", "stream"])
@pytest.mark.parametrize("form", ["plain", "tar"])
def test_a_disk_that_is_full(
    receive: Receive, origin: TemporaryServer, small_disk: Path, wal: str, form: str
) -> None:
    mapping = {space_of(origin): small_disk / "space"} if form == "plain" else {}
    with pytest.raises((pgrepl.BackupStorageError, pgrepl.WalStorageError)) as caught:
        receive(origin, small_disk / "backup", format=form, wal=wal, tablespace_mapping=mapping)
    assert "No space left on device" in str(caught.value)
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB; a skip where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
