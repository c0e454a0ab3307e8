"""What is told back to the server: positions, which must never let it forget too much, and signs
of life, without which it hangs up."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

import pgrepl
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    confirmed,
    create_slot,
    eventually,
    is_data,
    receive,
    receive_transactions,
    report,
    start_pgoutput,
    streaming,
    wait_until_free,
)
from tests.support.clusters import Database

ANYTHING = 2**64 - 1


def insert(database: Database, *numbers: int) -> None:
    for number in numbers:
        database.execute("INSERT INTO item VALUES (%s, '')", [number])


def ids(messages: list[Any]) -> list[int]:
    """The keys of the inserted rows."""
    found = []
    for message in messages:
        payload = bytes(message)
        if payload[:1] == b"I":
            # Tag, relation, 'N', number of columns, 't', length, digits.
            size = int.from_bytes(payload[9:13], "big")
            found.append(int(payload[13 : 13 + size]))
    return found


def receive_all(connection: pgrepl.Connection, until: int) -> int:
    """Read until the server has told of a position; returns the highest that came."""
    received = 0
    while received < until:
        received = max(received, receive(connection).wal_end)
    return received


# Positions


def test_acknowledged_exactly(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        insert(database, *range(20))
        transactions = [receive_transactions(connection, 1) for _ in range(20)]
        for transaction in transactions[:15]:
            end = transaction[-1].wal_start
            report(connection, database, end)
            assert confirmed(database, slot) == end
    wait_until_free(database, slot)
    with connect(database.dsn()) as connection:
        start_pgoutput(connection, slot)
        assert ids(receive_transactions(connection, 5)) == [15, 16, 17, 18, 19]


def test_three_positions(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        insert(database, 1, 2, 3)
        first, second, third = (receive_transactions(connection, 1)[-1].wal_end for _ in range(3))
        connection.send_standby_status(third, first, second)
        eventually(
            lambda: (
                database.execute(
                    "SELECT write_lsn - '0/0', flush_lsn - '0/0', replay_lsn - '0/0'"
                    " FROM pg_stat_replication WHERE pid = %s",
                    [connection.pid],
                )
                == [(third, first, second)]
            ),
            "the server shows them",
        )
        eventually(lambda: confirmed(database, slot) == first, "the slot follows the flushed one")


@pytest.mark.parametrize("beyond", [1, 2**32, ANYTHING], ids=["one", "much", "anything"])
def test_never_beyond_what_was_received(database: Database, connect: Connect, beyond: int) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        insert(database, 1)
        end = receive_transactions(connection, 1)[-1].wal_end
        report(connection, database, min(end + beyond, ANYTHING))
        held = confirmed(database, slot)
        # Keepalives may have come behind the commit, in the same read.
        [(written,)] = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
        assert end <= held <= written
        if held > end:
            assert receive(connection).wal_end >= held
        insert(database, 2, 3)
        assert ids(receive_transactions(connection, 2)) == [2, 3]
    wait_until_free(database, slot)
    with connect(database.dsn()) as connection:
        start_pgoutput(connection, slot)
        assert ids(receive_transactions(connection, 2)) == [2, 3]


def test_anything_right_after_the_start(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    before = confirmed(database, slot)
    insert(database, 1)
    with streaming(connect, database, slot) as connection:
        # Nothing was received: not even this moves the slot.
        report(connection, database, ANYTHING)
        assert confirmed(database, slot) == before
        assert ids(receive_transactions(connection, 1)) == [1]


def test_never_back(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        insert(database, 1, 2, 3)
        ends = [receive_transactions(connection, 1)[-1].wal_end for _ in range(3)]
        report(connection, database, ends[1])
        for position in (ends[0], 0, 1, ends[1] - 1):
            report(connection, database, position)
            assert database.execute(
                "SELECT write_lsn - '0/0', flush_lsn - '0/0', replay_lsn - '0/0'"
                " FROM pg_stat_replication WHERE pid = %s",
                [connection.pid],
            ) == [(ends[1],) * 3]
            assert confirmed(database, slot) == ends[1]
        report(connection, database, ends[2])
        assert confirmed(database, slot) == ends[2]


def test_nothing_is_acknowledged_that_was_not(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    before = confirmed(database, slot)
    draw = random.Random(5)
    with streaming(connect, database, slot) as connection:
        acknowledged = before
        for number in range(40):
            insert(database, number)
            end = receive_transactions(connection, 1)[-1].wal_end
            assert confirmed(database, slot) <= acknowledged
            if draw.random() < 0.4:
                acknowledged = end
                connection.send_standby_status(end, end, end)
        connection.stop_streaming(timeout=PATIENCE)
    assert confirmed(database, slot) == acknowledged > before


def test_commit_lsn_brings_the_transaction_again(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        insert(database, 1)
        payload = bytes(receive_transactions(connection, 1)[-1])
        commit_lsn, end_lsn = (int.from_bytes(payload[i : i + 8], "big") for i in (2, 10))
        report(connection, database, commit_lsn)
    for position, again in ((commit_lsn, [1, 2]), (end_lsn, [2])):
        wait_until_free(database, slot)
        if position == commit_lsn:
            insert(database, 2)
        with connect(database.dsn()) as connection:
            start_pgoutput(connection, slot)
            assert ids(receive_transactions(connection, len(again))) == again
            report(connection, database, end_lsn)


def test_idle_slot_advances_by_keepalives(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    other = database.cluster.execute
    with streaming(connect, database, slot) as connection:
        for _ in range(3):
            # WAL of another database, of which nothing is sent.
            other("SELECT pg_logical_emit_message(true, 'elsewhere', repeat('x', 10000))")
            [(written,)] = other("SELECT pg_current_wal_flush_lsn() - '0/0'")
            received = receive_all(connection, written)
            report(connection, database, received)
            assert confirmed(database, slot) == received >= written
        # It was never too far.
        insert(database, 1)
        assert ids(receive_transactions(connection, 1)) == [1]


def test_reply_is_given_when_asked_for(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    with streaming(connect, database, slot, options="-c wal_sender_timeout=20s") as connection:
        for _ in range(5):
            # The server has nothing to tell to whoever has confirmed everything...
            with pytest.raises(TimeoutError):
                while True:
                    received = receive_within(connection, 0.1).wal_end
                    connection.send_standby_status(received, received, received)
            connection.send_standby_status(received, received, received, reply_requested=True)
            message = receive(connection)
            assert not is_data(message)
            # ... until it has waited so long that it asks itself.
            assert not message.reply_requested


@pytest.mark.parametrize("position", [-1, 2**64])
def test_no_position_at_all(database: Database, connect: Connect, position: int) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        insert(database, 1)
        end = receive_transactions(connection, 1)[-1].wal_end
        connection.send_standby_status(position, position, position)
        connection.send_standby_status(end, end, end)
        eventually(lambda: confirmed(database, slot) >= end, "the next report is taken")


def test_status_outside_of_a_stream(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    with connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.UsageError, match=r"start_streaming\(\)"):
            connection.send_standby_status(0, 0, 0)
        start_pgoutput(connection, slot)
        connection.send_standby_status(0, 0, 0)
        connection.stop_streaming(timeout=PATIENCE)
        with pytest.raises(pgrepl.UsageError, match=r"start_streaming\(\)"):
            connection.send_standby_status(0, 0, 0)
        assert connection.query("SELECT 1")[0].rows == [("1",)]


def receive_within(connection: pgrepl.Connection, seconds: float) -> Any:
    message = connection.receive_wal_message(timeout=seconds)
    assert message is not None
    return message


# Signs of life


def test_answered_keepalives_keep_the_connection(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot, options="-c wal_sender_timeout=2s") as connection:
        answered = 0
        # Three questions, each after half of the time limit, are more than all of it.
        while answered < 3:
            message = receive(connection)
            if message.reply_requested:
                connection.send_standby_status(0, 0, 0)
                answered += 1
        insert(database, 1)
        assert ids(receive_transactions(connection, 1)) == [1]


def test_unanswered_keepalives_lose_the_connection(
    database: Database, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    slot = create_slot(database)
    caplog.set_level(logging.DEBUG)
    with streaming(connect, database, slot, options="-c wal_sender_timeout=500ms") as connection:
        asked = False
        with pytest.raises(pgrepl.ConnectionFailed, match="server closed the connection"):
            while True:
                asked |= receive(connection).reply_requested
        assert asked
        assert connection.closed
        with pytest.raises(pgrepl.UsageError, match="closed"):
            connection.send_standby_status(0, 0, 0)
