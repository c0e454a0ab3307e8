"""Reads that wait for company: nothing is lost or late for good, however they are cut short."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

from pgrepl.aio.connection import connect as connect_async
from pgrepl.errors import ConnectionFailed, UsageError
from tests.hostile.decoded import decoded, until_hang_up
from tests.hostile.sessions import PATIENCE, START, address, data, streams
from tests.support.event_loops import loop_factory
from tests.support.flavours import EVERY_FLAVOUR, Flavour
from tests.support.scripted import Peer, ScriptedServer, handshake

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]

#: Pieces that a server sends each by itself, as fast as it can, and the messages in each.
PIECES: Final = 300
EACH: Final = 50


def in_a_hurry(peer: Peer) -> None:
    """Send messages whose positions count them."""
    for piece in range(PIECES):
        first = piece * EACH
        peer.send(b"".join(data(1 + each, b"x" * 20) for each in range(first, first + EACH)))


def stream_by_hand(connect: Connect, server: ScriptedServer, max_delay: float) -> Any:
    connection = connect(**address(server))
    connection.start_streaming(START, max_delay=max_delay)
    return connection


def test_all_comes_in_fewer_reads_than_pieces(connect: Connect) -> None:
    with ScriptedServer(streams(in_a_hurry, until_hang_up)) as server:
        connection = stream_by_hand(connect, server, 0.02)
        positions: list[int] = []
        reads = 0
        while len(positions) < PIECES * EACH:
            positions += connection.receive_wal_messages(timeout=PATIENCE).wal_start
            reads += 1
        connection.disconnect()
    assert positions == list(range(1, PIECES * EACH + 1))
    assert reads < PIECES / 2


@pytest.mark.parametrize("max_delay", [0.0, 1.0])
def test_a_time_limit_loses_nothing(connect: Connect, max_delay: float) -> None:
    with ScriptedServer(streams(in_a_hurry, until_hang_up)) as server:
        connection = stream_by_hand(connect, server, max_delay)
        positions: list[int] = []
        while len(positions) < PIECES * EACH:
            with contextlib.suppress(TimeoutError):
                positions += connection.receive_wal_messages(timeout=0.001).wal_start
        with pytest.raises(TimeoutError):
            connection.receive_wal_message(timeout=0.001)
        connection.disconnect()
    assert positions == list(range(1, PIECES * EACH + 1))


def test_the_end_of_the_connection_behind_it(connect: Connect) -> None:
    with ScriptedServer(streams(in_a_hurry)) as server:
        connection = stream_by_hand(connect, server, 0.1)
        positions: list[int] = []
        with pytest.raises(ConnectionFailed, match="the server closed the connection"):
            while True:
                positions += connection.receive_wal_messages(timeout=PATIENCE).wal_start
        connection.disconnect()
    assert positions == list(range(1, PIECES * EACH + 1))


@pytest.mark.parametrize("given", [-1, 1.5, float("nan")])
def test_a_delay_that_makes_no_sense(connect: Connect, given: float) -> None:
    def script(peer: Peer) -> None:
        handshake(peer)
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection = connect(**address(server))
        for begin, arguments in (
            (connection.start_streaming, {"sql": START}),
            (connection.start_physical, {"start": 0x1000}),
            (connection.stream, {"slot": "s", "publications": ["p"]}),
            (connection.stream_raw, {"slot": "s"}),
        ):
            with pytest.raises(UsageError, match="max_delay from 0 to 1 seconds"):
                begin(**arguments, max_delay=given)
        connection.disconnect()


@pytest.mark.flavours("blocking-c", "blocking-python")
def test_another_thread_closes_it_meanwhile(connect: Connect) -> None:
    with ScriptedServer(streams(in_a_hurry, until_hang_up)) as server:
        connection = stream_by_hand(connect, server, 1.0)
        received = 0
        while received < PIECES * EACH / 2:
            received += len(connection.receive_wal_messages(timeout=PATIENCE))
        timer = threading.Timer(0.05, connection.disconnect)
        timer.start()
        with pytest.raises((ConnectionFailed, UsageError), match="closed"):
            while True:
                connection.receive_wal_messages(timeout=PATIENCE)
        timer.join()


@pytest.mark.flavours("asyncio-c", "uvloop-c")
def test_a_signal_meanwhile(flavour: Flavour) -> None:
    """It ends the wait for good, and not only the part of it in which nothing is read."""

    async def body(server: ScriptedServer) -> int:
        count = 0
        async with (
            connect_async(**address(server)) as connection,
            connection.stream_raw("s", max_delay=1.0) as stream,
        ):
            stream.stop_on(signal.SIGUSR1)
            async for _ in stream:
                count += 1
                if count == PIECES * EACH:
                    asyncio.get_running_loop().call_later(
                        0.05, os.kill, os.getpid(), signal.SIGUSR1
                    )
            await stream.stop(timeout=0.2)
        return count

    with (
        ScriptedServer(decoded(in_a_hurry, until_hang_up)) as server,
        asyncio.Runner(loop_factory=loop_factory(flavour.loop)) as runner,
    ):
        assert runner.run(asyncio.wait_for(body(server), PATIENCE)) == PIECES * EACH
