"""A stream of WAL from a real server: however it is read, it is the same stream.

What must come is what the server itself gives for a twin of the slot, by SQL.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

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
    meanwhile,
    peek,
    receive,
    receive_data,
    receive_transactions,
    start_pgoutput,
    streaming,
    wait_until_free,
)
from tests.support.clusters import Cluster, Database
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.proxy import Proxy, Slicing, coalesce, one_byte, random_pieces

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)


def load(database: Database, transactions: int) -> None:
    """Commit that many, of one row to a few hundred, short and long, the same in every run."""
    draw = random.Random(transactions)
    with database.connect() as writer:
        for number in range(transactions):
            rows = draw.choice((1, 1, 1, 2, 5, 200))
            length = draw.choice((0, 1, 20, 100, 100, 3000))
            first = number * 1000
            writer.execute(
                "INSERT INTO item SELECT i, repeat(chr(65 + i %% 26), %s + i %% 7)"
                " FROM generate_series(%s::int, %s) i",
                [length if rows < 200 else length % 100, first, first + rows - 1],
            )
            if number % 10 == 9:
                writer.execute("UPDATE item SET id = -id WHERE id = %s", [first])
                writer.execute("DELETE FROM item WHERE id = %s", [-first])


def commits(payloads: list[bytes]) -> int:
    return sum(payload[:1] == b"C" for payload in payloads)


# How a stream is read


def by_message(connection: pgrepl.Connection) -> Iterator[Any]:
    while True:
        yield connection.receive_wal_message(timeout=PATIENCE)


def by_batch(connection: pgrepl.Connection) -> Iterator[Any]:
    while batch := connection.receive_wal_messages(timeout=PATIENCE):
        yield from batch


def both_ways(connection: pgrepl.Connection) -> Iterator[Any]:
    draw = random.Random(1)
    while True:
        if draw.random() < 0.1:
            yield from connection.receive_wal_messages(timeout=PATIENCE)
        for _ in range(draw.randrange(20)):
            yield connection.receive_wal_message(timeout=PATIENCE)


def in_no_time(connection: pgrepl.Connection) -> Iterator[Any]:
    """With limits so short that most calls bring nothing."""
    draw = random.Random(2)
    while True:
        with contextlib.suppress(TimeoutError):
            timeout = draw.choice((0.0, 0.0, -1.0, 1e-9, 1e-4, 2e-3))
            if draw.random() < 0.5:
                yield connection.receive_wal_message(timeout=timeout)
            else:
                yield from connection.receive_wal_messages(timeout=timeout)


Reading: TypeAlias = Callable[[pgrepl.Connection], Iterator[Any]]
READINGS: Final[list[Reading]] = [by_message, by_batch, both_ways, in_no_time]


def payloads_until(messages: Iterator[Any], transactions: int) -> list[bytes]:
    """The payloads up to and with the commit of that number."""
    payloads = []
    while transactions:
        message = next(messages)
        assert message is not None
        if is_data(message):
            payloads.append(bytes(message))
            transactions -= payloads[-1][:1] == b"C"
    return payloads


# The same stream


def test_from_start_to_stop(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    name = database.slot()
    with connect(database.dsn()) as connection:
        slot = connection.create_logical_slot(name)
        start_pgoutput(connection, name)
        keepalive = receive(connection)
        assert keepalive.wal_end >= slot.consistent_point
        assert not keepalive.reply_requested
        database.execute("INSERT INTO item VALUES (1, 'one')")
        transaction = receive_transactions(connection, 1)
        assert [bytes(message)[:1] for message in transaction] == [b"B", b"R", b"I", b"C"]
        end = transaction[-1].wal_start
        assert end == transaction[-1].wal_end
        connection.send_standby_status(end, end, end)
        eventually(lambda: confirmed(database, name) == end, "the server takes the report")
        results = connection.stop_streaming(timeout=PATIENCE)
        assert [result.tag for result in results] == ["COPY 0", "START_REPLICATION"]
        assert connection.query("SELECT 'and on'")[0].rows == [("and on",)]
        connection.drop_slot(name)


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: str(reading.__name__))
def test_every_way_of_reading(database: Database, connect: Connect, reading: Reading) -> None:
    database.execute(TABLE)
    slot, twin = create_slot(database), create_slot(database, "twin")
    with (
        streaming(connect, database, slot) as connection,
        meanwhile(lambda: load(database, 150)),
    ):
        received = payloads_until(reading(connection), 150 + 2 * 15)
    assert received == peek(database, twin)


@pytest.mark.parametrize("reading", [by_message, in_no_time], ids=["patient", "in no time"])
@pytest.mark.parametrize(
    "slicing",
    [one_byte(), random_pieces(3), coalesce(300_000)],
    ids=["one byte", "pieces", "coalesced"],
)
def test_every_way_to_cut_it(
    database: Database, connect: Connect, slicing: Slicing, reading: Reading
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    load(database, 12)
    expected = peek(database, slot)
    cluster = database.cluster
    with (
        Proxy((cluster.host, cluster.port), slicing=slicing) as proxy,
        connect(database.dsn(sslmode="disable"), host=proxy.host, port=proxy.port) as connection,
    ):
        start_pgoutput(connection, slot)
        assert payloads_until(reading(connection), commits(expected)) == expected


@pytest.mark.parametrize("reading", [by_batch, in_no_time], ids=["patient", "in no time"])
@pytest.mark.parametrize(
    "slicing",
    [None, random_pieces(4, 700), coalesce(200_000)],
    ids=["direct", "pieces", "coalesced"],
)
def test_every_way_with_tls(
    tls_cluster: Cluster,
    database: Database,
    connect: Connect,
    reading: Reading,
    slicing: Slicing | None,
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    load(database, 40)
    expected = peek(database, slot)
    with (
        Proxy((tls_cluster.host, tls_cluster.port), slicing=slicing) as proxy,
        connect(database.dsn(sslmode="require", port=proxy.port)) as connection,
    ):
        start_pgoutput(connection, slot)
        assert payloads_until(reading(connection), commits(expected)) == expected


def test_unix_socket(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    load(database, 40)
    expected = peek(database, slot)
    folder = database.cluster.own.socket_directory
    with streaming(connect, database, slot, host=folder) as connection:
        assert payloads_until(by_batch(connection), commits(expected)) == expected


def test_rows_larger_than_any_buffer(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with database.connect() as writer:
        for number, size in enumerate((10_000_000, 1, 65_536, 10_000_001, 131_072)):
            writer.execute(
                "INSERT INTO item VALUES (%s, left(repeat('0123456789', 1000001), %s))",
                [number, size],
            )
    expected = peek(database, slot)
    assert max(map(len, expected)) > 10_000_000
    for reading in READINGS:
        with connect(database.dsn()) as connection:
            wait_until_free(database, slot)
            start_pgoutput(connection, slot)
            assert payloads_until(reading(connection), 5) == expected


def test_headers(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        [(clock,)] = database.execute("SELECT clock_timestamp()")
        database.execute("INSERT INTO item VALUES (1, 'one')")
        begin, relation, insert, commit = receive_transactions(connection, 1)
        [(end, now)] = database.execute(
            "SELECT pg_current_wal_insert_lsn() - '0/0', clock_timestamp()"
        )
    # A position, not a range; a Relation has none.
    assert (relation.wal_start, relation.wal_end) == (0, 0)
    assert begin.wal_start == begin.wal_end == insert.wal_start < commit.wal_start <= end
    for message in (begin, relation, insert, commit):
        assert clock <= message.server_datetime <= now


def test_start_begins_where_it_is_told(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    for number in (1, 2, 3):
        database.execute("INSERT INTO item VALUES (%s, '')", [number])
    with streaming(connect, database, slot) as connection:
        messages = receive_transactions(connection, 3)
    [first_end, *_] = [m.wal_start for m in messages if bytes(m)[:1] == b"C"]
    payloads = [bytes(m) for m in messages]
    with connect(database.dsn()) as connection:
        wait_until_free(database, slot)
        start_pgoutput(connection, slot, first_end)
        rest = [bytes(m) for m in receive_transactions(connection, 2)]
    # The relation is told anew on each connection.
    assert [p for p in rest if p[:1] != b"R"] == payloads[4:]


# Silence, notices, errors and ends are four different things


def test_time_limit_is_no_end(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        for call in (connection.receive_wal_message, connection.receive_wal_messages):
            with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
                while call(timeout=0.2):
                    pass
        database.execute("INSERT INTO item VALUES (1, '')")
        assert bytes(receive_data(connection))[:1] == b"B"


def test_missing_publication(
    database: Database, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    slot = create_slot(database)
    caplog.set_level(logging.INFO, "pgrepl.notice")
    with streaming(connect, database, slot) as connection:
        database.execute("INSERT INTO item VALUES (1, '')")
        if database.cluster.major < 18:
            with pytest.raises(pgrepl.ServerError, match='"p" does not exist') as caught:
                receive_data(connection)
            assert type(caught.value) is pgrepl.PublicationNotFound
            assert caught.value.sqlstate == "42704"
            assert connection.query("SELECT 1")[0].rows == [("1",)]
            assert caplog.records == []
        else:
            # A notice in the stream, which goes on.
            with pytest.raises(TimeoutError):
                while not is_data(connection.receive_wal_message(timeout=0.5)):
                    pass
            [record] = caplog.records
            assert record.levelno == logging.WARNING
            assert "p" in record.getMessage()
            database.execute("CREATE PUBLICATION p FOR ALL TABLES")
            database.execute("INSERT INTO item VALUES (2, '')")
            assert bytes(receive_data(connection))[:1] == b"B"
