"""Tasks, cancellations and loops: what only the asynchronous flavour has to stand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeAlias

import pytest

from pgrepl import aio
from pgrepl.aio.making import Making
from pgrepl.errors import ConnectionFailed, UsageError
from tests.hostile.sessions import (
    ENDED,
    PATIENCE,
    READY,
    START,
    address,
    answers_a_query,
    data,
    streams,
)
from tests.support import builders
from tests.support.certificates import CertificateSet
from tests.support.event_loops import LoopFactory, loop_factory
from tests.support.flavours import ASYNCHRONOUS, Flavour
from tests.support.scripted import Peer, ScriptedServer, handshake

pytestmark = pytest.mark.flavours(*ASYNCHRONOUS)

Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
Connect: TypeAlias = Callable[..., Any]


@pytest.fixture
def factory(flavour: Flavour) -> LoopFactory:
    """What makes the loops of the flavour."""
    return loop_factory(flavour.loop)


@pytest.fixture
def run(factory: LoopFactory) -> Iterator[Run]:
    """Runs a coroutine in a loop, which must have nothing to complain of."""
    complaints: list[dict[str, Any]] = []

    def runs(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda loop, about: complaints.append(about))
            return runner.run(main)

    yield runs
    gc.collect()
    assert complaints == []


@pytest.fixture
def connect(flavour: Flavour) -> Connect:
    """`pgrepl.aio.connect` on the twin of the flavour."""
    codec = flavour.codec

    def connects(server: ScriptedServer, **more: Any) -> Making[aio.AsyncConnection]:
        return aio.connect(**address(server, **more), _codec=codec)

    return connects


@contextlib.asynccontextmanager
async def streaming(connect: Connect, server: ScriptedServer, **more: Any) -> Any:
    async with connect(server, **more) as connection:
        await connection.start_streaming(START, timeout=PATIENCE)
        yield connection


async def cancelled_after(turns: int, work: Coroutine[Any, Any, Any]) -> Any:
    """Cancel it after so many turns of the loop, in which it may come to its end: its result."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


def falls_silent(peer: Peer) -> None:
    while peer.recv_exactly(1):
        pass


# Cancellations


@pytest.mark.parametrize("call", ["receive_wal_message", "receive_wal_messages"])
def test_a_cancelled_receive_loses_nothing_and_repeats_nothing(
    run: Run, connect: Connect, call: str
) -> None:
    """At every turn, while the server sends in pieces of every size."""
    count = 3000
    sent = b"".join(data(i, bytes((i % 251,)) * (i % 90)) for i in range(count))

    def pours(peer: Peer) -> None:
        peer.send_slowly(sent[:20_000], 97, 0)
        peer.send_slowly(sent[20_000:], 1009, 0)

    async def main() -> None:
        got: list[int] = []
        cancellations = 0
        async with streaming(connect, server) as connection:
            while len(got) < count:
                received = await cancelled_after(cancellations % 4, getattr(connection, call)())
                if received is None:
                    cancellations += 1
                elif call == "receive_wal_message":
                    got.append(received.wal_start)
                else:
                    got += received.wal_start
            assert got == list(range(count))
            assert cancellations > 10
            assert await connection.receive_wal_message(timeout=PATIENCE) is None

    with ScriptedServer(streams(pours, ENDED)) as server:
        run(main())


def test_a_cancelled_query_is_finished_before_the_next_command(run: Run, connect: Connect) -> None:
    answer = (
        builders.row_description("a")
        + b"".join(builders.data_row("old") for _ in range(50))
        + builders.command_complete("SELECT 50")
        + READY
    )
    rounds = 12

    def script(peer: Peer) -> None:
        handshake(peer)
        for _ in range(rounds):
            if peer.recv_query() == "old":
                peer.send_slowly(answer, 101, 0)
                assert peer.recv_query() == "SELECT 1"
            peer.send(
                builders.row_description("a")
                + builders.data_row("1")
                + builders.command_complete("SELECT 1")
                + READY
            )

    async def main() -> None:
        async with connect(server) as connection:
            for turns in range(rounds):
                await cancelled_after(turns, connection.query("old"))
                assert not connection.closed
                [result] = await connection.query("SELECT 1", timeout=PATIENCE)
                assert result.rows == [("1",)]

    with ScriptedServer(script) as server:
        run(main())


def test_a_cancelled_stop_goes_on_where_it_was(run: Run, connect: Connect) -> None:
    def stops(peer: Peer) -> None:
        peer.expect(b"c")
        peer.send_slowly(b"".join(data(i) for i in range(100)) + ENDED, 500, 0.001)

    async def main() -> None:
        async with streaming(connect, server) as connection:
            results = None
            while results is None:
                results = await cancelled_after(3, connection.stop_streaming())
            assert [result.tag for result in results] == ["COPY 0", "START_REPLICATION"]
            [result] = await connection.query("SELECT 1", timeout=PATIENCE)
            assert result.rows == [("1",)]

    with ScriptedServer(streams(data(1), stops, answers_a_query)) as server:
        run(main())


