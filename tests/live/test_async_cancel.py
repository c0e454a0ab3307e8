"""What a cancellation of a query has to stand on asyncio alone: other tasks, other loops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import pgrepl
from pgrepl import aio
from tests.live.streams import PATIENCE, meanwhile
from tests.live.test_cancel import SLEEP, is_asleep
from tests.support.clusters import Cluster
from tests.support.event_loops import LOOPS, loop_factory


async def falls_asleep(cluster: Cluster, connection: aio.AsyncConnection) -> asyncio.Task[Any]:
    sleeping = asyncio.create_task(connection.query(SLEEP, timeout=PATIENCE))
    while not await asyncio.to_thread(is_asleep, cluster, connection):
        await asyncio.sleep(0.01)
    return sleeping


async def was_cancelled(connection: aio.AsyncConnection, sleeping: asyncio.Task[Any]) -> None:
    with pytest.raises(pgrepl.ServerError) as caught:
        await sleeping
    assert caught.value.sqlstate == "57014"
    [result] = await connection.query("SELECT 1", timeout=PATIENCE)
    assert result.rows == [("1",)]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_query_of_another_task(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with aio.connect(cluster.dsn()) as connection:
            sleeping = await falls_asleep(cluster, connection)
            await connection.cancel()
            await was_cancelled(connection, sleeping)

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_from_another_event_loop(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with aio.connect(cluster.dsn()) as connection:
            sleeping = await falls_asleep(cluster, connection)
            with meanwhile(lambda: asyncio.run(connection.cancel())):
                await was_cancelled(connection, sleeping)

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())
