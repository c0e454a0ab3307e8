"""A server that breaks the rules of transactions that are streamed before they end: both flavours.

What was acknowledged before stays acknowledged, and nothing beyond it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from pgrepl.aio.connection import connect as connect_async
from pgrepl.errors import DecodeError
from pgrepl.lsn import Lsn
from pgrepl.messages import StreamAbort, StreamCommit, StreamPrepare, StreamStart, StreamStop
from tests.hostile.decoded import decoded, said, stream_of, until_hang_up
from tests.hostile.sessions import PATIENCE, address
from tests.hostile.test_decoded_stream import GOOD, begin, commit
from tests.support.event_loops import running
from tests.support.flavours import ASYNCHRONOUS, Flavour
from tests.support.scripted import ScriptedServer

AT, BEFORE = 0x3000, Lsn(0x1000)
COMMIT = StreamCommit(700, Lsn(AT), Lsn(AT + 0x10), 0)
BLOCK = said(StreamStart(700, True), AT)

BROKEN: dict[str, tuple[bytes, bytes]] = {
    "a block in another one": (BLOCK + said(StreamStart(701, True), AT), b"S"),
    "the end of a block that never began": (said(StreamStop(), AT), b"E"),
    "a block of a transaction that never began": (said(StreamStart(700, False), AT), b"S"),
    "a commit of a transaction that never began": (said(COMMIT, AT), b"c"),
    "a commit of another transaction": (
        BLOCK + said(StreamStop(), AT) + said(replace(COMMIT, xid=701), AT),
        b"c",
    ),
    "a commit within a block": (BLOCK + said(COMMIT, AT), b"c"),
    "a transaction within a block": (BLOCK + said(begin(AT), AT), b"B"),
    "an abort within a block": (BLOCK + said(StreamAbort(700, 700), AT), b"A"),
    "a block within a transaction": (said(begin(AT), AT) + BLOCK, b"S"),
    "the end of a transaction within a block": (BLOCK + said(commit(AT), AT), b"C"),
    "a commit that goes back": (
        BLOCK
        + said(StreamStop(), AT)
        + said(replace(COMMIT, commit_lsn=BEFORE, end_lsn=BEFORE), AT),
        b"c",
    ),
    "a prepared transaction that nobody asked for": (
        said(StreamPrepare(Lsn(AT), Lsn(AT + 0x10), 0, 700, "gid"), AT),
        b"p",
    ),
}


@pytest.fixture
def statuses() -> Iterator[list[Any]]:
    told: list[Any] = []
    yield told
    assert max((flushed for _, flushed, _, _ in told), default=0) <= 0x2010


def judge(error: DecodeError, tag: bytes) -> None:
    # Of the message, or of the commit that it tells of.
    assert error.lsn in (AT, BEFORE)
    assert error.tag == tag
    assert "expected " in str(error)
    assert "got " in str(error)
    assert str(error.lsn) in str(error)


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_rules(connect: Callable[..., Any], name: str, statuses: list[Any]) -> None:
    bad, tag = BROKEN[name]
    script = decoded(GOOD + bad, lambda peer: statuses.extend(until_hang_up(peer)))
    with ScriptedServer(script) as server:
        connection, stream = stream_of(connect, server, streaming="on")
        with pytest.raises(DecodeError) as caught:
            for each in stream.transactions():
                list(each)
                stream.ack(each)
        judge(caught.value, tag)
        assert connection.closed
        stream.stop()


@pytest.mark.flavours(*ASYNCHRONOUS)
@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_rules_of_asyncio(flavour: Flavour, name: str, statuses: list[Any]) -> None:
    bad, tag = BROKEN[name]

    async def main(server: ScriptedServer) -> None:
        connection = await connect_async(**address(server), _codec=flavour.codec)
        stream = await connection.stream("s", publications=["p"], streaming="on")
        with pytest.raises(DecodeError) as caught:
            async for each in stream.transactions():
                async for _ in each:
                    pass
                stream.ack(each)
        judge(caught.value, tag)
        assert connection.closed
        await stream.stop()
        await connection.close()

    script = decoded(GOOD + bad, lambda peer: statuses.extend(until_hang_up(peer)))
    with ScriptedServer(script) as server, running(flavour.loop, PATIENCE) as run:
        run(main(server))
