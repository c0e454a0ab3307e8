"""Decoded streams for asyncio: what they bring and confirm, and that cancelling loses nothing."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import pgrepl
from pgrepl.aio.connection import connect
from tests.live.streams import TABLE, confirmed, create_slot, wait_until_free
from tests.support.clusters import Database
from tests.support.event_loops import running
from tests.support.flavours import ASYNCHRONOUS, Flavour

pytestmark = pytest.mark.flavours(*ASYNCHRONOUS)

LONG = os.environ.get("PGREPL_LONG") == "1"
CANCELLATIONS = 10_000 if LONG else 300
PATIENCE = 600.0 if LONG else 120.0


@pytest.fixture
def run(flavour: Flavour) -> Iterator[Callable[[Any], Any]]:
    with running(flavour.loop, PATIENCE) as run:
        yield run


@pytest.fixture
def open_stream(flavour: Flavour, database: Database) -> Any:
    """Opens a connection and a stream on it."""
    codec = flavour.codec

    class Opened:
        def __init__(self, slot: str, options: str = "", **keywords: Any) -> None:
            self._connecting = connect(database.dsn(), options=options or None, _codec=codec)
            self._slot, self._keywords = slot, keywords

        async def __aenter__(self) -> pgrepl.AsyncStream:
            self.connection = await self._connecting.__aenter__()
            try:
                return await self._begin()
            except BaseException:
                await self._connecting.__aexit__(None, None, None)
                raise

        async def _begin(self) -> pgrepl.AsyncStream:
            self._stream = self.connection.stream(self._slot, publications=["p"], **self._keywords)
            return await self._stream.__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            await self._stream.__aexit__(*error)
            await self._connecting.__aexit__(*error)

    return Opened


def insert(database: Database, *numbers: int) -> None:
    for number in numbers:
        database.execute("INSERT INTO item VALUES (%s, 'note')", [number])


async def keys(transaction: Any) -> list[int]:
    return [change.new["id"] async for change in transaction]


async def taken(iterator: AsyncIterator[Any], count: int) -> list[list[int]]:
    return [await keys(await anext(iterator)) for _ in range(count)]


def test_messages_come_in_order(database: Database, run: Any, open_stream: Any) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    insert(database, 1, 2)

    async def body() -> None:
        kinds = []
        async with open_stream(slot) as stream:
            async for message in stream:
                kinds.append(type(message).__name__)
                if isinstance(message, pgrepl.Commit):
                    stream.ack(message)
                    if kinds.count("Commit") == 2:
                        break
        assert kinds == ["Begin", "Relation", "Insert", "Commit", "Begin", "Insert", "Commit"]
        assert confirmed(database, slot) >= message.end_lsn

    run(body())


def test_transactions_are_acknowledged(database: Database, run: Any, open_stream: Any) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    insert(database, *range(6))

    async def first() -> int:
        async with open_stream(slot) as stream:
            transactions = stream.transactions()
            for number in range(3):
                transaction = await anext(transactions)
                assert await keys(transaction) == [number]
                stream.ack(transaction)
            assert await taken(transactions, 2) == [[3], [4]]
            return transaction.end_lsn

    async def second() -> None:
        async with open_stream(slot) as stream:
            assert await taken(stream.transactions(), 3) == [[3], [4], [5]]

    end_lsn = run(first())
    wait_until_free(database, slot)
    assert confirmed(database, slot) == end_lsn
    run(second())


def test_batches(database: Database, run: Any, open_stream: Any) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 25) i")
    insert(database, 26)

    async def body() -> None:
        sizes = []
        async with open_stream(slot) as stream:
            async for batch in stream.batches(max_rows=10, max_wait=0.2):
                sizes.append(len(batch))
                stream.ack(batch)
                if sum(sizes) == 26:
                    break
        assert sizes == [10, 10, 6]
        assert confirmed(database, slot) >= batch.end_lsn > 0

    run(body())


def test_a_consumer_that_waits_elsewhere_keeps_its_connection(
    database: Database, run: Any, open_stream: Any
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    insert(database, 1, 2)

    async def body() -> None:
        async with open_stream(slot, options="-c wal_sender_timeout=1000") as stream:
            transactions = stream.transactions()
            assert await taken(transactions, 1) == [[1]]
            await asyncio.sleep(5)
            assert await taken(transactions, 1) == [[2]]

    run(body())


def test_an_acknowledgement_goes_out_while_another_task_waits(
    database: Database, run: Any, open_stream: Any
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)

    async def body() -> None:
        async with open_stream(slot, status_interval=600) as stream:
            seen: asyncio.Queue[Any] = asyncio.Queue()

            async def consume() -> None:
                async for transaction in stream.transactions():
                    await seen.put((await keys(transaction), transaction))

            task = asyncio.create_task(consume())
            await asyncio.to_thread(insert, database, 1)
            found, transaction = await seen.get()
            assert found == [1]
            # From another thread, too.
            await asyncio.to_thread(stream.ack, transaction)
            while await asyncio.to_thread(confirmed, database, slot) < transaction.end_lsn:
                await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # The stream can be read on.
            await asyncio.to_thread(insert, database, 2)
            assert await taken(stream.transactions(), 1) == [[2]]

    run(body())


def test_cancelling_loses_nothing(database: Database, run: Any, open_stream: Any) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    chance = random.Random(seed)
    written = 0
    enough = asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not enough.is_set():
            size = chance.randint(1, 20)
            await asyncio.to_thread(
                database.execute,
                "INSERT INTO item SELECT i, 'x' FROM generate_series(%s::int, %s::int) i",
                [written, written + size - 1],
            )
            written += size

    async def body() -> None:
        seen: list[int] = []
        cancelled = 0
        async with open_stream(slot) as stream:
            writer = asyncio.create_task(write())
            transactions = stream.transactions()
            transaction: Any = None
            changes: Any = None
            while cancelled < CANCELLATIONS or len(seen) < written:
                try:
                    async with asyncio.timeout(chance.random() * 0.004):
                        if changes is None:
                            transaction = await anext(transactions)
                            changes = aiter(transaction)
                        seen.append((await anext(changes)).new["id"])
                except TimeoutError:
                    cancelled += 1
                    if cancelled == CANCELLATIONS:
                        enough.set()
                        await writer
                except StopAsyncIteration:
                    assert transaction is not None
                    stream.ack(transaction)
                    changes = None
        assert seen == list(range(written))
        # Nothing else is pending: this one, and what runs it.
        assert len(asyncio.all_tasks()) <= 2

    run(body())
