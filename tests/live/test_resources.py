"""What a connection takes of the machine, memory and file descriptors, and gives back."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import pgrepl
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    create_slot,
    eventually,
    is_data,
    receive_transactions,
    streaming,
)
from tests.support.clusters import Cluster, Database

MEGABYTE: Final = 1 << 20

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="needs Linux, which tells a process's peak memory",
)


def emit(database: Database, count: int, size: int) -> None:
    """Write messages of that size, each on its own."""
    database.execute(
        "SELECT count(pg_logical_emit_message(false, 'p', left(repeat(md5(i::text), %s), %s)))"
        " FROM generate_series(1, %s) i",
        [size // 32 + 1, size, count],
    )


# Memory


@needs_proc
@pytest.mark.parametrize(
    ("size", "megabytes"),
    [(200, 12), (20_000, 200), (1_000_000, 40)],
    ids=["200 bytes", "20 kB", "1 MB"],
)
def test_memory_does_not_grow_with_the_stream(
    database: Database, codec: ModuleType, size: int, megabytes: int
) -> None:
    slot = create_slot(database)
    database.execute("CREATE PUBLICATION p")
    total = megabytes * MEGABYTE
    emit(database, total // size + 1, size)
    done = subprocess.run(
        [sys.executable, "-m", "tests.live.consume", database.dsn(), slot, str(total)],
        env={**os.environ, "PGREPL_IMPL": "python" if codec.__name__.endswith("pure") else "c"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    at_first, at_last, read = map(int, done.stdout.split())
    assert read >= total
    assert at_last - at_first < 16 * MEGABYTE


def test_messages_that_are_kept_stay_as_they_are(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute(
        "INSERT INTO item SELECT i, repeat(md5(i::text), i % 20) FROM generate_series(1, 8000) i"
    )
    kept: list[tuple[Any, Any, int]] = []
    with streaming(connect, database, slot) as connection:
        rows = 0
        while rows < 8000:
            for message in connection.receive_wal_messages(timeout=PATIENCE):
                if is_data(message) and bytes(message)[:1] == b"I":
                    rows += 1
                    if rows % 4 == 0:
                        kept.append((message, message.data, zlib.crc32(bytes(message))))
    assert len(kept) == 2000
    assert len({checksum for _, _, checksum in kept}) == 2000
    for message, view, checksum in kept:
        assert zlib.crc32(bytes(message)) == checksum
        assert zlib.crc32(view) == checksum
        assert view.readonly


# File descriptors


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_no_file_is_left_open(own_cluster: Cluster, connect: Connect) -> None:
    gc.collect()
    before = open_files()
    for number in range(50):
        with connect(own_cluster.dsn()) as connection:
            connection.identify_system()
        if number % 2:
            with pytest.raises(pgrepl.AuthenticationRejected):
                connect(own_cluster.dsn(user="u_reject"))
        else:
            with pytest.raises(pgrepl.ServerError):
                connect(own_cluster.dsn(dbname="no_such_database"))
        with pytest.raises(pgrepl.ConnectionFailed):
            connect(own_cluster.dsn(port=1))
        if own_cluster.has_tls:
            with pytest.raises(pgrepl.TLSError):
                connect(
                    own_cluster.dsn(
                        sslmode="verify-full", host="127.1", sslrootcert=str(own_cluster.ca_file)
                    )
                )
    assert open_files() == before


def test_no_file_is_left_open_by_what_broke(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    gc.collect()
    before = open_files()
    for _ in range(5):
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(connect(database.dsn()))
            database.execute("SELECT pg_terminate_backend(%s)", [connection.pid])
            with pytest.raises(pgrepl.ServerShutdown):
                connection.query("SELECT 1", timeout=PATIENCE)
            assert open_files() == before
    with streaming(connect, database, slot) as connection:
        database.execute("SELECT pg_terminate_backend(%s)", [connection.pid])
        with pytest.raises(pgrepl.ServerShutdown):
            while connection.receive_wal_messages(timeout=PATIENCE):
                pass
        assert open_files() == before


def test_forgotten_connection(cluster: Cluster, connect: Connect) -> None:
    connection = connect(cluster.dsn())
    pid = connection.pid
    before = open_files()
    with pytest.warns(ResourceWarning, match=f"pgrepl.Connection pid={pid} .*not closed"):
        del connection
        gc.collect()
    assert open_files() == before - 1
    eventually(
        lambda: not cluster.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]),
        "the server process ends",
    )


def test_no_objects_are_left_behind(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)

    def work() -> None:
        with streaming(connect, database, slot) as connection:
            database.execute("INSERT INTO item VALUES (1, '')")
            receive_transactions(connection, 1)
            with pytest.raises(TimeoutError):
                while connection.receive_wal_message(timeout=0):
                    pass
            connection.stop_streaming(timeout=PATIENCE)
        database.execute("DELETE FROM item")

    def alive() -> int:
        gc.collect()
        return sum(str(type(o).__module__).startswith("pgrepl") for o in gc.get_objects())

    work()
    before = alive()
    for _ in range(3):
        work()
    assert alive() == before
