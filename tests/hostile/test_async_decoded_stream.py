"""A server whose decoded stream breaks the rules, or falls silent: asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgrepl.aio.connection import connect
from pgrepl.errors import ConnectionFailed, DecodeError, ServerShutdown, UsageError
from pgrepl.lsn import Lsn
from tests.hostile.decoded import begin_decoded, decoded, recv_status, said, until_hang_up
from tests.hostile.sessions import PATIENCE, address, keepalive
from tests.hostile.test_decoded_stream import BROKEN, GOOD, begin, transaction
from tests.support import builders
from tests.support.event_loops import running
from tests.support.flavours import ASYNCHRONOUS, Flavour
from tests.support.scripted import Peer, ScriptedServer

pytestmark = pytest.mark.flavours(*ASYNCHRONOUS)


@pytest.fixture
def run(flavour: Flavour) -> Iterator[Callable[[Any], Any]]:
    with running(flavour.loop, PATIENCE) as run:
        yield run


@pytest.fixture
def opened(flavour: Flavour) -> Any:
    """Connects and begins a stream."""

    async def open_stream(server: ScriptedServer, **options: Any) -> tuple[Any, Any]:
        connection = await connect(**address(server), _codec=flavour.codec)
        return connection, await connection.stream("s", publications=["p"], **options)

    return open_stream


async def drain(stream: Any, seen: list[int], acknowledge: bool = True) -> None:
    async for each in stream.transactions():
        async for change in each:
            seen.append(change.new["id"])
        if acknowledge:
            stream.ack(each)


@pytest.mark.parametrize(
    ("bad", "tag", "words", "lsn"), BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN]
)
def test_v10_what_breaks_the_rules_stops_the_stream(
    run: Any, opened: Any, bad: bytes, tag: bytes, words: str, lsn: int
) -> None:
    statuses: list[Any] = []
    script = decoded(GOOD + bad, lambda peer: statuses.extend(until_hang_up(peer)))

    async def body(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        seen: list[int] = []
        with pytest.raises(DecodeError) as caught:
            await drain(stream, seen)
        assert words in str(caught.value)
        assert (caught.value.tag or b"", caught.value.lsn) == (tag, lsn)
        assert seen[:1] == [1]
        assert connection.closed
        with pytest.raises(UsageError, match="this one has ended"):
            stream.ack(Lsn(0x9000))
        await stream.stop()
        await connection.close()

    with ScriptedServer(script) as server:
        run(body(server))
    assert max((flushed for _, flushed, _, _ in statuses), default=0) <= 0x2010


def test_a_keepalive_is_not_reported_while_a_transaction_is_open(run: Any, opened: Any) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD + said(begin(0x3000), 0x2FF0) + keepalive(0x3000, reply_requested=True))
        while (status := recv_status(peer))[1] != 0x2010:
            assert status[1] == 0
        peer.send(keepalive(0x3000, reply_requested=True))
        assert recv_status(peer)[:3] == (0x2010,) * 3
        assert all(flushed == 0x2010 for _, flushed, _, _ in until_hang_up(peer))

    async def body(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        reader = asyncio.create_task(drain(stream, []))
        await asyncio.sleep(0.5)
        await stream.stop(timeout=0.2)
        # Half of a transaction must not look like the whole of it.
        with pytest.raises(UsageError, match="stopped in the middle of this transaction"):
            await reader
        assert connection.closed
        await connection.close()

    with ScriptedServer(script) as server:
        run(body(server))


def test_a_silent_server_is_asked_and_then_given_up(run: Any, opened: Any) -> None:
    asked: list[bool] = []

    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD)
        asked.extend(reply for *_, reply in until_hang_up(peer))

    async def body(server: ScriptedServer) -> None:
        connection, stream = await opened(server, receive_timeout=0.5)
        with pytest.raises(ConnectionFailed, match="nothing came from the server within 0.5 s"):
            await drain(stream, [])
        assert connection.closed
        await connection.close()

    with ScriptedServer(script) as server:
        run(body(server))
    assert asked.count(True) == 1


def test_statuses_come_while_the_consumer_awaits_something_else(run: Any, opened: Any) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer, "300")  # hence a status every 100 ms
        peer.send(GOOD)
        for _ in range(5):
            recv_status(peer)
        peer.send(transaction(0x3000, 2))
        until_hang_up(peer)

    async def body(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        transactions = stream.transactions()
        assert [change.new["id"] async for change in await anext(transactions)] == [1]
        await asyncio.sleep(1.0)
        assert [change.new["id"] async for change in await anext(transactions)] == [2]
        await connection.close()
        await stream.stop()

    with ScriptedServer(script) as server:
        run(body(server))


def test_a_shutdown_is_answered_and_told(run: Any, opened: Any) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(GOOD + keepalive(0x2020, reply_requested=True))
        while recv_status(peer)[1] != 0x2020:
            pass
        peer.send(builders.command_complete("COPY 0"))

    async def body(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        with pytest.raises(ServerShutdown):
            await drain(stream, [])
        assert connection.closed
        await stream.stop()
        await connection.close()

    with ScriptedServer(script) as server:
        run(body(server))


def test_a_transaction_left_in_the_middle_is_not_passed_over_unsaid(run: Any, opened: Any) -> None:
    async def body(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        transactions = stream.transactions()
        assert [change.new["id"] async for change in await anext(transactions)] == [1]
        half = await anext(transactions)
        assert (await anext(aiter(half))).new["id"] == 2
        for start in (stream.transactions, stream.__aiter__, stream.batches):
            with pytest.raises(UsageError, match="left in the middle"):
                start()
        assert [change.new["id"] async for change in half] == [3]
        await connection.close()
        await stream.stop()

    with ScriptedServer(decoded(GOOD + transaction(0x3000, 2, 3), until_hang_up)) as server:
        run(body(server))


def test_closing_against_a_frozen_server_returns(run: Any, opened: Any) -> None:
    async def body(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        assert [change.new["id"] async for change in await anext(stream.transactions())] == [1]
        await stream.stop(timeout=0.3)
        assert connection.closed
        await connection.close()

    with ScriptedServer(decoded(GOOD, until_hang_up)) as server:
        run(body(server))
