"""`receive_wal` where things go wrong: receivers that are killed, disks that are full."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from tests.live.streams import PATIENCE, eventually, wait_until_free
from tests.live.test_physical import next_segment, write_wal
from tests.live.wal_archives import (
    APIS,
    KEPT,
    SEGMENT,
    cluster_of,
    expect_archive,
    physical_slot,
    position,
    receive,
    receiving,
    restart_lsn,
    segment_name,
    wait_until_flushed,
)
from tests.support.clusters import Cluster

both_apis = pytest.mark.parametrize("api", APIS)

#: A process that receives until it is killed.
RECEIVER: Final = """
import sys, pgrepl
from pgrepl.physical import receive_wal
dsn, directory, start, synchronous, compress = sys.argv[1:]
with pgrepl.connect(dsn, replication="physical") as connection:
    receive_wal(
        connection, directory, slot="s", start=int(start), synchronous=synchronous == "yes",
        compress=compress or None,
    )
"""


@pytest.fixture
def server(programs: Path) -> Iterator[TemporaryServer]:
    with TemporaryServer(programs, settings=KEPT) as made:
        yield made


@pytest.mark.parametrize("compress", ["", "gzip:1"], ids=["plain", "gzip"])
def test_killed_at_any_moment(server: TemporaryServer, archive: Path, compress: str) -> None:
    """While the server writes; what it was told is here, and nothing is missing. Twenty times with
    PGREPL_LONG=1."""
    seed = int(os.environ.get("PGREPL_SEED", random.randrange(1 << 32)))
    print(f"PGREPL_SEED={seed}")
    moments = random.Random(seed)
    cluster = cluster_of(server)
    start = physical_slot(cluster, "s")
    done = threading.Event()
    writer = threading.Thread(target=write_until, args=(cluster, done))
    writer.start()
    try:
        for _ in range(20 if os.environ.get("PGREPL_LONG") == "1" else 5):
            kill_one(server, archive, start, moments, compress)
            told = restart_lsn(cluster, "s")
            # As long as nothing was reported, it is where it was made.
            if not compress and told != start:
                expect_archive(server, archive, start, told)
    finally:
        done.set()
        writer.join(PATIENCE)
    end = next_segment(cluster)
    write_wal(cluster, 1)
    with receiving("blocking", server.dsn(), archive, slot="s"):
        wait_until_flushed(cluster, "s", end)
    for path in archive.glob("*.gz"):
        subprocess.run(["gzip", "-d", path], check=True)
    expect_archive(server, archive, start, end)
    names = [path.name for path in archive.iterdir()]
    assert len([name for name in names if not name.endswith(".partial")]) >= 3
    assert len(names) == len({name[:24] for name in names})


def write_until(cluster: Cluster, done: threading.Event) -> None:
    while not done.is_set():
        write_wal(cluster, 4)
        cluster.execute("SELECT txid_current()")  # whose commit flushes what is before it
        done.wait(0.1)


def kill_one(
    server: TemporaryServer, archive: Path, start: int, moments: random.Random, compress: str
) -> None:
    synchronous = moments.choice(["yes", "no"])
    arguments = [server.dsn(), str(archive), str(start), synchronous, compress]
    process = subprocess.Popen([sys.executable, "-c", RECEIVER, *arguments], stderr=subprocess.PIPE)
    with process:
        streams = cluster_of(server)
        eventually(
            lambda: (
                process.poll() is not None
                or streams.execute("SELECT 1 FROM pg_replication_slots WHERE active")
            ),
            "the receiver streams",
        )
        time.sleep(moments.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, said
    eventually(
        lambda: streams.execute("SELECT 1 FROM pg_replication_slots WHERE NOT active"),
        "the server has noticed",
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB; a skip where none can be made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("needs a file system of its own, which only Linux gives it")
    options = "size=40m,mode=0700"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@both_apis
def test_a_disk_that_is_full(server: TemporaryServer, small_disk: Path, api: str) -> None:
    cluster = cluster_of(server)
    start = physical_slot(cluster, "s")
    write_wal(cluster, 80)
    end = next_segment(cluster)
    write_wal(cluster, 1)
    for _ in range(2):  # it does not help to try again
        with pytest.raises(pgrepl.WalStorageError, match=r"\.partial in .*No space left"):
            receive(api, server.dsn(), small_disk, slot="s", start=start, end=end)
        told = restart_lsn(cluster, "s")
        assert told % SEGMENT == 0 or told == start
        expect_archive(server, small_disk, start, told)
        assert len(list(small_disk.iterdir())) == 2
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    receive(api, server.dsn(), small_disk, slot="s", start=start, end=end)
    expect_archive(server, small_disk, start, end)


def test_a_limit_on_the_size_of_files(server: TemporaryServer, archive: Path) -> None:
    cluster = cluster_of(server)
    start = physical_slot(cluster, "s")
    write_wal(cluster, 20)
    limit = SEGMENT - 4096
    process = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, server.dsn(), str(archive), str(start), "yes", ""],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    with process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "WalStorageError" in said
    assert "File too large" in said
    wait_until_free(cluster, "s")
    assert restart_lsn(cluster, "s") in (start, start // SEGMENT * SEGMENT)
    # What was begun is of no use, and is gone.
    assert list(archive.iterdir()) == []


@both_apis
def test_a_folder_that_may_not_be_written(server: TemporaryServer, archive: Path, api: str) -> None:
    cluster = cluster_of(server)
    start = physical_slot(cluster, "s")
    write_wal(cluster, 1)
    end = position(cluster)
    if os.geteuid() == 0:
        read_only = ["mount", "--bind", "-o", "ro", str(archive), str(archive)]
        if subprocess.run(read_only, capture_output=True, check=False).returncode != 0:
            pytest.skip("root may write everywhere, and here it may not mount")
    else:
        archive.chmod(0o500)
    try:
        with pytest.raises(pgrepl.WalStorageError, match=r"Read-only|Permission denied"):
            receive(api, server.dsn(), archive, slot="s", start=start, end=end - 1)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", archive], check=True)
        else:
            archive.chmod(0o700)
    wait_until_free(cluster, "s")
    # Nothing was written, so at most the start of the first segment was reported; the connection
    # was closed right behind that, and its end may have overtaken it.
    assert restart_lsn(cluster, "s") in (start, start // SEGMENT * SEGMENT)
    receive(api, server.dsn(), archive, slot="s", start=start, end=end - 1)
    expect_archive(server, archive, start, end)


@both_apis
def test_a_folder_that_disappears(server: TemporaryServer, archive: Path, api: str) -> None:
    """The open file takes bytes and syncs them, and they are nowhere: nothing of it is reported."""
    cluster = cluster_of(server)
    options = {"slot": "s", "start": physical_slot(cluster, "s"), "synchronous": True}
    with (
        pytest.raises(pgrepl.WalStorageError, match="removed the file"),
        receiving(api, server.dsn(), archive, **options) as result,
    ):
        write_wal(cluster, 1)
        reported = position(cluster)
        wait_until_flushed(cluster, "s", reported)
        shutil.rmtree(archive)
        before = restart_lsn(cluster, "s")
        write_wal(cluster, 1)
        cluster.execute("SELECT txid_current()")
        eventually(lambda: result, "it notices")
    wait_until_free(cluster, "s")
    after = restart_lsn(cluster, "s")
    assert before <= after < position(cluster)


@both_apis
def test_links_in_the_folder(
    server: TemporaryServer, archive: Path, tmp_path: Path, api: str
) -> None:
    """Whoever can write to the folder cannot have other files written to."""
    cluster = cluster_of(server)
    start = physical_slot(cluster, "s")
    write_wal(cluster, 1)
    end = position(cluster)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    name = segment_name(1, start)
    for suffix in ("", ".partial"):
        (archive / (name + suffix)).symlink_to(victim)
        with pytest.raises(pgrepl.WalStorageError, match=f"{name}.*(link|symbolic)"):
            receive(api, server.dsn(), archive, slot="s", start=start, end=end - 1)
        (archive / (name + suffix)).unlink()
    assert victim.read_bytes() == b"precious"
    assert restart_lsn(cluster, "s") == start
