"""test_base_backup.py, on the asynchronous flavour; and what becomes of one that is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pgrepl
from pgrepl import aio
from tests.hostile import test_base_backup
from tests.hostile.sessions import PATIENCE, address
from tests.hostile.test_base_backup import EXPECTED, WHOLE, backs_up, told
from tests.support.event_loops import FLAVOURS, blocking_connect, loop_factory, twin
from tests.support.scripted import Peer, ScriptedServer

globals().update(
    {name: test for name, test in vars(test_base_backup).items() if name.startswith("test_")}
)


@pytest.fixture(params=FLAVOURS, ids="-".join)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` as the asynchronous flavour does it, on each twin and loop."""
    with blocking_connect(request.param) as blocking:
        yield blocking


@pytest.mark.parametrize("flavour", FLAVOURS, ids="-".join)
def test_cancellations_lose_nothing(flavour: tuple[str, str]) -> None:
    events: list[Any] = []
    cancelled = 0

    async def main(server: ScriptedServer) -> None:
        nonlocal cancelled
        async with aio.connect(**address(server), _codec=twin(flavour[0])) as connection:
            backup = connection.base_backup()
            while not events or not isinstance(events[-1], pgrepl.BackupEnd):
                try:
                    async with asyncio.timeout(0.001):
                        events.append(await anext(backup))
                except TimeoutError:
                    cancelled += 1
            assert [event async for event in backup] == []

    with (
        ScriptedServer(backs_up(lambda peer: peer.send_slowly(WHOLE, 64, 0.002))) as server,
        asyncio.Runner(loop_factory=loop_factory(flavour[1])) as runner,
    ):
        runner.run(main(server))
    assert cancelled
    assert told(events) == EXPECTED


@pytest.mark.parametrize("flavour", FLAVOURS, ids="-".join)
def test_one_that_is_left_closes_the_connection(flavour: tuple[str, str]) -> None:
    async def main(server: ScriptedServer) -> None:
        connection = await aio.connect(**address(server), _codec=twin(flavour[0]))
        async with connection.base_backup(timeout=PATIENCE) as backup:
            async for event in backup:
                if isinstance(event, pgrepl.ArchiveData):
                    break
        assert connection.closed

    with (
        ScriptedServer(backs_up(WHOLE[:-200], Peer.expect_hang_up)) as server,
        asyncio.Runner(loop_factory=loop_factory(flavour[1])) as runner,
    ):
        runner.run(main(server))
