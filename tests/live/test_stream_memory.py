"""What a large transaction takes of the client: no more than the promised 64 MiB, whether the
server sends it when it is committed or streams it before, however it is read, and however long its
consumer dwells on it. PGREPL_LONG=1 makes the transactions as large as promised.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import pgrepl
from pgrepl.session.options import Streaming
from tests.live.large_transaction import WIDTH
from tests.live.sampling import replies
from tests.live.streams import (
    TABLE,
    confirmed,
    create_slot,
    eventually,
    wait_until_free,
)
from tests.support.clusters import Database

MEGABYTE: Final = 1 << 20
LONG: Final = os.environ.get("PGREPL_LONG") == "1"

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux, which tells a process's memory"
)


def write_transaction(database: Database, megabytes: int) -> int:
    """Write a transaction of that much text; returns how many rows it has."""
    rows = megabytes * MEGABYTE // WIDTH
    database.execute(
        "INSERT INTO item SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, %s) i", [rows]
    )
    return rows


# However it is read


class Reading(NamedTuple):
    """A way of reading, and what the server is asked for as to streaming."""

    way: str
    streaming: Streaming = "off"


READINGS: Final = (
    *(Reading(way) for way in ("transactions", "batches", "messages")),
    *(Reading(way, "on") for way in ("transactions", "batches")),
    *(Reading(way, "parallel") for way in ("transactions", "batches")),
)
#: The first server that has it.
SINCE: Final = {"off": 10, "on": 14, "parallel": 16}


@needs_proc
@pytest.mark.timeout(7200)  # with PGREPL_LONG=1
def test_memory_of_a_large_transaction(database: Database) -> None:
    database.execute(TABLE)
    major = database.cluster.major
    slots = {
        reading: create_slot(database, "_".join(reading))
        for reading in READINGS
        if major >= SINCE[reading.streaming]
    }
    rows = write_transaction(database, 2048 if LONG else 100)
    for reading, slot in slots.items():
        done = subprocess.run(
            [sys.executable, "-m", "tests.live.large_transaction", database.dsn(), slot, *reading],
            env={**os.environ, "PGREPL_IMPL": "c"},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            timeout=1200,
            check=True,
        )
        at_first, at_last, read = map(int, done.stdout.split())
        assert read == rows, reading
        assert at_last - at_first < 64 * MEGABYTE, reading
        wait_until_free(database, slot)
        # It was acknowledged as well, at its end.
        assert not left_over(database, slot), reading
        assert was_streamed(database, slot) == (reading.streaming != "off"), reading


def was_streamed(database: Database, slot: str) -> bool:
    """Whether the server streamed a transaction before its end, by its own account."""
    if database.cluster.major < SINCE["on"]:
        return False
    eventually(
        lambda: database.execute(
            "SELECT 1 FROM pg_stat_replication_slots WHERE slot_name = %s AND total_txns > 0",
            [slot],
        ),
        "the server has counted what it sent",
    )
    [(transactions,)] = database.execute(
        "SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = %s", [slot]
    )
    return bool(transactions)


def left_over(database: Database, slot: str) -> list[Any]:
    """What the server still has for a slot."""
    return database.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes("
        "%s, NULL, 1, 'proto_version', '1', 'publication_names', 'p')",
        [slot],
    )


# However long it takes


@needs_proc
@pytest.mark.timeout(3600)  # with PGREPL_LONG=1
def test_consumer_that_blocks_in_a_large_transaction(database: Database) -> None:
    """For five times wal_sender_timeout, by the server's own clock."""
    database.execute(TABLE)
    slot = create_slot(database)
    before = confirmed(database, slot)
    rows = write_transaction(database, 500 if LONG else 60)
    with pgrepl.connect(database.dsn(), options="-c wal_sender_timeout=2s") as connection:
        with connection.stream(slot, publications=["p"]) as stream:
            transaction = next(stream.transactions())
            changes = iter(transaction)
            next(changes)
            eventually(lambda: is_held_up(database, connection.pid), "the socket is full")
            memory, received = resident_memory(), stream.stats().received
            statuses = replies(database, connection.pid)
            first = next(statuses)
            while (next(statuses) - first).total_seconds() < 10:
                # It reads nothing in the meantime, and the server cannot go on.
                eventually(lambda: is_held_up(database, connection.pid), "the socket is full")
            assert stream.stats().received == received
            assert resident_memory() - memory < 8 * MEGABYTE
            assert confirmed(database, slot) == before
            assert 1 + sum(1 for _ in changes) == rows
            assert resident_memory() - memory < 64 * MEGABYTE
            stream.ack(transaction)
        assert confirmed(database, slot) >= transaction.end_lsn
    assert not [thread for thread in threading.enumerate() if slot in thread.name]


def is_held_up(database: Database, pid: int) -> bool:
    """Whether the server waits until somebody takes what it has to send."""
    return bool(
        database.cluster.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'WalSenderWriteData'",
            [pid],
        )
    )


def resident_memory() -> int:
    """VmRSS of this process, in bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
