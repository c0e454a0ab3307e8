"""test_cancel.py on the asynchronous flavour, and what only that has: other tasks, other loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pgrepl
from pgrepl import aio
from tests.live import test_cancel
from tests.live.streams import PATIENCE, meanwhile
from tests.live.test_cancel import SLEEP, is_asleep
from tests.support.clusters import Cluster
from tests.support.event_loops import FEW_FLAVOURS, LOOPS, blocking_connect, loop_factory

globals().update(
    {name: test for name, test in vars(test_cancel).items() if name.startswith("test_")}
)
# A connection belongs to one loop, and so to one thread; here it is another task that cancels.
del globals()["test_a_query_of_another_thread"]


@pytest.fixture(params=FEW_FLAVOURS, ids="-".join)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` as the asynchronous flavour does it, on each twin and loop once."""
    with blocking_connect(request.param) as blocking:
        yield blocking


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
