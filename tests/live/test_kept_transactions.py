"""Transactions of real servers that are kept for later, in lists, by threads and tasks."""

from __future__ import annotations

import asyncio
import queue
import threading
from itertools import islice
from typing import Any, Literal

import pytest

import pgrepl
import pgrepl.aio
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    confirmed,
    create_slot,
    wait_until_free,
)
from tests.live.test_change_streams import insert, keys
from tests.support.clusters import Database
from tests.support.flavours import twin


class TestPassedOver:
    def test_five_in_a_list(self, database: Database, connect: Connect) -> None:
        """Four of them were passed over: they are errors, and nothing of them is confirmed."""
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, *range(5))
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            kept = list(islice(stream.transactions(), 5))
            for transaction in kept[:4]:
                with pytest.raises(pgrepl.UsageError, match="before the next one is asked for"):
                    keys(transaction)
                with pytest.raises(pgrepl.UsageError, match="read before it is acknowledged"):
                    stream.ack(transaction)
            assert keys(kept[4]) == [4]
        assert confirmed(database, slot) < kept[0].end_lsn
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            lists: list[Any] = [each.read() for each in islice(stream.transactions(), 5)]
            assert [change.new["id"] for changes in lists for change in changes] == [*range(5)]


class TestWhole:
    def test_five_in_a_list(self, database: Database, connect: Connect) -> None:
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, *range(5))
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            kept = list(islice(stream.transactions(whole=True), 5))
            assert [keys(each) for each in kept] == [[0], [1], [2], [3], [4]]
            stream.ack(kept[4])
        assert confirmed(database, slot) >= kept[4].end_lsn
        assert [keys(each) for each in kept] == [[0], [1], [2], [3], [4]]

    @pytest.mark.parametrize("streaming", ["off", "on"])
    def test_threads_that_finish_out_of_order(
        self, database: Database, connect: Connect, streaming: Literal["off", "on"]
    ) -> None:
        """Large ones among them, in far less memory; the table is altered while they wait."""
        database.execute(TABLE)
        database.execute("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
        database.execute("SELECT pg_reload_conf()")
        slot = create_slot(database)
        expected = {}
        for number in range(12):
            count = 2000 if number % 4 == 1 else 1
            database.execute(
                "INSERT INTO item SELECT %s + i, repeat('x', 600) FROM generate_series(1, %s) i",
                [number * 10_000, count],
            )
            expected[number] = [number * 10_000 + i for i in range(1, count + 1)]
            database.execute(f"ALTER TABLE item ADD extra{number} int DEFAULT {number}")
        found: dict[int, list[int]] = {}
        work: queue.Queue[Any] = queue.Queue()
        with (
            connect(database.dsn()) as connection,
            connection.stream(
                slot, publications=["p"], streaming=streaming, memory_limit=1 << 20
            ) as stream,
        ):
            acks: pgrepl.AckInOrder[Any] = pgrepl.AckInOrder(stream)

            def worker() -> None:
                while (task := work.get()) is not None:
                    changes = list(task)
                    number = changes[0].new["id"] // 10_000
                    assert {len(change.new) for change in changes} == {2 + number}
                    found[number] = keys(task)
                    acks.done(task)

            for transaction in islice(stream.transactions(whole=True), 12):
                work.put(acks.take(transaction))
            assert stream._decoded.spool.memory < 1 << 20
            workers = [threading.Thread(target=worker) for _ in range(3)]
            for each in workers:
                work.put(None)
                each.start()
            for each in workers:
                each.join(PATIENCE)
            assert acks.pending == []
        assert found == expected
        wait_until_free(database, slot)
        assert confirmed(database, slot) >= transaction.end_lsn
        database.execute("ALTER SYSTEM RESET logical_decoding_work_mem")

    @pytest.mark.parametrize("impl", ["c", "python"])
    def test_a_reader_task_a_queue_and_a_worker(self, database: Database, impl: str) -> None:
        """What a worker was given after the reader went on, and acknowledged: nothing is lost."""
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, *range(5))

        async def main(whole: bool) -> tuple[list[int], list[str]]:
            work: asyncio.Queue[Any] = asyncio.Queue()
            seen: list[int] = []
            errors: list[str] = []

            async def read(stream: pgrepl.AsyncStream) -> None:
                async for transaction in stream.transactions(whole=whole):
                    await work.put(transaction)

            connection = await pgrepl.aio.connect(database.dsn(), _codec=twin(impl))
            stream = await connection.stream(slot, publications=["p"])
            async with connection, stream:
                reader = asyncio.create_task(read(stream))
                while len(seen) + len(errors) < 5:
                    transaction = await work.get()
                    await asyncio.sleep(0.01)
                    try:
                        seen += [change.new["id"] async for change in transaction]
                        stream.ack(transaction)
                    except pgrepl.UsageError as error:
                        errors.append(str(error))
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            return seen, errors

        with asyncio.Runner() as runner:
            seen, errors = runner.run(main(whole=False))
            assert all("transactions(whole=True)" in error for error in errors)
            missed = [number for number in range(5) if number not in seen]
            assert len(missed) == len(errors) > 0
            wait_until_free(database, slot)
            seen, errors = runner.run(main(whole=True))
        assert (seen, errors) == ([*range(5)], [])
