"""A raw stream of a scripted server: asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgrepl import Lsn
from pgrepl.aio.connection import connect
from pgrepl.errors import ConnectionFailed, UsageError
from tests.hostile.decoded import begin_decoded, decoded, recv_status, said, until_hang_up
from tests.hostile.sessions import PATIENCE, address, data, keepalive
from tests.hostile.test_decoded_stream import begin, commit
from tests.support import builders
from tests.support.event_loops import running
from tests.support.flavours import FEW_ASYNCHRONOUS, Flavour
from tests.support.scripted import Peer, ScriptedServer

pytestmark = pytest.mark.flavours(*FEW_ASYNCHRONOUS)


@pytest.fixture
def run(flavour: Flavour) -> Iterator[Callable[[Any], Any]]:
    with running(flavour.loop, PATIENCE) as run:
        yield run


@pytest.fixture
def connected(flavour: Flavour) -> Callable[[ScriptedServer], Any]:
    """Connects."""
    return lambda server: connect(**address(server), _codec=flavour.codec)


def test_what_was_given_is_what_can_be_acknowledged(run: Any, connected: Any) -> None:
    statuses: list[Any] = []

    def script(peer: Peer) -> None:
        command = begin_decoded(peer)
        assert command.endswith("LOGICAL 0/1200 (\"include-xids\" '0')")
        peer.send(keepalive(0x1800) + data(0x2000, b"one") + data(0x1F00, b"two"))
        while not statuses or statuses[-1][1] < 0x2000:
            statuses.append(recv_status(peer))
        peer.send(data(0x4000, b"three") + keepalive(0x5000, reply_requested=True))
        statuses.extend(until_hang_up(peer))

    async def consume(server: ScriptedServer) -> list[bytes]:
        seen: list[bytes] = []
        async with (
            connected(server) as connection,
            connection.stream_raw(
                "s", options={"include-xids": "0"}, start=Lsn("0/1200")
            ) as stream,
        ):
            assert stream.start == 0x1200
            async for message in stream:
                seen.append(bytes(message))
                if len(seen) == 3:
                    break
                stream.ack(Lsn(0x9000) if len(seen) == 2 else message)
            await connection.disconnect()
        return seen

    with ScriptedServer(script) as server:
        assert run(consume(server)) == [b"one", b"two", b"three"]
    assert max(flushed for _, flushed, _, _ in statuses) == 0x2000


def test_a_wait_that_was_cancelled_loses_nothing(run: Any, connected: Any) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        recv_status(peer)
        peer.send(data(0x2000, b"late"))
        until_hang_up(peer)

    async def consume(server: ScriptedServer) -> bytes:
        async with connected(server) as connection:
            stream = await connection.stream_raw("s", status_interval=0.2)
            messages = aiter(stream)
            for timeout in (0, 0.01):
                with pytest.raises(TimeoutError):
                    await stream.receive(timeout=timeout)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(messages)
            late = bytes(await anext(messages))
            await connection.disconnect()
            await stream.stop()
        return late

    with ScriptedServer(script) as server:
        assert run(consume(server)) == b"late"


def test_the_servers_end_is_an_error_and_the_end(run: Any, connected: Any) -> None:
    async def consume(server: ScriptedServer) -> None:
        async with connected(server) as connection:
            stream = await connection.stream_raw("s")
            with pytest.raises(ConnectionFailed, match="the server ended the stream"):
                async for message in stream:
                    stream.ack(message)
            assert connection.closed
            with pytest.raises(UsageError, match="this one has ended"):
                stream.ack(0x2000)
            await stream.stop()

    with ScriptedServer(decoded(data(0x2000) + builders.copy_done(), until_hang_up)) as server:
        run(consume(server))


def test_a_stream_that_was_stopped_gives_nothing(run: Any, connected: Any) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        until_hang_up(peer)

    async def consume(server: ScriptedServer) -> int:
        async with connected(server) as connection:
            stream = await connection.stream_raw("s")
            reading = asyncio.ensure_future(stream.receive())
            await asyncio.sleep(0.05)
            await stream.stop(timeout=0.1)
            return len(await reading)

    with ScriptedServer(script) as server:
        assert run(consume(server)) == 0


def test_events_of_a_decoded_stream(run: Any, connected: Any) -> None:
    sent = (
        keepalive(0x1800) + said(begin(0x2000)) + keepalive(0x2000) + said(commit(0x2000), 0x2010)
    )

    async def consume(server: ScriptedServer) -> list[tuple[int, int]]:
        events: list[Any] = []
        async with connected(server) as connection:
            stream = await connection.stream("s", publications=["p"])
            while len(events) < 4:
                events += await stream.receive()
            with pytest.raises(TimeoutError):
                await stream.receive(timeout=0)
            await connection.disconnect()
            await stream.stop()
        return [(event.lsn, event.position) for event in events]

    with ScriptedServer(decoded(sent, until_hang_up)) as server:
        assert run(consume(server)) == [(0x1800, 0x1800), (0, 0), (0x2000, 0), (0x2010, 0x2010)]
