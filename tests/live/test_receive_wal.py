"""`receive_wal` on real servers, held against what they have and what pg_receivewal makes of it."""

from __future__ import annotations

import gzip
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import pgrepl
from pgrepl.physical import ReceivedSegment
from pgrepl.testing import TemporaryServer
from tests.live.streams import eventually
from tests.live.test_physical import next_segment, write_wal
from tests.live.wal_archives import (
    APIS,
    KEPT,
    SEGMENT,
    beginning,
    cluster_of,
    contents,
    expect_archive,
    pg_receivewal,
    pg_waldump,
    physical_slot,
    position,
    receive,
    receiving,
    restart_lsn,
    segment_name,
    wait_until_flushed,
)
from tests.support.backups import SavedBackup, restored_server, save
from tests.support.clusters import Cluster

DIGEST: Final = "SELECT count(*), md5(string_agg(id || note, ',' ORDER BY id)) FROM load"

PACKAGES: Final = {"lz4": "lz4", "zstd": "zstandard"}

both_apis = pytest.mark.parametrize("api", APIS)


@pytest.fixture(scope="module")
def server(programs: Path) -> Iterator[TemporaryServer]:
    with TemporaryServer(programs, settings=KEPT) as made:
        yield made


@pytest.fixture
def slot(server: TemporaryServer) -> Iterator[str]:
    """A slot that keeps the WAL from here on."""
    cluster = cluster_of(server)
    physical_slot(cluster, "receiver")
    yield "receiver"
    cluster.execute("SELECT pg_drop_replication_slot('receiver')")


def load(cluster: Cluster) -> None:
    """Some segments' worth of rows."""
    cluster.execute(
        "CREATE TABLE IF NOT EXISTS load (id int, note text);"
        " INSERT INTO load SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 100000) i"
    )


@both_apis
def test_the_same_as_pg_receivewal(
    server: TemporaryServer, slot: str, archive: Path, api: str
) -> None:
    cluster = cluster_of(server)
    start = physical_slot(cluster, "model")
    try:
        load(cluster)
        end = position(cluster)
        options = {"slot": slot, "end": end - 1, **beginning(cluster, start)}
        received = receive(api, server.dsn(), archive, **options)
        model = archive.parent / "model"
        pg_receivewal(server, model, "model", end - 1)
    finally:
        cluster.execute("SELECT pg_drop_replication_slot('model')")
    mine, theirs = contents(archive), contents(model)
    assert set(mine) == set(theirs)
    assert len(mine) >= 3
    assert [name for name in mine if name.endswith(".partial")] == [max(mine)]
    for name, data in theirs.items():
        assert mine[name] == data, name
    assert received.start == start // SEGMENT * SEGMENT
    assert received.position >= end
    assert received.segments == len(mine) - 1
    assert restart_lsn(cluster, slot) == received.position
    assert {stat.S_IMODE(path.stat().st_mode) for path in archive.iterdir()} == {0o600}


