"""Raw streams of real servers: what a plugin writes, and where it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import pytest

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

OPTIONS: Final = {"include-xids": "0", "skip-empty-xacts": None}


def written(database: Database, slot: str) -> list[tuple[int, bytes]]:
    """What the plugin writes, with its positions, by SQL."""
    return [
        (int(lsn), data.encode())
        for lsn, data in database.execute(
            "SELECT lsn - '0/0', data FROM pg_logical_slot_peek_changes(%s, NULL, NULL,"
            " 'include-xids', '0', 'skip-empty-xacts', '1')",
            [slot],
        )
    ]


@pytest.fixture
def slot(database: Database) -> str:
    """A slot of test_decoding that has five transactions."""
    database.execute(TABLE)
    made = create_slot(database, plugin="test_decoding")
    for number in range(5):
        database.execute("INSERT INTO item VALUES (%s, E'a\\nb'), (-%s, 'ü')", [number, number + 1])
    return made


def test_gives_what_the_plugin_writes(database: Database, connect: Connect, slot: str) -> None:
    expected = written(database, slot)
    assert len(expected) == 20
    with (
        connect(database.dsn()) as connection,
        connection.stream_raw(slot, options=OPTIONS) as stream,
    ):
        messages: list[tuple[int, bytes]] = []
        for message in stream:
            messages.append((message.wal_start, bytes(message)))
            if len(messages) == len(expected):
                break
        # Only the last message that a plugin writes for something has a position.
        assert messages == [(lsn if data != b"BEGIN" else 0, data) for lsn, data in expected]
        # What lies before may be reported by itself.
        assert stream.stats().flushed <= expected[0][0]
        stream.ack(message)
    assert confirmed(database, slot) >= expected[-1][0]


@pytest.mark.parametrize(("count", "whole"), [(3, 0), (4, 4), (6, 4)])
def test_goes_on_with_the_transaction_that_was_not_acknowledged(
    database: Database, connect: Connect, slot: str, count: int, whole: int
) -> None:
    expected = written(database, slot)
    with connect(database.dsn()) as connection:
        with connection.stream_raw(slot, options=OPTIONS) as stream:
            seen = []
            for message in stream:
                seen.append(bytes(message))
                if len(seen) == count:
                    # In the middle of the first one, at its commit, in the middle of the second.
                    stream.ack(message)
                    break
        # Usable for commands, and for no second stream.
        assert connection.identify_system().dbname == database.name
    wait_until_free(database, slot)
    again = written(database, slot)
    assert again == expected[whole:]


def test_an_idle_slot_follows_the_server(database: Database, connect: Connect, slot: str) -> None:
    with (
        connect(database.dsn()) as connection,
        connection.stream_raw(slot, options=OPTIONS, status_interval=0.1) as stream,
    ):

        def has_caught_up(end: int) -> bool:
            # Nothing comes while the server has nothing to say.
            with contextlib.suppress(TimeoutError):
                stream.ack(stream.receive(timeout=0.05))
            return confirmed(database, slot) >= end

        eventually(lambda: has_caught_up(1) and stream.stats().flushed, "it is acknowledged")
        database.execute("CREATE TABLE other AS SELECT generate_series(1, 1000)")
        [(end,)] = database.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
        # What the server writes by itself every now and then, and what brings it beyond the end.
        database.cluster.execute("CHECKPOINT")
        eventually(lambda: has_caught_up(end), "the idle slot has caught up")


def test_what_is_wrong_is_told_before(database: Database, connect: Connect, slot: str) -> None:
    with connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.SlotNotFound):
            connection.stream_raw("nowhere")
        with pytest.raises(pgrepl.SlotGap):
            connection.stream_raw(slot, start=pgrepl.Lsn("FF/0"))
        with pytest.raises(pgrepl.ServerError, match="nonsense"):
            # Found when the plugin starts, which is before the stream does.
            connection.stream_raw(slot, options={"nonsense": "1"})
        assert connection.identify_system().dbname == database.name


def test_asyncio(database: Database, slot: str) -> None:
    expected = written(database, slot)

    async def consume() -> list[tuple[int, bytes]]:
        messages: list[tuple[int, bytes]] = []
        async with (
            pgrepl.AsyncConnection.connect(database.dsn()) as connection,
            connection.stream_raw(slot, options=OPTIONS) as stream,
        ):
            async for message in stream:
                messages.append((message.wal_start, bytes(message)))
                stream.ack(message)
                if len(messages) == len(expected):
                    break
        return messages

    async def limited() -> Any:
        return await asyncio.wait_for(consume(), PATIENCE)

    assert [data for _, data in asyncio.run(limited())] == [data for _, data in expected]
    wait_until_free(database, slot)
    assert written(database, slot) == []
