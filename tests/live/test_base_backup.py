"""Base backups: read as events, written to files, verified, started as servers; and what becomes of
the connection when one is left, cut off or fails."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pgrepl
from pgrepl import basebackup
from pgrepl.testing import TemporaryServer
from pgrepl.testing.server_account import give, server_account
from tests.live.origins import ROWS, execute, fill, run_program
from tests.live.streams import PATIENCE, Connect
from tests.support.backups import restored_server, save
from tests.support.clusters import Cluster
from tests.support.flavours import FEW_FLAVOURS

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)


def major(server: TemporaryServer) -> int:
    return int(server.version.split(".")[0])


@pytest.fixture(scope="module")
def origin(programs: Path, cluster: Cluster) -> Iterator[TemporaryServer]:
    """A server of its own, with a table in a tablespace."""
    settings = {"summarize_wal": True} if cluster.major >= 17 else {}
    with TemporaryServer(programs, settings=settings) as server:
        fill(server)
        yield server


# Whole backups


@pytest.mark.parametrize("replication", ["database", "physical"])
def test_a_backup_is_verified_and_starts(
    origin: TemporaryServer, connect: Connect, tmp_path: Path, replication: str, programs: Path
) -> None:
    label = 'it\'s a \\ "label" 🐘'
    with connect(origin.dsn(), replication=replication) as connection:
        backup = save(
            connection.base_backup(
                label=label, progress=True, checkpoint="fast", wal=True, manifest="yes"
            ),
            tmp_path / "saved",
        )
        identity = connection.identify_system()
    [space, main] = backup.start.tablespaces
    assert (main.oid, main.location) == (None, None)
    assert space.oid is not None
    assert Path(str(space.location)).name == "its space"
    assert all((each.size or 0) > 0 for each in (main, space))
    assert (backup.start.timeline, backup.end.timeline) == (1, 1)
    assert backup.start.start_lsn < backup.end.end_lsn <= identity.xlogpos
    assert set(backup.archives) == {None, space.oid}
    data = backup.unpack(tmp_path / "data", {space.oid: tmp_path / "space"})
    assert f"LABEL: {label}\n" in (data / "backup_label").read_text()
    assert "successfully verified" in run_program(origin, "pg_verifybackup", data)
    oid, moved = space.oid, {}

    def fill(folder: Path) -> None:
        moved[oid] = folder.parent / "moved space"
        backup.unpack(folder, moved)
        give(moved[oid], server_account())

    with restored_server(programs, fill) as restored:
        assert execute(restored, ROWS) == [(3000, 3000000)]
        assert execute(restored, "SELECT seven FROM moved") == [(7,)]


def test_events_are_in_order(origin: TemporaryServer, connect: Connect) -> None:
    kinds: list[type] = []
    with connect(origin.dsn()) as connection:
        for event in connection.base_backup(checkpoint="fast", wait=False, manifest="yes"):
            # How far it has come is told once a second, and at the end.
            if type(event) not in (*kinds[-1:], basebackup.Progress):
                kinds.append(type(event))
        assert connection.identify_system().timeline == 1
    archive = [basebackup.ArchiveStart, basebackup.ArchiveData]
    manifest = [basebackup.ManifestStart, basebackup.ManifestData]
    assert kinds == [
        basebackup.BackupStart,
        *archive * 2,
        *manifest,
        basebackup.BackupEnd,
    ]


def test_archives_are_whole_tar_files(
    origin: TemporaryServer, connect: Connect, tmp_path: Path
) -> None:
    with connect(origin.dsn()) as connection:
        backup = save(connection.base_backup(checkpoint="fast"), tmp_path / "saved")
    for oid, path in backup.archives.items():
        content = path.read_bytes()
        assert len(content) % 512 == 0
        assert content.endswith(bytes(1024))
        with backup.open_archive(oid) as archive:
            members = archive.getmembers()
        # Nothing but the end behind the last one.
        last = members[-1]
        end = last.offset_data + (last.size + 511) // 512 * 512
        assert not any(content[end:])
        assert len(content) - end >= 1024


def test_links_of_tablespaces_can_be_described(
    origin: TemporaryServer, connect: Connect, tmp_path: Path
) -> None:
    with connect(origin.dsn()) as connection:
        for described in (False, True):
            backup = save(
                connection.base_backup(checkpoint="fast", tablespace_map=described),
                tmp_path / f"saved {described}",
            )
            with backup.open_archive() as archive:
                assert ("tablespace_map" in archive.getnames()) == described


def test_nothing_is_collected(origin: TemporaryServer, connect: Connect) -> None:
    size = 0
    with connect(origin.dsn()) as connection:
        tracemalloc.start()
        try:
            for event in connection.base_backup(checkpoint="fast"):
                if isinstance(event, basebackup.ArchiveData):
                    size += len(event.data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size > 20 << 20
    assert peak < 2 << 20


# Options


def test_compressed_by_the_server(
    origin: TemporaryServer, connect: Connect, tmp_path: Path
) -> None:
    with connect(origin.dsn()) as connection:
        if major(origin) < 15:
            with pytest.raises(pgrepl.UsageError, match="compression need PostgreSQL 15"):
                connection.base_backup(compression="gzip")
            return
        backup = save(
            connection.base_backup(
                checkpoint="fast", compression="gzip", compression_detail="level=1"
            ),
            tmp_path / "saved",
        )
    names = [event.name for event in backup.events if isinstance(event, basebackup.ArchiveStart)]
    assert all(name.endswith(".tar.gz") for name in names)
    for path in backup.archives.values():
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes()))) as archive:
            assert archive.getnames()


def test_kept_by_the_server(origin: TemporaryServer, connect: Connect) -> None:
    target = origin.folder / "kept"
    with connect(origin.dsn()) as connection:
        if major(origin) < 15:
            with pytest.raises(pgrepl.UsageError, match="target need PostgreSQL 15"):
                connection.base_backup(target="server", target_detail=str(target))
            return
        ways: list[dict[str, Any]] = [
            {"target": "server", "target_detail": str(target)},
            {"target": "blackhole"},
        ]
        for options in ways:
            events = list(connection.base_backup(checkpoint="fast", manifest="yes", **options))
            assert isinstance(events[-1], basebackup.BackupEnd)
            assert sum(isinstance(event, basebackup.ArchiveStart) for event in events) == 2
            assert not any(isinstance(event, basebackup.ArchiveData) for event in events)
    assert {each.name for each in target.iterdir()} >= {"base.tar", "backup_manifest"}
    for path in target.iterdir():
        path.unlink()
    target.rmdir()


def test_pages_with_wrong_checksums(origin: TemporaryServer, connect: Connect) -> None:
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
        with connect(origin.dsn()) as connection:
            events: list[object] = []
            with pytest.raises(pgrepl.ServerError) as caught:
                events.extend(connection.base_backup(checkpoint="fast"))
            assert caught.value.sqlstate == "XX001"
            for event in connection.base_backup(checkpoint="fast", verify_checksums=False):
                last = event
            assert isinstance(last, basebackup.BackupEnd)
    finally:
        execute(origin, "DROP TABLE broken")


def test_what_the_server_refuses(origin: TemporaryServer, connect: Connect) -> None:
    refused: list[dict[str, Any]] = [{"manifest_checksums": "SHA256"}]
    if major(origin) >= 15:
        refused += [
            {"target": "nowhere"},
            {"compression": "gzip", "compression_detail": "level=99"},
        ]
    with connect(origin.dsn()) as connection:
        for options in refused:
            with pytest.raises(pgrepl.ServerError):
                list(connection.base_backup(checkpoint="fast", **options))
            assert connection.identify_system().timeline == 1
        connection.query("BEGIN")
        with pytest.raises(pgrepl.ServerError) as caught:
            next(connection.base_backup())
        assert caught.value.sqlstate == "25001"
        connection.query("ROLLBACK")


# Left, cut off, cancelled


def test_time_limits_lose_nothing(
    origin: TemporaryServer, connect: Connect, tmp_path: Path
) -> None:
    def patiently(
        events: Iterator[basebackup.BackupEvent],
    ) -> Iterator[basebackup.BackupEvent]:
        while True:
            try:
                yield next(events)
            except TimeoutError:
                cut_off.append(1)
            except StopIteration:
                return

    cut_off: list[int] = []
    with connect(origin.dsn()) as connection:
        events = connection.base_backup(
            checkpoint="fast", manifest="yes", wal=True, max_rate=8192, timeout=0.001
        )
        backup = save(patiently(events), tmp_path / "saved")
        assert connection.identify_system().timeline == 1
    # The server itself pauses, at such a rate.
    assert cut_off
    [oid] = [each.oid for each in backup.start.tablespaces if each.oid is not None]
    data = backup.unpack(tmp_path / "data", {oid: tmp_path / "space"})
    assert "successfully verified" in run_program(origin, "pg_verifybackup", data)


def test_nothing_else_while_it_is_on(origin: TemporaryServer, connect: Connect) -> None:
    with connect(origin.dsn()) as connection:
        backup = connection.base_backup(checkpoint="fast")
        # It has not begun yet.
        assert connection.identify_system().timeline == 1
        assert isinstance(next(backup), basebackup.BackupStart)
        # The asynchronous flavour comes wrapped.
        assert "base backup" in repr(getattr(connection, "_connection", connection))
        for use in (
            connection.identify_system,
            lambda: next(connection.base_backup()),
            lambda: connection.start_physical(start=1),
        ):
            with pytest.raises(pgrepl.UsageError, match="expected no base backup to be on"):
                use()
        with pytest.raises(pgrepl.UsageError, match="a stream that was started"):
            connection.receive_wal_message()
        *_, last = backup
        assert isinstance(last, basebackup.BackupEnd)
        assert list(backup) == []
        assert connection.identify_system().timeline == 1


def test_one_that_is_left_costs_the_connection(origin: TemporaryServer, connect: Connect) -> None:
    with connect(origin.dsn()) as connection:
        with connection.base_backup(checkpoint="fast"):
            pass  # It never began.
        assert connection.identify_system().timeline == 1
        with connection.base_backup(checkpoint="fast") as backup:
            list(backup)
        assert not connection.closed
        with connection.base_backup(checkpoint="fast") as backup:
            next(backup)
        assert connection.closed
        with pytest.raises(pgrepl.UsageError, match="this one is closed"):
            next(backup)


def test_one_that_is_cancelled(origin: TemporaryServer, connect: Connect) -> None:
    with connect(origin.dsn()) as connection:
        backup = connection.base_backup(checkpoint="fast", max_rate=32)
        next(backup)
        execute(origin, f"SELECT pg_cancel_backend({connection.pid})")
        with pytest.raises(pgrepl.ServerError) as caught:
            list(backup)
        assert caught.value.sqlstate == "57014"
        assert list(backup) == []
        assert connection.identify_system(timeout=PATIENCE).timeline == 1


def test_one_whose_server_process_ends(origin: TemporaryServer, connect: Connect) -> None:
    with connect(origin.dsn()) as connection:
        backup = connection.base_backup(checkpoint="fast", max_rate=32)
        next(backup)
        execute(origin, f"SELECT pg_terminate_backend({connection.pid})")
        with pytest.raises(pgrepl.ServerShutdown):
            list(backup)
        assert connection.closed


# Incremental backups


def test_incremental_backups(
    origin: TemporaryServer, connect: Connect, tmp_path: Path, programs: Path
) -> None:
    if major(origin) < 17:
        with connect(origin.dsn()) as connection:
            with pytest.raises(pgrepl.UsageError, match="UPLOAD_MANIFEST needs PostgreSQL 17"):
                connection.upload_manifest(b"")
            with pytest.raises(pgrepl.UsageError, match="incremental need PostgreSQL 17"):
                connection.base_backup(incremental=True)
        return
    settings = {"summarize_wal": True}
    with TemporaryServer(programs, settings=settings) as server:
        execute(
            server, "CREATE TABLE big AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 9)"
        )
        with connect(server.dsn()) as connection:
            options: dict[str, Any] = {"checkpoint": "fast", "manifest": "yes", "wal": True}
            full = save(connection.base_backup(**options), tmp_path / "full.saved")
            execute(server, "INSERT INTO big SELECT 'more' FROM generate_series(1, 11)")
            assert full.manifest is not None
            with full.manifest.open("rb") as manifest:
                connection.upload_manifest(manifest, timeout=PATIENCE)
            events = connection.base_backup(incremental=True, **options)
            more = save(events, tmp_path / "more.saved")
            assert connection.identify_system().timeline == 1
        assert more.archives[None].stat().st_size < full.archives[None].stat().st_size
        parts = [full.unpack(tmp_path / "full"), more.unpack(tmp_path / "more")]
        run_program(server, "pg_combinebackup", *parts, "-o", tmp_path / "combined")
        assert "successfully verified" in run_program(
            server, "pg_verifybackup", tmp_path / "combined"
        )
    combined = tmp_path / "combined"
    with restored_server(programs, lambda target: combined.rename(target)) as restored:
        assert execute(restored, ROWS) == [(20, 9044)]


def test_manifests_that_are_not_taken(origin: TemporaryServer, connect: Connect) -> None:
    if major(origin) < 17:
        pytest.skip("manifests are uploaded from PostgreSQL 17 on")

    def broken() -> Iterator[bytes]:
        yield b"{"
        raise OSError("the disk is gone")

    with connect(origin.dsn()) as connection:
        with pytest.raises(pgrepl.ServerError) as caught:
            list(connection.base_backup(incremental=True, checkpoint="fast"))
        assert caught.value.sqlstate == "55000"
        for wrong in (b"no manifest", b"", [b"{}" * 100000, b"\0"]):
            with pytest.raises(pgrepl.ServerError):
                connection.upload_manifest(wrong, timeout=PATIENCE)
            assert connection.identify_system().timeline == 1
        for given, error in ((broken(), OSError), (["text"], TypeError)):
            with pytest.raises(error):
                connection.upload_manifest(given, timeout=PATIENCE)  # type: ignore[arg-type]
            assert connection.identify_system(timeout=PATIENCE).timeline == 1
