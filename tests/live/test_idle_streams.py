"""An idle stream whose application keeps tokens: it is told, and the slot follows what it keeps."""

from __future__ import annotations

import time
from typing import Any

import pytest

import pgrepl
from pgrepl import Idle
from tests.live.sampling import ids, insert
from tests.live.streams import (
    TABLE,
    Connect,
    confirmed,
    create_slot,
    eventually,
    meanwhile,
    wait_until_free,
)
from tests.support.clusters import Database

INTERVAL = 0.2


def write_elsewhere(database: Database) -> int:
    """Write WAL in another database; return where it ends."""
    execute = database.cluster.execute
    execute("SELECT pg_logical_emit_message(true, 'elsewhere', repeat('x', 1000000))")
    [(written,)] = execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
    return int(written)


@pytest.mark.parametrize("way", ["transactions", "batches"])
def test_a_slot_whose_tokens_are_kept_follows(
    database: Database, connect: Connect, way: str
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        kept = stream.token()
    wait_until_free(database, slot)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"], start=kept) as stream,
    ):
        events: Any = getattr(stream, way)(idle=INTERVAL)
        for _ in range(2):
            written = write_elsewhere(database)
            wal_end = 0
            while wal_end < written:
                idle = next(events)
                assert isinstance(idle, Idle)
                assert confirmed(database, slot) <= kept.end_lsn
                assert idle.token.end_lsn >= kept.end_lsn
                kept, wal_end = idle.token, idle.wal_end
                stream.ack(idle)
            assert kept.end_lsn >= written
            eventually(
                lambda: confirmed(database, slot) == kept.end_lsn,  # noqa: B023
                "the slot follows the token that is kept",
            )
        # While something is not acknowledged the stream is not idle, whatever comes elsewhere.
        insert(database, 1)
        while isinstance(given := next(events), Idle):
            kept = given.token
            stream.ack(given)
        assert ids(given) == [1]

        def later() -> None:
            time.sleep(5 * INTERVAL)
            write_elsewhere(database)
            time.sleep(5 * INTERVAL)
            insert(database, 2)

        with meanwhile(later):
            second = next(events)
            assert not isinstance(second, Idle) and ids(second) == [2]
        assert confirmed(database, slot) <= kept.end_lsn
        stream.ack(second)
        idle = next(events)
        assert isinstance(idle, Idle) and idle.token.end_lsn >= second.end_lsn
    wait_until_free(database, slot)
    # It was not acknowledged; it can be gone on from all the same.
    insert(database, 3)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"], start=idle.token) as stream,
    ):
        assert ids(next(stream.transactions())) == [3]


def test_lag_is_what_the_slot_keeps(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    insert(database, 1)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        behind = stream.stats()
        [(flushed,)] = database.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
        assert 0 < behind.lag_bytes <= flushed - stream.start
        events = stream.transactions(idle=INTERVAL)
        given = next(events)
        assert isinstance(given, pgrepl.Transaction) and ids(given) == [1]
        now = stream.stats()
        assert now.lag_seconds is not None and 0 <= now.lag_seconds < 600
        assert (now.transactions, now.changes) == (1, 1)
        stream.ack(given)
        written = write_elsewhere(database)
        while stream.stats().flushed < written:
            event = next(events)
            assert isinstance(event, Idle)
            stream.ack(event)
        stats = stream.stats()
        assert stats.server_end >= written
        assert stats.lag_bytes == stats.server_end - stats.flushed
