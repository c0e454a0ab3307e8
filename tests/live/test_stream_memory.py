"""What a large transaction takes of the client: no more than a small one, however it is read, and
however long its consumer dwells on it. PGREPL_LONG=1 makes the transactions as large as promised.

The program that is measured is this file, so that nothing else is in its memory:

    python -m tests.live.test_stream_memory <conninfo> <slot> <way of reading>

It prints its peak of resident memory in bytes, at first and at last, and how many rows it read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from tests.live.consume import peak_memory
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

#: Bytes of a row's text; its key and its framing come on top.
WIDTH: Final = 960
#: Behind so many rows every buffer has been in use.
STRIDE: Final = 2_000

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


@needs_proc
@pytest.mark.timeout(3600)  # with PGREPL_LONG=1
def test_memory_of_a_large_transaction(database: Database) -> None:
    ways = list(WAYS)
    database.execute(TABLE)
    slots = [create_slot(database, way) for way in ways]
    rows = write_transaction(database, 2048 if LONG else 200)
    for slot, way in zip(slots, ways, strict=True):
        done = subprocess.run(
            [sys.executable, "-m", "tests.live.test_stream_memory", database.dsn(), slot, way],
            env={**os.environ, "PGREPL_IMPL": "c"},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            timeout=1200,
            check=True,
        )
        at_first, at_last, read = map(int, done.stdout.split())
        assert read == rows, way
        assert at_last - at_first < 64 * MEGABYTE, way
        wait_until_free(database, slot)
        # It was acknowledged as well, at its end.
        assert not left_over(database, slot), way


def left_over(database: Database, slot: str) -> list[Any]:
    """What the server still has for a slot."""
    return database.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes("
        "%s, NULL, 1, 'proto_version', '1', 'publication_names', 'p')",
        [slot],
    )


def by_transactions(stream: Any) -> Iterator[int]:
    for transaction in stream.transactions():
        for change in transaction:
            assert len(change.new["note"]) == WIDTH
            yield 1
        stream.ack(transaction)
        return


def by_batches(stream: Any) -> Iterator[int]:
    for batch in stream.batches(max_rows=1000):
        for change in batch:
            assert len(change.new["note"]) == WIDTH
        yield len(batch)
        stream.ack(batch)
        if batch.end_lsn:
            return


def by_messages(stream: Any) -> Iterator[int]:
    for message in stream:
        if isinstance(message, pgrepl.Insert):
            assert len(message.new["note"]) == WIDTH
            yield 1
        elif isinstance(message, pgrepl.Commit):
            stream.ack(message)
            return


WAYS: Final = {"transactions": by_transactions, "batches": by_batches, "messages": by_messages}


def main(conninfo: str, slot: str, way: str) -> None:
    with (
        pgrepl.connect(conninfo) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        read = at_first = 0
        for count in WAYS[way](stream):
            read += count
            if not at_first and read > STRIDE:
                at_first = peak_memory()
    print(at_first, peak_memory(), read)


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


if __name__ == "__main__":
    main(*sys.argv[1:])