# Python's own, of the server, where the client has gone before its handshake begins.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require"])
def test_a_cancelled_connect_leaves_nothing_open(
    run: Run, connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    # That no descriptor is left is what every test here is held to.
    async def main() -> int:
        turns = 0
        while True:
            connection = await cancelled_after(turns, connect(server, sslmode=sslmode))
            if connection is not None:
                await connection.disconnect()
                return turns
            # Where the work of another thread or of the server is waited for, turns go by quickly.
            await asyncio.sleep(0.001)
            turns += 1 if turns < 60 else turns // 3

    with ScriptedServer(handshake, tls=certificates.server.server_context()) as server:
        assert run(main()) > 3


def test_a_connect_that_runs_out_of_time_leaves_nothing_open(run: Run, connect: Connect) -> None:
    async def main() -> None:
        for sslmode in ("disable", "require"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await connect(server, sslmode=sslmode)

    with ScriptedServer(falls_silent) as server:
        run(main())
        assert server.connections == 2
    assert server.hang_ups == 2


def test_a_time_limit_around_it(run: Run, connect: Connect) -> None:
    go_on = threading.Event()

    async def main() -> None:
        async with streaming(connect, server) as connection:
            assert (await connection.receive_wal_message()).wal_start == 1
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await connection.receive_wal_messages()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(connection.receive_wal_message(), 0.01)
                with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
                    await connection.receive_wal_message(timeout=0.01)
                with pytest.raises(TimeoutError, match=r"within 0 s"):
                    await connection.receive_wal_message(timeout=0)
            go_on.set()
            message = await asyncio.wait_for(connection.receive_wal_message(), PATIENCE)
            assert message.wal_start == 2

    script = streams(data(1) + data(2)[:9], lambda peer: go_on.wait(PATIENCE), data(2)[9:])
    with ScriptedServer(script) as server:
        run(main())


def test_what_is_there_comes_without_waiting(run: Run, connect: Connect) -> None:
    """A limit of nothing at all still brings what has arrived."""

    async def main() -> None:
        got: list[int] = []
        async with streaming(connect, server) as connection:
            while len(got) < 3000:
                with contextlib.suppress(TimeoutError):
                    got += (await connection.receive_wal_messages(timeout=0)).wal_start
        assert got == list(range(3000))

    with ScriptedServer(streams(b"".join(data(i, bytes(500)) for i in range(3000)))) as server:
        run(main())


def test_a_limit_of_nothing_still_looks_once(run: Run, connect: Connect) -> None:
    sent = threading.Event()

    async def main() -> None:
        async with streaming(connect, server) as connection:
            go_on.set()
            assert sent.wait(PATIENCE)  # and the loop has had no turn since
            assert (await connection.receive_wal_message(timeout=0)).wal_start == 1

    go_on = threading.Event()
    script = streams(lambda peer: go_on.wait(PATIENCE), data(1), lambda peer: sent.set())
    with ScriptedServer(script) as server:
        run(main())


# Several tasks


def test_one_task_receives_at_a_time(run: Run, connect: Connect) -> None:
    go_on = threading.Event()

    async def main() -> None:
        async with streaming(connect, server) as connection:
            receiving = asyncio.ensure_future(connection.receive_wal_message())
            await asyncio.sleep(0)
            second: list[Callable[[], Awaitable[object]]] = [
                connection.receive_wal_message,
                connection.receive_wal_messages,
                connection.stop_streaming,
            ]
            for call in second:
                with pytest.raises(UsageError, match="another task is using this connection"):
                    await call()
            assert not receiving.done()
            await connection.send_standby_status(1, 1, 1)
            go_on.set()
            assert (await receiving).wal_start == 1
            # Nor has the refused stop stopped anything.
            assert (await connection.receive_wal_message()).wal_start == 2

    def waits(peer: Peer) -> None:
        peer.expect(b"d")
        go_on.wait(PATIENCE)

    with ScriptedServer(streams(waits, data(1) + data(2))) as server:
        run(main())


def test_a_command_while_another_runs(run: Run, connect: Connect) -> None:
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        handshake(peer)
        assert peer.recv_query() == "SELECT 1"
        go_on.wait(PATIENCE)
        peer.send(
            builders.row_description("a")
            + builders.data_row("1")
            + builders.command_complete("SELECT 1")
            + READY
        )
        answers_a_query(peer)

    async def main() -> None:
        async with connect(server) as connection:
            running = asyncio.ensure_future(connection.query("SELECT 1"))
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="another task is using"):
                await connection.query("SELECT 2")
            go_on.set()
            assert (await running)[0].rows == [("1",)]
            assert (await connection.query("SELECT 1"))[0].rows == [("1",)]

    with ScriptedServer(script) as server:
        run(main())


@pytest.mark.parametrize("call", ["receive_wal_message", "receive_wal_messages", "stop_streaming"])
def test_disconnect_wakes_whoever_waits(run: Run, connect: Connect, call: str) -> None:
    async def main() -> None:
        async with streaming(connect, server) as connection:
            waiting = asyncio.ensure_future(getattr(connection, call)())
            await asyncio.sleep(0.01)
            await connection.disconnect()
            with pytest.raises(ConnectionFailed, match="closed while another task was using it"):
                await waiting
            await connection.disconnect()
            assert connection.closed
            assert connection.fileno() == -1

    with ScriptedServer(streams(falls_silent)) as server:
        run(main())


def test_other_tasks_run_while_one_waits(run: Run, connect: Connect) -> None:
    go_on = threading.Event()

    async def main() -> None:
        async with streaming(connect, server) as connection:
            receiving = asyncio.ensure_future(connection.receive_wal_message())
            for _ in range(100):
                await asyncio.sleep(0)
            assert not receiving.done()
            go_on.set()
            assert (await receiving).wal_start == 1

    with ScriptedServer(streams(lambda peer: go_on.wait(PATIENCE), data(1))) as server:
        run(main())
