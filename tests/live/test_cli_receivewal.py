"""``pgrepl receivewal`` as its users run it: a process, on real servers."""

from __future__ import annotations

import gzip
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgrepl.testing import TemporaryServer
from tests.live.program import complaint, output, run, running
from tests.live.streams import PATIENCE, eventually, wait_until_free
from tests.live.test_physical import next_segment, write_wal
from tests.live.wal_archives import (
    KEPT,
    SEGMENT,
    cluster_of,
    expect_archive,
    physical_slot,
    position,
    restart_lsn,
    wait_until_flushed,
)

pytest.importorskip("click")


@pytest.fixture(scope="module")
def server(programs: Path) -> Iterator[TemporaryServer]:
    with TemporaryServer(programs, settings=KEPT) as made:
        yield made


@pytest.fixture
def slot(server: TemporaryServer) -> Iterator[str]:
    cluster = cluster_of(server)
    physical_slot(cluster, "receiver")
    yield "receiver"
    wait_until_free(cluster, "receiver")
    cluster.execute("SELECT pg_drop_replication_slot('receiver')")


def text(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def test_slots(server: TemporaryServer) -> None:
    words = ("receivewal", server.dsn(), "--slot", "made")
    assert output(*words, "--create-slot") == "created the physical slot made\n"
    assert cluster_of(server).execute(
        "SELECT slot_type, restart_lsn <= pg_current_wal_lsn() FROM pg_replication_slots"
        " WHERE slot_name = 'made'"
    ) == [("physical", True)]
    assert "42710" in complaint(*words, "--create-slot")
    said = output(*words, "--create-slot", "--if-not-exists")
    assert said == "the slot made was there already\n"
    assert output(*words, "--drop-slot") == "dropped the physical slot made\n"
    assert "42704" in complaint(*words, "--drop-slot")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--create-slot"],
        ["--drop-slot"],
        ["--create-slot", "--drop-slot", "--slot", "s"],
        ["-D", ".", "--if-not-exists"],
        ["-D", ".", "--synchronous", "--no-sync"],
        ["-D", ".", "--compress", "lzma"],
        ["-D", ".", "--compress", "gzip:10"],
        ["-D", ".", "--status-interval", "0"],
        ["-D", ".", "--endpos", "nowhere"],
    ],
)
def test_mistakes(words: list[str]) -> None:
    status, out, _ = run("receivewal", "host=/nowhere", *words)
    assert (status, out) == (2, "")