@both_apis
@pytest.mark.parametrize("compress", [None, "gzip:1", "lz4", "zstd"])
def test_while_the_server_works(
    server: TemporaryServer, slot: str, archive: Path, api: str, compress: str | None
) -> None:
    cluster = cluster_of(server)
    if compress in PACKAGES:
        pytest.importorskip(PACKAGES[compress])
    told: list[ReceivedSegment] = []
    start = restart_lsn(cluster, slot)
    options = {"slot": slot, "compress": compress, "on_segment": told.append}
    options |= beginning(cluster, start)
    with receiving(api, server.dsn(), archive, **options) as result:
        load(cluster)
        end = next_segment(cluster)
        wait_until_flushed(cluster, slot, end)
    [received] = result
    assert received.position >= end
    starts = range(start // SEGMENT * SEGMENT, end, SEGMENT)
    assert [segment.start for segment in told] == list(starts)
    for first, segment in zip(starts, told, strict=True):
        suffix = {None: "", "gzip:1": ".gz", "lz4": ".lz4", "zstd": ".zst"}[compress]
        assert segment.name == segment_name(1, first) + suffix
        plain = decompressed(archive / segment.name)
        assert plain == (server.data_directory / "pg_wal" / segment_name(1, first)).read_bytes()
    if compress is None:
        assert pg_waldump(server, archive, start, end - 1, 1).count("\n") > 100_000


def decompressed(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".lz4":
        unpacked: bytes = pytest.importorskip("lz4.frame").decompress(path.read_bytes())
        return unpacked
    if path.suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        plain: bytes = zstandard.ZstdDecompressor().decompress(path.read_bytes())
        return plain
    return path.read_bytes()


@both_apis
def test_one_run_after_the_other(
    server: TemporaryServer, slot: str, archive: Path, api: str
) -> None:
    """Each goes on from the last, whatever form that left its segments in, with a slot or none."""
    cluster = cluster_of(server)
    start = restart_lsn(cluster, slot)
    for options in ({}, {"compress": "gzip:1"}, {"slot": None}, {"synchronous": True}):
        write_wal(cluster, 20)
        end = position(cluster)
        wanted = {"slot": slot, "end": end - 1, **beginning(cluster, start), **options}
        receive(api, server.dsn(), archive, **wanted)
    for path in archive.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    expect_archive(server, archive, start, end)


def test_by_turns_with_pg_receivewal(server: TemporaryServer, slot: str, archive: Path) -> None:
    """Either goes on from what the other left, compressed or not."""
    cluster = cluster_of(server)
    start = restart_lsn(cluster, slot)
    archive.rmdir()
    for turn in range(4):
        write_wal(cluster, 20)
        cluster.execute("SELECT txid_current()")
        end = position(cluster)
        if turn % 2:
            compress = "gzip:1" if turn == 3 else None
            receive("blocking", server.dsn(), archive, slot=slot, end=end - 1, compress=compress)
        else:
            pg_receivewal(server, archive, slot, end - 1)
    for path in archive.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    expect_archive(server, archive, start, end)


@pytest.mark.parametrize("turns", [0, 1])
def test_lz4_by_turns_with_pg_receivewal(
    server: TemporaryServer, slot: str, archive: Path, turns: int
) -> None:
    """Whoever begins; its checksum is checked by the other, and the system's identifier by us."""
    frame = pytest.importorskip("lz4.frame")
    cluster = cluster_of(server)
    start = restart_lsn(cluster, slot)
    for turn in range(turns, turns + 2):
        write_wal(cluster, 20)
        cluster.execute("SELECT txid_current()")
        end = position(cluster)
        if turn % 2:
            try:
                pg_receivewal(server, archive, slot, end - 1, "--compress=lz4")
            except subprocess.CalledProcessError as error:
                if b"does not support compression with LZ4" not in error.stderr:
                    raise
                pytest.skip("this pg_receivewal was built without lz4")
        else:
            receive("blocking", server.dsn(), archive, slot=slot, end=end - 1, compress="lz4")
    packed = list(archive.glob("*.lz4"))
    assert len(packed) >= 2
    for path in packed:
        path.with_suffix("").write_bytes(frame.decompress(path.read_bytes()))
    # The last one is not complete, and in whatever form its program leaves it.
    expect_archive(server, archive, start, end // SEGMENT * SEGMENT)


def test_synchronous(server: TemporaryServer, archive: Path) -> None:
    """A server that waits for its standbys to flush waits for nothing here."""
    cluster = cluster_of(server)
    cluster.execute("ALTER SYSTEM SET synchronous_standby_names = 'vault'")
    cluster.execute("SELECT pg_reload_conf()")
    try:
        dsn = server.dsn(application_name="vault")
        with receiving("blocking", dsn, archive, synchronous=True):
            eventually(
                lambda: cluster.execute(
                    "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
                ),
                "it is a synchronous standby",
            )
            load(cluster)
            end = position(cluster)
            [(flushed,)] = cluster.execute(
                "SELECT flush_lsn - '0/0' FROM pg_stat_replication WHERE application_name = 'vault'"
            )
            assert flushed >= end - 8192  # what comes behind a commit is waited for by nobody
    finally:
        cluster.execute("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.execute("SELECT pg_reload_conf()")


def test_files_of_a_server_that_its_group_may_read(programs: Path, archive: Path) -> None:
    with TemporaryServer(programs) as made:
        made.stop()
        for path in [made.data_directory, *made.data_directory.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o750 if path.is_dir() else 0o640)
        made.start()
        receive("blocking", made.dsn(), archive, end=position(cluster_of(made)) - 1)
    [path] = archive.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@both_apis
def test_a_server_that_shuts_down_waits_for_nothing(
    programs: Path, archive: Path, api: str
) -> None:
    """All that it wrote is here, durable and reported, and it knows that before it is gone."""
    with TemporaryServer(programs, settings=KEPT) as made:
        cluster = cluster_of(made)
        start = physical_slot(cluster, "s")
        with (
            pytest.raises(pgrepl.ServerShutdown),
            receiving(api, made.dsn(), archive, slot="s", start=start),
        ):
            eventually(lambda: list(archive.iterdir()), "it has begun")
            write_wal(cluster, 3)
            made.stop("fast", timeout=60)
        assert " ABORT" not in made.log_file.read_text()
        control = subprocess.run(
            [made.bin_directory / "pg_controldata", made.data_directory],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert "shut down" in control
        [checkpoint] = [
            pgrepl.decode_lsn(line.split()[-1])
            for line in control.splitlines()
            if line.startswith("Latest checkpoint location")
        ]
        expect_archive(made, archive, checkpoint, checkpoint + 24)


def test_a_standby_recovers_from_what_was_received(
    programs: Path, archive: Path, tmp_path: Path
) -> None:
    with TemporaryServer(programs, settings=KEPT) as primary:
        cluster = cluster_of(primary)
        with pgrepl.connect(primary.dsn()) as connection:
            backup = save(connection.base_backup(checkpoint="fast"), tmp_path / "backup")
        physical_slot(cluster, "s")
        with receiving("blocking", primary.dsn(), archive, slot="s", start=backup.start.start_lsn):
            load(cluster)
            end = next_segment(cluster)
            wait_until_flushed(cluster, "s", end)
        [(rows, digest)] = cluster.execute(DIGEST)
    restored = restored_server(
        programs,
        lambda target: fill(target, backup, archive),
        settings={"restore_command": 'cp "archive/%f" "%p"'},
    )
    with restored:
        eventually(
            lambda: cluster_of(restored).execute("SELECT NOT pg_is_in_recovery()")[0][0],
            "recovery has come to the end of the archive",
        )
        assert cluster_of(restored).execute(DIGEST) == [(rows, digest)]
        assert rows == 100_000


def fill(target: Path, backup: SavedBackup, archive: Path) -> None:
    """Make a data directory of a backup, to be recovered from an archive inside of it."""
    backup.unpack(target)
    (target / "recovery.signal").touch()
    shutil.copytree(archive, target / "archive")


def test_what_the_server_no_longer_has(programs: Path, archive: Path) -> None:
    with TemporaryServer(programs) as made:
        cluster = cluster_of(made)
        for _ in range(4):
            write_wal(cluster, 1)
            next_segment(cluster)
            cluster.execute("CHECKPOINT")
        with pytest.raises(pgrepl.ServerError, match="removed") as caught:
            receive("blocking", made.dsn(), archive, start=SEGMENT, timeline=1)
        assert caught.value.sqlstate == "58P01"
    assert list(archive.iterdir()) == []


def test_the_wal_of_another_server(
    server: TemporaryServer, slot: str, programs: Path, archive: Path
) -> None:
    cluster = cluster_of(server)
    write_wal(cluster, 1)
    receive("blocking", server.dsn(), archive, slot=slot, end=position(cluster) - 1)
    before = contents(archive)
    with TemporaryServer(programs) as other, pytest.raises(pgrepl.SystemMismatch):
        receive("blocking", other.dsn(), archive, end=1)
    assert contents(archive) == before
