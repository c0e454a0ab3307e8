"""Idle streams, and streams that end by themselves, where servers do what real ones seldom do."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl import Idle, Lsn, ResumeToken
from pgrepl.aio.connection import connect as connect_async
from pgrepl.messages import Message
from tests.hostile.decoded import decoded, leave, said, stream_of, until_hang_up
from tests.hostile.sessions import PATIENCE, address, keepalive
from tests.hostile.test_decoded_stream import ITEM, transaction
from tests.support.scripted import Peer, ScriptedServer

Connect = Callable[..., Any]

INTERVAL = 0.05
GOOD = said(ITEM) + transaction(0x2000, 1, 2, 3)


def test_idle_comes_again_and_is_equal_where_nothing_moves(connect: Connect) -> None:
    with ScriptedServer(decoded(keepalive(0x1800), until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        events = stream.transactions(idle=INTERVAL)
        first = next(events)
        assert first == Idle(ResumeToken("7291", 1, Lsn(0x1800)), Lsn(0x1800))
        assert next(events) == first
        stream.ack(first)
        while stream.stats().flushed != 0x1800:
            assert next(events) == first
        leave(connection, stream)


def test_the_token_keeps_what_was_dealt_with_before(connect: Connect) -> None:
    go_on: list[Peer] = []
    script = decoded(keepalive(0x1800), go_on.append, until_hang_up)
    with ScriptedServer(script) as server:
        start = ResumeToken("7291", 1, Lsn(0x1000), 2)
        connection, stream = stream_of(connect, server, start=start)
        events = stream.transactions(idle=INTERVAL)
        idle = next(events)
        assert (idle.token.end_lsn, idle.token.index) == (0x1800, 2)
        go_on[0].send(GOOD)
        while isinstance(given := next(events), Idle):
            assert given.token.index == 2
        assert [change.new["id"] for change in given] == [3]
        leave(connection, stream)


@pytest.mark.parametrize("way", ["transactions", "batches"])
def test_what_lies_beyond_is_not_acknowledged(connect: Connect, way: str) -> None:
    """Not even where it has come, is whole at once, and anything is acknowledged."""
    statuses: list[Any] = []
    beyond = said(Message(False, Lsn(0x3000), "prefix", b""), 0x3000)
    script = decoded(
        GOOD + beyond + keepalive(0x4000), lambda peer: statuses.extend(until_hang_up(peer))
    )
    with ScriptedServer(script) as server:
        _, stream = stream_of(connect, server, until=0x3000, messages=True)
        given = [change for each in getattr(stream, way)() for change in each]
        assert len(given) == 3
        stream.ack(Lsn(2**64 - 1))
        assert stream.token(Lsn(0x2010)).end_lsn == 0x2010
        stream.stop(timeout=0.2)
    assert max(flushed for _, flushed, _, _ in statuses) == 0x2010


def test_the_server_is_asked_how_far_it_has_come(connect: Connect) -> None:
    asked: list[Any] = []

    def script(peer: Peer) -> None:
        decoded(GOOD)(peer)
        statuses = iter(lambda: peer.recv_message()[1], b"")
        asked.append(next(status for status in statuses if status[-1] == 1))
        peer.send(keepalive(0x3000))
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server, until=0x3000)
        assert len([list(each) for each in stream.transactions()]) == 1
        leave(connection, stream)
    assert len(asked) == 1


def test_asyncio_idle_through_cancellations(codec: Any) -> None:
    async def body(server: ScriptedServer) -> None:
        async with (
            connect_async(**address(server), _codec=codec) as connection,
            connection.stream("s", publications=["p"]) as stream,
        ):
            for events in (stream.transactions(idle=0.3), stream.batches(idle=0.3)):
                # No wait is as long as the interval; it goes on all the same.
                idle = None
                while idle is None:
                    try:
                        async with asyncio.timeout(0.05):
                            idle = await anext(events)
                    except TimeoutError:
                        continue
                assert idle == Idle(ResumeToken("7291", 1, Lsn(0x1800)), Lsn(0x1800))
                stream.ack(idle)
            await stream.stop(timeout=0.2)

    with ScriptedServer(decoded(keepalive(0x1800), until_hang_up)) as server:
        asyncio.run(body(server))


@pytest.mark.parametrize("way", ["transactions", "batches"])
def test_asyncio_ends_by_itself_or_by_a_signal(codec: Any, way: str) -> None:
    sent = GOOD + transaction(0x3000, 4)

    async def body(server: ScriptedServer, until: int | None) -> list[int]:
        found = []
        async with (
            connect_async(**address(server), _codec=codec) as connection,
            connection.stream("s", publications=["p"], until=until) as stream,
        ):
            if until is None:
                stream.stop_on(signal.SIGUSR1)
                loop = asyncio.get_running_loop()
                loop.call_later(0.1, os.kill, os.getpid(), signal.SIGUSR1)
            async for each in getattr(stream, way)():
                changes = each.changes if way == "batches" else await each.read()
                found += [change.new["id"] for change in changes]
                stream.ack(each)
            assert stream.stopped_by == (signal.SIGUSR1 if until is None else None)
            await stream.stop(timeout=0.2)
        return found

    before = signal.getsignal(signal.SIGUSR1)
    for until, expected in ((0x2800, [1, 2, 3]), (None, [1, 2, 3, 4])):
        with ScriptedServer(decoded(sent, until_hang_up)) as server:
            run = asyncio.wait_for(body(server, until), PATIENCE)
            assert asyncio.run(run) == expected
    assert signal.getsignal(signal.SIGUSR1) == before