@pytest.mark.parametrize("more", [[], ["--synchronous"], ["--no-sync"], ["-Z", "1"]])
def test_up_to_a_position(
    server: TemporaryServer, slot: str, archive: Path, more: list[str]
) -> None:
    """Run after run, each goes on from the last."""
    cluster = cluster_of(server)
    start = restart_lsn(cluster, slot)
    words = ("receivewal", server.dsn(), "-D", str(archive), "--slot", slot, "-n", *more)
    for _ in range(2):
        write_wal(cluster, 20)
        end = next_segment(cluster)
        write_wal(cluster, 1)
        cluster.execute("SELECT txid_current()")
        end = position(cluster)
        assert output(*words, "--endpos", text(end - 1)) == ""
    for path in archive.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert bool(list(archive.glob("*.gz"))) == bool("-Z" in more)
    expect_archive(server, archive, start, end)
    assert restart_lsn(cluster, slot) >= end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(server: TemporaryServer, slot: str, archive: Path, number: int) -> None:
    """All that has come is synced and reported; each segment is told of."""
    cluster = cluster_of(server)
    start = restart_lsn(cluster, slot)
    with running("receivewal", server.dsn(), "-D", str(archive), "-S", slot, "-v") as process:
        eventually(lambda: list(archive.iterdir()), "it has begun")
        end = next_segment(cluster)
        wait_until_flushed(cluster, slot, end)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "")
    lines = err.splitlines()
    first = text(start // SEGMENT * SEGMENT)
    assert lines[0] == f"pgrepl: receiving WAL from {first} on, timeline 1"
    assert lines[1].startswith("pgrepl: received 00000001")
    assert lines[-1].endswith(", all of it safe")
    expect_archive(server, archive, start, end)


@pytest.mark.parametrize("stop", ["fast", "immediate"])
def test_a_server_that_comes_back(programs: Path, archive: Path, stop: str) -> None:
    """It is asked again, and goes on where it was."""
    with TemporaryServer(programs, settings=KEPT) as made:
        cluster = cluster_of(made)
        start = physical_slot(cluster, "s")
        with running("receivewal", made.dsn(), "-D", str(archive), "--slot", "s") as process:
            eventually(lambda: list(archive.iterdir()), "it has begun")
            made.stop(stop)  # type: ignore[arg-type]
            assert process.stderr is not None
            assert process.stderr.readline().endswith("; trying again in 1 s\n")
            made.start()
            end = next_segment(cluster)
            wait_until_flushed(cluster, "s", end)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
        expect_archive(made, archive, start, end)


def test_a_signal_while_the_server_is_away(programs: Path, archive: Path) -> None:
    with TemporaryServer(programs) as made:
        words = ("receivewal", made.dsn(), "-D", str(archive))
        with running(*words) as process, running(*words, "-D", str(archive.parent)) as other:
            eventually(lambda: list(archive.iterdir()), "it has begun")
            eventually(lambda: list(archive.parent.glob("0*")), "so has the other")
            other.kill()
            made.stop("immediate")
            assert process.stderr is not None
            process.stderr.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 0


def test_no_loop(programs: Path, archive: Path) -> None:
    with TemporaryServer(programs) as made:
        with running("receivewal", made.dsn(), "-D", str(archive), "--no-loop") as process:
            eventually(lambda: list(archive.iterdir()), "it has begun")
            made.stop("fast")
            out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (1, "")
        assert err.startswith("pgrepl: ")
        assert "trying again" not in err
        # The first attempt is not repeated in any case: a mistake is likelier.
        complaint("receivewal", made.dsn(), "-D", str(archive))


def test_what_cannot_get_better_by_itself(
    server: TemporaryServer, slot: str, archive: Path
) -> None:
    words = ("receivewal", server.dsn(), "--slot", slot, "-D")
    assert "to be a directory that is there" in complaint(*words, str(archive / "nowhere"))
    said = complaint("receivewal", server.dsn(), "-D", str(archive), "--slot", "nowhere")
    assert "--create-slot makes it" in said
    before = restart_lsn(cluster_of(server), slot)
    damaged = archive / "000000010000000000000001"
    damaged.write_bytes(b"short")
    assert "to be a segment of this server: 16777216 bytes" in complaint(*words, str(archive))
    assert damaged.read_bytes() == b"short"
    assert restart_lsn(cluster_of(server), slot) == before


def test_a_directory_that_is_in_use(server: TemporaryServer, archive: Path) -> None:
    words = ("receivewal", server.dsn(), "-D", str(archive))
    with running(*words):
        eventually(lambda: list(archive.iterdir()), "it has begun")
        assert "to be used by nobody else" in complaint(*words)


@pytest.mark.parametrize("size", ["8m", "20m"])
def test_a_disk_that_is_full(server: TemporaryServer, slot: str, archive: Path, size: str) -> None:
    """Not even a segment has room, or the second has not. Nothing of it is reported."""
    cluster = cluster_of(server)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(archive)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        before = restart_lsn(cluster, slot)
        write_wal(cluster, 1)
        next_segment(cluster)
        write_wal(cluster, 1)
        said = complaint("receivewal", server.dsn(), "--slot", slot, "-D", str(archive))
        assert "No space left on device" in said
        wait_until_free(cluster, slot)
        first = before // SEGMENT * SEGMENT
        assert restart_lsn(cluster, slot) == (first if size == "8m" else first + SEGMENT)
    finally:
        subprocess.run(["umount", archive], check=True)


def test_a_new_slot_keeps_wal_from_the_first_moment(programs: Path, archive: Path) -> None:
    """Killed before the first status was due, it finds all that it needs when it runs again."""
    with TemporaryServer(programs, settings={"wal_sender_timeout": 0}) as made:
        cluster = cluster_of(made)
        cluster.execute("SELECT pg_create_physical_replication_slot('new')")
        # Then there is nothing to send, only something to say.
        next_segment(cluster)
        words = ("receivewal", made.dsn(), "-D", str(archive), "-S", "new", "-s", "86400")
        kept = "SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE restart_lsn IS NOT NULL"
        with running(*words) as process:
            eventually(lambda: cluster.execute(kept), "the slot keeps WAL")
            process.kill()
        [(start,)] = cluster.execute(kept)
        for _ in range(3):
            write_wal(cluster, 1)
            next_segment(cluster)
            cluster.execute("CHECKPOINT")
        end = position(cluster)
        wait_until_free(cluster, "new")
        assert output(*words, "-n", "--endpos", text(end - 1)) == ""
        expect_archive(made, archive, int(start), end)


def test_a_slot_in_use_at_the_first_attempt(
    server: TemporaryServer, slot: str, archive: Path
) -> None:
    """It is rather a mistake than something that passes."""
    words = ("receivewal", server.dsn(), "--slot", slot, "-D")
    with running(*words, str(archive)):
        eventually(lambda: list(archive.iterdir()), "it has begun")
        other = archive.parent / "other"
        other.mkdir()
        assert "55006" in complaint(*words, str(other))
