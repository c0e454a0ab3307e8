"""Event loops, and what becomes of a connection that is forgotten in one."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import Awaitable, Callable

import pytest

from pgrepl import aio
from pgrepl.codec import codec
from pgrepl.errors import TLSError, UsageError
from pgrepl.transport.aio.driver import AsyncTransport
from tests.hostile import test_async_tasks
from tests.hostile.sessions import ENDED, PATIENCE, answers_a_query, data, keepalive, streams
from tests.hostile.test_async_tasks import Connect, Run, cancelled_after, falls_silent, streaming
from tests.support.certificates import CertificateSet
from tests.support.event_loops import LoopFactory
from tests.support.flavours import ASYNCHRONOUS
from tests.support.scripted import Peer, ScriptedServer, handshake

pytestmark = pytest.mark.flavours(*ASYNCHRONOUS)

factory = test_async_tasks.factory
run = test_async_tasks.run
connect = test_async_tasks.connect

# Loops


def test_another_loop(run: Run, connect: Connect, factory: LoopFactory) -> None:
    async def use(connection: aio.AsyncConnection) -> None:
        uses: list[Callable[[], Awaitable[object]]] = [
            connection.receive_wal_message,
            connection.receive_wal_messages,
            connection.stop_streaming,
            connection.disconnect,
            lambda: connection.query("SELECT 1"),
            lambda: connection.send_standby_status(1, 1, 1),
        ]
        for call in uses:
            with pytest.raises(UsageError, match="expected the event loop that this connection"):
                await call()

    async def main() -> None:
        async with streaming(connect, server) as connection:
            assert (await connection.receive_wal_message()).wal_start == 1

            def elsewhere() -> None:
                with asyncio.Runner(loop_factory=factory) as runner:
                    runner.run(use(connection))

            await asyncio.to_thread(elsewhere)
            assert not connection.closed
            assert (await connection.receive_wal_message()).wal_start == 2

    with ScriptedServer(streams(data(1) + data(2), falls_silent)) as server:
        run(main())


def test_forgotten_in_a_running_loop(run: Run, connect: Connect) -> None:
    async def main() -> None:
        connection = await connect(server)
        with pytest.warns(ResourceWarning, match="pgrepl.AsyncConnection pid=.* was not closed"):
            del connection
            gc.collect()

    with ScriptedServer(lambda peer: (handshake(peer), peer.expect_hang_up())) as server:
        run(main())


def test_forgotten_in_another_thread(run: Run, connect: Connect) -> None:
    async def main() -> None:
        held = [await connect(server)]
        with pytest.warns(ResourceWarning, match="was not closed"):
            await asyncio.to_thread(held.clear)
        await asyncio.sleep(0)

    with ScriptedServer(lambda peer: (handshake(peer), peer.expect_hang_up())) as server:
        run(main())


def test_a_loop_that_was_closed_early(connect: Connect, factory: LoopFactory) -> None:
    def script(peer: Peer) -> None:
        handshake(peer)
        peer.expect_hang_up()

    async def disconnect(connection: aio.AsyncConnection) -> None:
        await connection.disconnect()
        assert connection.closed
        with pytest.raises(UsageError, match="expected the event loop"):
            await connection.query("SELECT 1")

    # That it was left with something open, the loop tells in its own way.
    with ScriptedServer(script) as server, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed (transport|resource)", ResourceWarning)
        with asyncio.Runner(loop_factory=factory) as runner:
            connection = runner.run(connect(server))
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(disconnect(connection))
        del connection
        gc.collect()


def test_a_task_that_is_destroyed_while_it_waits(connect: Connect, factory: LoopFactory) -> None:
    """What a loop leaves behind that was closed under a task, the connection included."""

    async def wait() -> None:
        async with streaming(connect, server) as connection:
            await connection.receive_wal_message()

    with ScriptedServer(streams(falls_silent)) as server:
        with asyncio.Runner(loop_factory=factory) as runner:
            waiting = runner.get_loop().create_task(wait())

            async def give_it_a_moment() -> None:
                await asyncio.sleep(0.05)

            runner.run(give_it_a_moment())
        # The runner has cancelled it.
        assert waiting.cancelled()
    assert server.hang_ups == 1


def test_errors_of_connecting_do_not_depend_on_the_flavour(
    run: Run, connect: Connect, certificates: CertificateSet
) -> None:
    async def main() -> None:
        with pytest.raises(TLSError, match="the server does not offer TLS"):
            await connect(server, sslmode="require")
        with pytest.raises(UsageError, match="does not exist"):
            await connect(server, sslmode="verify-full")
        with pytest.raises(UsageError, match="expected a known connection option"):
            connect(server, nonsense=1)

    def refuses_tls(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(b"N")

    with ScriptedServer(refuses_tls) as server:
        run(main())


def test_keepalives_and_the_end(run: Run, connect: Connect) -> None:
    async def main() -> None:
        async with streaming(connect, server) as connection:
            first, second = await connection.receive_wal_messages()
            assert (first.wal_start, second.wal_end) == (1, 2)
            assert repr(connection).endswith(" streaming>")
            assert await connection.receive_wal_message() is None
            assert not await connection.receive_wal_messages()
            await connection.stop_streaming()
            [result] = await connection.query("SELECT 1")
            assert result.rows == [("1",)]

    script = streams(data(1) + keepalive(2) + ENDED, answers_a_query)
    with ScriptedServer(script) as server:
        run(main())


def test_a_cancelled_transport_is_closed_all_the_same(run: Run) -> None:
    """The loop makes it in a few turns; whoever made it by half has to let go of the socket."""

    async def main() -> None:
        for turns in range(6):
            ours, theirs = socket.socketpair()
            with theirs:
                transport = AsyncTransport(ours, codec.FrameReader())
                await cancelled_after(turns, transport.attach())
                transport.close()
                await transport.wait_closed()
                await asyncio.sleep(0)
                assert ours.fileno() == -1
                theirs.settimeout(PATIENCE)
                assert theirs.recv(1) == b""

    run(main())
