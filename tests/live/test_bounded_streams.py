"""Streams that end by themselves behind the last transaction committed up to a position."""

from __future__ import annotations

from typing import Any

import pytest

import pgrepl
from tests.live.sampling import ids, insert
from tests.live.streams import TABLE, Connect, confirmed, create_slot, wait_until_free
from tests.live.test_idle_streams import write_elsewhere
from tests.support.clusters import Database


def wal_end(database: Database) -> pgrepl.Lsn:
    [(end,)] = database.execute("SELECT pg_current_wal_flush_lsn()::text")
    return pgrepl.Lsn(end)


def run(database: Database, connect: Connect, slot: str, way: str, **options: Any) -> list[int]:
    """Stream to the bound, acknowledging everything; return the ids of what was given."""
    wait_until_free(database, slot)
    given = []
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"], **options) as stream,
    ):
        for each in getattr(stream, way)():
            given += ids(each)
            stream.ack(each)
            if options["until"] == "now" and given == [1]:
                # It came while the stream was on, so that it is not for this run.
                insert(database, 100)
        # It is over for good.
        assert list(getattr(stream, way)()) == []
    return given


@pytest.mark.parametrize("way", ["transactions", "batches"])
def test_up_to_now(database: Database, connect: Connect, way: str) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    insert(database, 1)
    write_elsewhere(database)
    assert run(database, connect, slot, way, until="now") == [1]
    assert run(database, connect, slot, way, until="now") == [100]
    # Nothing comes at all, though the server has read on.
    end = write_elsewhere(database)
    assert run(database, connect, slot, way, until="now") == []
    assert confirmed(database, slot) >= end


@pytest.mark.parametrize("way", ["transactions", "batches"])
def test_up_to_a_position(database: Database, connect: Connect, way: str) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    insert(database, 1)
    write_elsewhere(database)
    middle = wal_end(database)
    write_elsewhere(database)
    insert(database, 2, 3)
    assert run(database, connect, slot, way, until=middle) == [1]
    assert confirmed(database, slot) <= wal_end(database)
    assert run(database, connect, slot, way, until=middle) == []
    with connect(database.dsn()) as connection:
        stream = connection.stream(slot, publications=["p"])
        second = next(stream.transactions())
        commit, [number] = second.commit_lsn, ids(second)
        assert (number, commit) == (2, second.commit_lsn) and commit is not None
        stream.stop()
    # A commit that begins right there lies behind it; its own end has it in.
    assert run(database, connect, slot, way, until=commit) == []
    assert run(database, connect, slot, way, until=second.end_lsn) == [2]
    assert run(database, connect, slot, way, until="now") == [3]


def test_up_to_a_position_that_is_still_to_come(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    until = wal_end(database) + 1_500_000
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"], until=until) as stream,
    ):
        given = []
        insert(database, 1)
        for each in stream.transactions():
            given += ids(each)
            stream.ack(each)
            write_elsewhere(database)
            write_elsewhere(database)
            insert(database, 2)
    assert given == [1]
    assert run(database, connect, slot, "transactions", until="now") == [2]


def test_streamed_and_prepared_ones(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = database.slot("slot")
    database.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)", [slot]
    )
    large = "INSERT INTO item SELECT i, repeat('x', 500) FROM generate_series(%s::int, %s::int) i"
    options = "-c logical_decoding_work_mem=64kB"
    with database.connect() as one, database.connect() as other:
        for session, first in ((one, 1000), (other, 2000)):
            session.autocommit = False
            session.execute(large, [first, first + 999])
        one.commit()
        with database.connect() as third:
            third.autocommit = False
            third.execute("INSERT INTO item VALUES (1, '')")
            third.execute("PREPARE TRANSACTION 'before'")
        middle = wal_end(database)
        other.commit()
    database.execute("COMMIT PREPARED 'before'")

    def run_to(until: Any) -> list[tuple[str, int]]:
        wait_until_free(database, slot)
        found: list[tuple[str, int]] = []
        with connect(database.dsn(), options=options) as connection:
            stream = connection.stream(
                slot, publications=["p"], streaming="on", two_phase=True, until=until
            )
            for each in stream.transactions():
                found.append((each.kind, len(ids(each))))
                stream.ack(each)
            # Beyond the bound counts as the end of what was given.
            stream.ack(2**63)
            stream.stop()
        return found

    assert run_to(middle) == [("commit", 1000), ("prepare", 1)]
    assert run_to("now") == [("commit", 1000), ("commit prepared", 0)]


def test_what_makes_no_sense(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with connect(database.dsn()) as connection:
        for until in ("later", "0/1", 1.5, True):
            with pytest.raises(pgrepl.UsageError, match="an Lsn or 'now' for until"):
                connection.stream(slot, publications=["p"], until=until)  # type: ignore[arg-type]
        with connection.stream(slot, publications=["p"], until="now") as stream:
            with pytest.raises(pgrepl.UsageError, match="begun with until"):
                next(iter(stream))
            with pytest.raises(pgrepl.UsageError, match="begun with until"):
                stream.receive()
            for idle in (0, -1.0):
                with pytest.raises(pgrepl.UsageError, match="seconds above 0"):
                    next(stream.transactions(idle=idle))
