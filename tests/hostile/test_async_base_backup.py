"""What becomes of a base backup on asyncio that is cancelled, or left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import pgrepl
from pgrepl import aio
from tests.hostile.sessions import PATIENCE, address
from tests.hostile.test_base_backup import EXPECTED, WHOLE, backs_up, told
from tests.support.event_loops import loop_factory
from tests.support.flavours import ASYNCHRONOUS, Flavour
from tests.support.scripted import Peer, ScriptedServer


@pytest.mark.flavours(*ASYNCHRONOUS)
def test_cancellations_lose_nothing(flavour: Flavour) -> None:
    events: list[Any] = []
    cancelled = 0

    async def main(server: ScriptedServer) -> None:
        nonlocal cancelled
        async with aio.connect(**address(server), _codec=flavour.codec) as connection:
            backup = connection.base_backup()
            while not events or not isinstance(events[-1], pgrepl.basebackup.BackupEnd):
                try:
                    async with asyncio.timeout(0.001):
                        events.append(await anext(backup))
                except TimeoutError:
                    cancelled += 1
            assert [event async for event in backup] == []

    with (
        ScriptedServer(backs_up(lambda peer: peer.send_slowly(WHOLE, 64, 0.002))) as server,
        asyncio.Runner(loop_factory=loop_factory(flavour.loop)) as runner,
    ):
        runner.run(main(server))
    assert cancelled
    assert told(events) == EXPECTED


@pytest.mark.flavours(*ASYNCHRONOUS)
def test_one_that_is_left_closes_the_connection(flavour: Flavour) -> None:
    async def main(server: ScriptedServer) -> None:
        connection = await aio.connect(**address(server), _codec=flavour.codec)
        async with connection.base_backup(timeout=PATIENCE) as backup:
            async for event in backup:
                if isinstance(event, pgrepl.basebackup.ArchiveData):
                    break
        assert connection.closed

    with (
        ScriptedServer(backs_up(WHOLE[:-200], Peer.expect_hang_up)) as server,
        asyncio.Runner(loop_factory=loop_factory(flavour.loop)) as runner,
    ):
        runner.run(main(server))
