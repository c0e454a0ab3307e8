"""What a conversation asks of its driver, as only an event loop can show it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl import aio
from pgrepl.protocol.conversation import Exchange
from pgrepl.transport.clock import Deadline
from tests.hostile.sessions import PATIENCE, address
from tests.hostile.test_driver_requests import OwnError, compute
from tests.support.event_loops import LOOPS, loop_factory
from tests.support.inside import transport_of
from tests.support.scripted import Peer, ScriptedServer, handshake


def idle(peer: Peer) -> None:
    handshake(peer)
    peer.expect_hang_up()


def with_connection(loop: str, work: Callable[[aio.AsyncConnection], Any]) -> None:
    async def main() -> None:
        async with aio.connect(**address(server)) as connection:
            await work(connection)

    with ScriptedServer(idle) as server, asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_v4_the_event_loop_goes_on_meanwhile(loop: str) -> None:
    async def work(connection: aio.AsyncConnection) -> None:
        seen = threading.Event()
        # Only a loop that goes on can end the work.
        asyncio.get_running_loop().call_later(0.01, seen.set)
        exchange = Exchange(compute(lambda: seen.wait(PATIENCE)))
        assert await transport_of(connection).run(exchange, Deadline(PATIENCE)) == [True]

    with_connection(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("ending", ["time limit", "cancellation"])
def test_nobody_waits_for_it_any_more(loop: str, ending: str) -> None:
    """The conversation can be gone on with, and what the abandoned work comes to is dropped."""

    async def work(connection: aio.AsyncConnection) -> None:
        released, calls = threading.Event(), 0

        def take_long() -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                released.wait(PATIENCE)
                raise OwnError
            return calls

        exchange = Exchange(compute(take_long))
        run = transport_of(connection).run
        if ending == "time limit":
            with pytest.raises(TimeoutError, match="did not come within"):
                await run(exchange, Deadline(0.05))
        else:
            waiting = asyncio.create_task(run(exchange, Deadline(PATIENCE)))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await run(exchange, Deadline(PATIENCE)) == [2]
        released.set()

    with_connection(loop, work)
