"""What the live tests of `receive_wal` share: a server that keeps its WAL, both APIs of
receiving, the program that is the model, and what an archive must hold."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from pgrepl.physical import ReceivedWal, receive_wal
from pgrepl.testing import TemporaryServer
from tests.live.streams import PATIENCE, eventually
from tests.support.clusters import Cluster

SEGMENT: Final = 16 << 20

#: Nothing is recycled, so that what was received can be held against it.
KEPT: Final[dict[str, str | int | bool]] = {"wal_keep_size": "4GB", "max_wal_size": "4GB"}

APIS: Final = ("blocking", "async")


def cluster_of(server: TemporaryServer) -> Cluster:
    return Cluster({"host": server.host, "port": server.port, "user": "postgres"}, server=server)


def receive(api: str, dsn: str, directory: Path, **options: Any) -> ReceivedWal:
    """Receive on a connection of that API, to the end that the options give."""
    if api == "blocking":
        with pgrepl.connect(dsn, replication="physical") as connection:
            return receive_wal(connection, directory, **options)

    async def main() -> ReceivedWal:
        async with pgrepl.AsyncConnection.connect(dsn, replication="physical") as connection:
            return await receive_wal(connection, directory, **options)

    return asyncio.run(main())


@contextlib.contextmanager
def receiving(api: str, dsn: str, directory: Path, **options: Any) -> Iterator[list[Any]]:
    """Receive in another thread until the end of the body; what it returned is in the list."""
    stop = threading.Event()
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(receive(api, dsn, directory, stop=stop, **options))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    if result and isinstance(result[0], BaseException):
        raise result[0]


def pg_receivewal(
    server: TemporaryServer, directory: Path, slot: str, end: int, *options: str
) -> None:
    """Receive with PostgreSQL's own program, which begins where the slot does."""
    if int(server.version.split(".")[0]) < 15:
        pytest.skip("begins where a slot does only from PostgreSQL 15 on")
    directory.mkdir(exist_ok=True)
    subprocess.run(
        [
            *(server.bin_directory / "pg_receivewal", "--no-loop", "--dbname", server.dsn()),
            *("--directory", directory, "--slot", slot, "--endpos", str(pgrepl.Lsn(end))),
            *options,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def position(cluster: Cluster) -> int:
    """The end of the server's WAL, all of it on disk."""
    [(end,)] = cluster.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
    return int(end)


def physical_slot(cluster: Cluster, name: str) -> int:
    """Make a slot that keeps the WAL from here on; returns its position."""
    cluster.execute("SELECT pg_create_physical_replication_slot(%s, true)", [name])
    return restart_lsn(cluster, name)


def beginning(cluster: Cluster, start: int) -> dict[str, Any]:
    """Options to begin where a slot does on a server that does not tell where that is."""
    return {} if cluster.major >= 15 else {"start": start, "timeline": 1}


def restart_lsn(cluster: Cluster, slot: str) -> int:
    [(found,)] = cluster.execute(
        "SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s", [slot]
    )
    return int(found)


def wait_until_flushed(cluster: Cluster, slot: str, end: int) -> None:
    eventually(lambda: restart_lsn(cluster, slot) >= end, "the slot has come there")


def segment_name(timeline: int, start: int) -> str:
    return f"{timeline:08X}{start >> 32:08X}{(start & 0xFFFFFFFF) // SEGMENT:08X}"


def expect_archive(server: TemporaryServer, directory: Path, start: int, end: int) -> None:
    """All segments of the first timeline from `start` on, as the server has them, up to `end`."""
    for first in range(start // SEGMENT * SEGMENT, end, SEGMENT):
        name = segment_name(1, first)
        size = min(end - first, SEGMENT)
        path = directory / (name if (directory / name).exists() else f"{name}.partial")
        assert path.exists(), f"{name} is missing, WAL is wanted up to {end - first} of it"
        wal = (server.data_directory / "pg_wal" / name).read_bytes()
        assert path.read_bytes()[:size] == wal[:size], name


def pg_waldump(
    server: TemporaryServer, directory: Path, start: int, end: int, timeline: int
) -> str:
    """Have every record between two positions read and checked.

    The segment that is not complete is read as well, by the name that it would have in the end.
    """
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        for path in sorted(directory.iterdir()):
            target = Path(folder, path.name.removesuffix(".partial"))
            target.unlink(missing_ok=True)
            target.hardlink_to(path)
        done = subprocess.run(
            [
                *(server.bin_directory / "pg_waldump", "--path", folder),
                *("--timeline", str(timeline)),
                *("--start", str(pgrepl.Lsn(start)), "--end", str(pgrepl.Lsn(end))),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
