"""Transactions that are kept for later, asyncio: never silently empty; cancelling costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgrepl.aio.connection import connect
from pgrepl.errors import UsageError
from tests.hostile.decoded import begin_decoded, decoded, said, until_hang_up
from tests.hostile.sessions import PATIENCE, address
from tests.hostile.test_decoded_stream import ITEM, begin, commit, insert, transaction
from tests.hostile.test_passed_over import THREE
from tests.support.event_loops import running
from tests.support.flavours import FEW_ASYNCHRONOUS, Flavour
from tests.support.scripted import Peer, ScriptedServer

pytestmark = pytest.mark.flavours(*FEW_ASYNCHRONOUS)


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


async def ids(transaction: Any) -> list[int]:
    return [change.new["id"] async for change in transaction]


async def leave(connection: Any, stream: Any) -> None:
    await connection.disconnect()
    await stream.stop()


def test_what_is_kept_for_later_is_not_empty_but_an_error(run: Any, opened: Any) -> None:
    async def main(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        transactions = stream.transactions()
        first, second, third = [await anext(transactions) for _ in range(3)]
        for each in (first, second):
            with pytest.raises(UsageError, match=r"read\(\) it .* transactions\(whole=True\)"):
                await ids(each)
            with pytest.raises(UsageError, match=r"transactions\(whole=True\)"):
                await each.read()
            with pytest.raises(UsageError, match=r"read before it is acknowledged.*or skip\(\) it"):
                stream.ack(each)
        assert await ids(third) == [4]
        with pytest.raises(UsageError, match="all of them have been read"):
            await ids(third)
        first.skip()
        stream.ack(first)
        assert stream._session.positions.flushed == 0x2010
        await leave(connection, stream)

    with ScriptedServer(decoded(THREE, until_hang_up)) as server:
        run(main(server))


def test_what_owns_its_changes_can_be_iterated_over_without_async(run: Any, opened: Any) -> None:
    async def main(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        transactions = stream.transactions()
        first = await anext(transactions)
        with pytest.raises(UsageError, match=r"`async for` over .*`await transaction.read\(\)`"):
            iter(first)
        assert [change.new["id"] for change in await first.read()] == [1]
        second = await anext(transactions)
        assert await ids(first) == await ids(first) == [change.new["id"] for change in first] == [1]
        assert await ids(second) == [2, 3]
        await leave(connection, stream)

    with ScriptedServer(decoded(THREE, until_hang_up)) as server:
        run(main(server))


def test_cancelling_costs_no_change(run: Any, opened: Any) -> None:
    """Neither in the middle of reading, nor of passing over what has not come yet."""
    steps = asyncio.Queue[None]()
    loop: Any = None

    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(said(ITEM) + said(begin(0x2000), 0x1FF8))
        for more in (
            said(insert(1), 0x1FF8),
            said(insert(2), 0x1FF8),
            said(commit(0x2000), 0x2010) + transaction(0x3000, 3),
        ):
            asyncio.run_coroutine_threadsafe(steps.get(), loop).result(PATIENCE)
            peer.send(more)
        until_hang_up(peer)

    async def cut_off(awaitable: Any) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await awaitable

    async def main(server: ScriptedServer) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        connection, stream = await opened(server)
        transactions = stream.transactions()
        first = await anext(transactions)
        # Nothing has come that could be passed over: it can still be read.
        await cut_off(anext(transactions))
        steps.put_nowait(None)
        changes = aiter(first)
        assert (await anext(changes)).new["id"] == 1
        steps.put_nowait(None)
        await asyncio.sleep(0.05)
        await cut_off(first.read())
        await cut_off(first.read())
        assert (await anext(aiter(first))).new["id"] == 2
        await cut_off(anext(transactions))
        steps.put_nowait(None)
        assert await first.read() == []
        assert await ids(await anext(transactions)) == [3]
        stream.ack(first)
        await leave(connection, stream)

    with ScriptedServer(script) as server:
        run(main(server))


def test_skipping_in_the_middle_and_beginning_again(run: Any, opened: Any) -> None:
    async def main(server: ScriptedServer) -> None:
        connection, stream = await opened(server)
        await anext(stream.transactions())
        with pytest.raises(UsageError, match=r"read on in it .* skip\(\) it"):
            stream.transactions()
        first = stream._transactions.given
        first.skip()
        second = await anext(stream.transactions())
        assert first.is_whole
        second.skip()
        batch = await anext(stream.batches(max_rows=1))
        assert [change.new["id"] for change in batch] == [4]
        await leave(connection, stream)

    with ScriptedServer(decoded(THREE, until_hang_up)) as server:
        run(main(server))


def test_whole_transactions_are_for_later(run: Any, opened: Any) -> None:
    """Cancelled in the middle of one, the loop goes on where it stood."""
    steps = asyncio.Queue[None]()
    loop: Any = None

    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(said(ITEM) + transaction(0x1800, 0) + said(begin(0x2000)) + said(insert(1)))
        asyncio.run_coroutine_threadsafe(steps.get(), loop).result(PATIENCE)
        peer.send(said(commit(0x2000), 0x2010) + transaction(0x3000, 2, 3))
        until_hang_up(peer)

    async def main(server: ScriptedServer) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        connection, stream = await opened(server)
        transactions = stream.transactions(whole=True)
        kept = [await anext(transactions)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(transactions)
        with pytest.raises(UsageError, match="left in the middle"):
            stream.transactions()
        steps.put_nowait(None)
        again = stream.transactions(whole=True)
        kept += [await anext(again), await anext(transactions)]
        stream.ack(kept[2])
        assert stream._session.positions.flushed == 0x3010
        await leave(connection, stream)
        for _ in range(2):
            assert [await ids(each) for each in kept] == [[0], [1], [2, 3]]
        assert [change.new["id"] for change in kept[2]] == [2, 3]
        assert len(await kept[2].read()) == 2

    with ScriptedServer(script) as server:
        run(main(server))
