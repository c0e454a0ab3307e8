"""Decoded streams of real servers: what they bring, and that nothing is confirmed too early."""

from __future__ import annotations

import threading
import time
from typing import Any

import pgrepl
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    confirmed,
    create_slot,
    eventually,
    wait_until_free,
)
from tests.support.clusters import Database


def insert(database: Database, *numbers: int) -> None:
    """Insert rows, each in a transaction of its own."""
    for number in numbers:
        database.execute("INSERT INTO item VALUES (%s, 'note')", [number])


def keys(transaction: Any) -> list[int]:
    return [change.new["id"] for change in transaction]


class TestFlat:
    def test_gives_everything_in_order(self, database: Database, connect: Connect) -> None:
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, 1, 2)
        with connect(database.dsn()) as connection:
            with connection.stream(slot, publications=["p"]) as stream:
                kinds = []
                for message in stream:
                    kinds.append(type(message).__name__)
                    if isinstance(message, pgrepl.Insert):
                        assert message.new.asdict() == {"id": len(kinds) // 3, "note": "note"}
                    elif isinstance(message, pgrepl.Commit):
                        stream.ack(message)
                        if kinds.count("Commit") == 2:
                            break
            assert kinds == ["Begin", "Relation", "Insert", "Commit", "Begin", "Insert", "Commit"]
            assert confirmed(database, slot) >= message.end_lsn
            assert connection.identify_system().dbname == database.name


class TestTransactions:
    def test_are_acknowledged_one_by_one(self, database: Database, connect: Connect) -> None:
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, *range(6))
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            transactions = stream.transactions()
            first = [next(transactions) for _ in range(1)]
            for number in range(3):
                transaction = first.pop() if first else next(transactions)
                assert keys(transaction) == [number]
                stream.ack(transaction)
            # Two more that are not acknowledged.
            assert keys(next(transactions)) == [3]
            assert keys(next(transactions)) == [4]
        wait_until_free(database, slot)
        assert confirmed(database, slot) == transaction.end_lsn
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            again = stream.transactions()
            assert [keys(next(again)) for _ in range(3)] == [[3], [4], [5]]

    def test_an_acknowledgement_goes_out_while_the_consumer_waits(
        self, database: Database, connect: Connect
    ) -> None:
        database.execute(TABLE)
        slot = create_slot(database)
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"], status_interval=600) as stream,
        ):
            seen: list[Any] = []

            def consume() -> None:
                for transaction in stream.transactions():
                    seen.append((keys(transaction), transaction))
                    if len(seen) == 3:
                        return

            reader = threading.Thread(target=consume)
            reader.start()
            insert(database, 1)
            eventually(lambda: len(seen) == 1, "a transaction to be delivered")
            stream.ack(seen[0][1])
            eventually(
                lambda: confirmed(database, slot) >= seen[0][1].end_lsn,
                "the acknowledgement to be confirmed",
            )
            insert(database, 2, 3)
            reader.join(PATIENCE)
            assert [each for each, _ in seen] == [[1], [2], [3]]

    def test_a_consumer_that_is_busy_keeps_its_connection(
        self, database: Database, connect: Connect
    ) -> None:
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, 1, 2)
        with (
            connect(database.dsn(), options="-c wal_sender_timeout=1000") as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            transactions = stream.transactions()
            assert keys(next(transactions)) == [1]
            time.sleep(5)
            assert keys(next(transactions)) == [2]
            insert(database, 3)
            assert keys(next(transactions)) == [3]

    def test_an_idle_slot_advances(self, database: Database, connect: Connect) -> None:
        database.execute(TABLE)
        database.execute("CREATE TABLE other (t text)")
        database.execute("DROP PUBLICATION p; CREATE PUBLICATION p FOR TABLE item")
        slot = create_slot(database)
        insert(database, 1)
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            seen: list[Any] = []

            def consume() -> None:
                for transaction in stream.transactions():
                    seen.append(keys(transaction))
                    if seen[-1] == [2]:
                        return
                    stream.ack(transaction)

            reader = threading.Thread(target=consume)
            reader.start()
            database.execute(
                "INSERT INTO other SELECT repeat('x', 100) FROM generate_series(1, 10000)"
            )
            position = pgrepl.Lsn(database.execute("SELECT pg_current_wal_lsn()::text")[0][0])
            eventually(lambda: confirmed(database, slot) >= position, "the idle slot to advance")
            insert(database, 2)
            reader.join(PATIENCE)
        assert seen == [[1], [2]]


def test_batches(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 25) i")
    insert(database, 26)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        batches = []
        for batch in stream.batches(max_rows=10, max_wait=0.2):
            batches.append(batch)
            stream.ack(batch)
            if sum(map(len, batches)) == 26:
                break
    assert [keys(batch) for batch in batches] == [
        [*range(1, 11)],
        [*range(11, 21)],
        [*range(21, 27)],
    ]
    assert batches[0].end_lsn == batches[1].end_lsn == stream.start < batches[2].end_lsn
    assert [batch.index for batch in batches] == [10, 20, 0]
    wait_until_free(database, slot)
    assert confirmed(database, slot) >= batches[2].end_lsn


def test_a_batch_may_end_before_its_transaction_does(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        database.execute(
            "INSERT INTO item SELECT i, repeat('x', 500) FROM generate_series(1, 900) i"
        )
        batches = stream.batches(max_rows=1, max_wait=0.2)
        for number in range(1, 901):
            batch = next(batches)
            assert keys(batch) == [number]
            stream.ack(batch)
        # Whether or not the end came with the last row, it is confirmed without another change.
        reader = threading.Thread(target=lambda: next(batches, None))
        reader.start()
        eventually(
            lambda: (
                stream.stats().delivered and confirmed(database, slot) >= stream.stats().delivered
            ),
            "the transaction to be confirmed",
        )
        insert(database, 901)
        reader.join(PATIENCE)


class TestTokens:
    def test_say_where_to_go_on(self, database: Database, connect: Connect) -> None:
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, *range(4))
        database.execute("INSERT INTO item VALUES (4, ''), (5, ''), (6, '')")
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            transactions = stream.transactions()
            assert [keys(next(transactions)) for _ in range(3)] == [[0], [1], [2]]
            last = next(transactions)
            assert keys(last) == [3]
            kept = str(stream.token(last, index=2))
        wait_until_free(database, slot)
        assert confirmed(database, slot) < last.end_lsn
        token = pgrepl.ResumeToken.parse(kept)
        assert (token.end_lsn, token.index) == (last.end_lsn, 2)
        insert(database, 7)
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"], start=token) as stream,
        ):
            again = stream.transactions()
            # Of the transaction behind it, two changes were dealt with as well.
            assert [keys(next(again)) for _ in range(2)] == [[6], [7]]

    def test_are_not_overtaken_by_an_idle_slot(self, database: Database, connect: Connect) -> None:
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, 1)
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            first = next(stream.transactions())
            assert keys(first) == [1]
            token = stream.token(first)
            stream.ack(first)
            ahead = idle_past(database, stream)
            assert confirmed(database, slot) == first.end_lsn
            # The application itself can let the slot go on.
            token = stream.token()
            assert token.end_lsn >= ahead
            stream.ack(token)
        wait_until_free(database, slot)
        assert confirmed(database, slot) == token.end_lsn
        insert(database, 2)
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"], start=token) as stream,
        ):
            # What made the idle stream go on was given, and not acknowledged.
            transactions = stream.transactions()
            assert [keys(next(transactions)) for _ in range(2)] == [[99], [2]]
            idle_past(database, stream, 98)
            assert confirmed(database, slot) == token.end_lsn


def idle_past(database: Database, stream: pgrepl.Stream, number: int = 99) -> int:
    """Let a stream be idle until the server has told of WAL that is not for it; then insert."""
    database.execute("CREATE TABLE IF NOT EXISTS unlogged_use (t text)")
    database.execute("SELECT pg_switch_wal()")
    ahead = int(pgrepl.Lsn(database.execute("SELECT pg_current_wal_lsn()::text")[0][0]))
    reader = threading.Thread(target=lambda: next(stream.transactions(), None), daemon=True)
    reader.start()
    eventually(lambda: stream.stats().received >= ahead, "the server to tell of later WAL")
    time.sleep(0.3)  # for a report to go out that must not
    insert(database, number)
    reader.join(PATIENCE)
    return ahead
