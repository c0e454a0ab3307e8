"""Cancellations at random, thousands of them, while a server sends: nothing is lost or repeated.

What must come is what the writer committed, in its order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest

import pgrepl
from pgrepl import aio
from tests.live.streams import PATIENCE, TABLE, create_slot, is_data, meanwhile
from tests.support.clusters import Database
from tests.support.event_loops import loop_factory
from tests.support.flavours import ASYNCHRONOUS, Flavour

#: Cancellations that have to happen, at the least.
CANCELLATIONS: Final = 2000

#: Rows that have to come meanwhile.
ROWS: Final = 10_000


class Ledger:
    """What was committed: rows with the numbers from 0 on, in transactions of random size."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._draw = random.Random(4)
        self.rows = 0
        self.finished = False
        self.given_up = False

    def write(self, enough: Callable[[], bool]) -> None:
        """Commit until it is enough."""
        try:
            with self._database.connect() as writer:
                while not (enough() or self.given_up):
                    self._commit(writer)
        finally:
            self.finished = True

    def _commit(self, writer: psycopg.Connection[Any]) -> None:
        last = self.rows + self._draw.choice((1, 1, 3, 30, 300))
        writer.execute(
            "INSERT INTO item SELECT i, repeat('x', %s) FROM generate_series(%s::int, %s) i",
            [self._draw.choice((0, 10, 1000)), self.rows, last - 1],
        )
        self.rows = last
        # So that the reader finds nothing again and again.
        time.sleep(self._draw.choice((0, 1e-3, 5e-3)))


class Received:
    """What came: rows, none of which may be missing or come again, and the end of the last
    transaction."""

    def __init__(self) -> None:
        self.rows = 0
        self.end = 0

    def take(self, message: Any) -> None:
        """Look at what a call brought, if anything."""
        if not is_data(message):
            return
        payload = bytes(message)
        if payload[:1] == b"I":
            # Tag, relation, "N", two columns, of which the first is text of a given length.
            (size,) = struct.unpack_from("!i", payload, 9)
            assert int(payload[13 : 13 + size]) == self.rows
            self.rows += 1
        elif payload[:1] == b"C":
            self.end = message.wal_end


class Cancelling:
    """Waits for coroutines, and cancels at random, in one of the ways that programs do."""

    def __init__(self) -> None:
        self._draw = random.Random(5)
        self.count = 0

    async def result(self, make: Callable[..., Any]) -> Any:
        """What the coroutine gave, None if it was cancelled."""
        turns, how = self._draw.randrange(4), self._draw.randrange(4)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            if how == 0:
                return await make(timeout=turns * 1e-4)
            if how == 1:
                async with asyncio.timeout(turns * 1e-4):
                    return await make()
            if how == 2:
                return await asyncio.wait_for(make(), max(turns, 1) * 1e-4)
            task = asyncio.ensure_future(make())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            return await task
        self.count += 1
        return None


async def receive_all(
    connection: aio.AsyncConnection, ledger: Ledger, received: Received, cancelling: Cancelling
) -> None:
    """Until everything that was committed has come."""
    draw = random.Random(6)
    while not ledger.finished or received.rows < ledger.rows:
        if draw.random() < 0.5:
            message = await cancelling.result(connection.receive_wal_message)
            received.take(message)
        else:
            for message in await cancelling.result(connection.receive_wal_messages) or ():
                received.take(message)
        if draw.random() < 0.02:
            end = received.end
            await cancelling.result(
                lambda end=end, **more: connection.send_standby_status(end, end, end, **more)
            )


@pytest.mark.flavours(*ASYNCHRONOUS)
def test_nothing_is_lost_and_nothing_comes_twice(database: Database, flavour: Flavour) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    ledger, received, cancelling = Ledger(database), Received(), Cancelling()
    start = f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'p')"

    def enough() -> bool:
        return cancelling.count >= CANCELLATIONS and ledger.rows >= ROWS

    async def main() -> list[pgrepl.Result]:
        try:
            return await stream()
        finally:
            ledger.given_up = True

    async def stream() -> list[pgrepl.Result]:
        async with aio.connect(database.dsn(), _codec=flavour.codec) as connection:
            # Here as well: what was cut off goes on, and does not begin again.
            begun = False
            while not begun:
                try:
                    await connection.start_streaming(start, timeout=1e-4)
                    begun = True
                except (asyncio.CancelledError, TimeoutError):
                    pass
                except pgrepl.UsageError as error:
                    assert "expected no stream to be on" in str(error)
                    begun = True
            await receive_all(connection, ledger, received, cancelling)
            return await connection.stop_streaming(timeout=PATIENCE)

    with (
        asyncio.Runner(loop_factory=loop_factory(flavour.loop)) as runner,
        meanwhile(lambda: ledger.write(enough)),
    ):
        results = runner.run(main())
    assert [result.tag for result in results] == ["COPY 0", "START_REPLICATION"]
    assert received.rows == ledger.rows >= ROWS
    assert cancelling.count >= CANCELLATIONS


@pytest.mark.flavours(*ASYNCHRONOUS)
def test_commands_are_not_mixed_up(database: Database, flavour: Flavour) -> None:
    """A command that was cancelled has been run once or not at all, and the next has its own
    answer."""
    database.execute("CREATE TABLE t (a int PRIMARY KEY)")
    cancelling = Cancelling()

    async def main() -> int:
        number = 0
        async with aio.connect(database.dsn(), _codec=flavour.codec) as connection:
            while cancelling.count < 200:
                number += 1
                sql = f"INSERT INTO t VALUES ({number}); SELECT {number}"
                answer = await cancelling.result(
                    lambda sql=sql, **more: connection.query(sql, **more)
                )
                if answer is not None:
                    assert [result.rows for result in answer] == [[], [(str(number),)]]
            [count] = await connection.query("SELECT count(*) FROM t", timeout=PATIENCE)
            assert int(count.rows[0][0] or 0) <= number
        return number

    with asyncio.Runner(loop_factory=loop_factory(flavour.loop)) as runner:
        assert runner.run(main()) >= 200
