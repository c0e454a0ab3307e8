"""What the asynchronous flavour keeps of what comes and goes: bounded, and never disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from pgrepl.errors import ServerShutdown
from tests.hostile import test_async_tasks
from tests.hostile.sessions import ENDED, PATIENCE, begin_stream, data, streams
from tests.hostile.test_async_tasks import Connect, Run, streaming
from tests.support import builders
from tests.support.certificates import CertificateSet
from tests.support.flavours import ASYNCHRONOUS
from tests.support.inside import transport_of
from tests.support.scripted import Peer, ScriptedServer

pytestmark = pytest.mark.flavours(*ASYNCHRONOUS)

CHUNK = 131072

factory = test_async_tasks.factory
run = test_async_tasks.run
connect = test_async_tasks.connect

# The buffer: never filled under a view, never beyond measure


class Pouring:
    """A script that sends a long stream as fast as it is taken, and knows how much it has sent."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.sent = 0

    def payload(self, number: int) -> bytes:
        return number.to_bytes(4, "big") * (self.size // 4)

    def __call__(self, peer: Peer) -> None:
        begin_stream(peer)
        for first in range(0, self.count, 50):
            messages = [data(i, self.payload(i)) for i in range(first, first + 50)]
            peer.send(b"".join(messages))
            self.sent = first + 50
        peer.send(ENDED)


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_what_is_kept_stays_as_it_is(
    run: Run, connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    pouring = Pouring(12_000, 400)

    async def main() -> None:
        kept: list[tuple[int, Any]] = []
        number = 0
        async with streaming(connect, server, sslmode=sslmode) as connection:
            while batch := await connection.receive_wal_messages(timeout=PATIENCE):
                for message in batch:
                    if number % 7 == 0:
                        kept.append((number, message.data[4:-4]))
                    elif number % 11 == 0:
                        kept.append((number, message))
                    number += 1
                if number % 3 == 0:
                    await asyncio.sleep(0)  # the loop reads on, and nobody takes it
        assert number == pouring.count
        for at, thing in kept:
            payload = pouring.payload(at)
            assert bytes(thing) in (payload, payload[4:-4])

    with ScriptedServer(pouring, tls=certificates.server.server_context()) as server:
        run(main())


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_reading_pauses_while_nobody_takes_anything(
    run: Run, connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    pouring = Pouring(100_000, 400)

    async def main() -> None:
        got: list[int] = []
        async with streaming(connect, server, sslmode=sslmode) as connection:
            for _ in range(4):
                # Until the server can send no more, which takes as long as it takes.
                before = -1
                while before != pouring.sent:
                    before = pouring.sent
                    await asyncio.sleep(0.2)
                assert pouring.sent < pouring.count
                assert transport_of(connection).reader.pending < 2 * CHUNK
                for _ in range(10):
                    got += (await connection.receive_wal_messages()).wal_start
            while batch := await connection.receive_wal_messages(timeout=PATIENCE):
                got += batch.wal_start
        assert got == list(range(pouring.count))

    with ScriptedServer(pouring, tls=certificates.server.server_context()) as server:
        run(main())


def test_a_message_larger_than_what_makes_it_pause(run: Run, connect: Connect) -> None:
    payload = bytes(range(256)) * 20_000

    async def main() -> None:
        async with streaming(connect, server) as connection:
            await asyncio.sleep(0.05)  # paused in the middle of the message
            for _ in range(50):
                with contextlib.suppress(TimeoutError):
                    message = await connection.receive_wal_message(timeout=0)
                    break
            else:
                message = await connection.receive_wal_message(timeout=PATIENCE)
            assert message.data == payload
            assert (await connection.receive_wal_message()).wal_start == 2

    with ScriptedServer(streams(data(1, payload) + data(2))) as server:
        run(main())


# A server that does not read


def test_a_status_that_has_to_wait(run: Run, connect: Connect) -> None:
    go_on = threading.Event()

    def reads_late(peer: Peer) -> None:
        go_on.wait(PATIENCE)
        while peer.recv_message()[0] == b"d":
            pass

    async def main() -> int:
        sent = 0
        async with streaming(connect, server) as connection:
            with pytest.raises(TimeoutError, match=r"within 0\.02 s"):
                while True:
                    await connection.send_standby_status(1, 1, 1, timeout=0.02)
                    sent += 1
            # It goes out later, and once; who cannot wait for it may receive all the same.
            waiting = asyncio.ensure_future(connection.send_standby_status(1, 1, 1))
            assert (await connection.receive_wal_message(timeout=PATIENCE)).wal_start == 1
            assert not waiting.done()
            go_on.set()
            await waiting
            await connection.send_standby_status(1, 1, 1)
        return sent

    with ScriptedServer(streams(data(1), reads_late)) as server:
        assert run(main()) > 100


def test_closing_waits_for_no_server(run: Run, connect: Connect) -> None:
    left = threading.Event()

    async def main() -> None:
        async with streaming(connect, server) as connection:
            with pytest.raises(TimeoutError):
                while True:
                    await connection.send_standby_status(1, 1, 1, timeout=0.02)
        assert connection.closed
        left.set()

    def reads_nothing(peer: Peer) -> None:
        assert left.wait(PATIENCE), "the client waits for something"

    with ScriptedServer(streams(data(1), reads_nothing)) as server:
        run(main())


def test_a_last_status_goes_out_before_the_end(run: Run, connect: Connect) -> None:
    seen: list[bytes] = []

    def listens(peer: Peer) -> None:
        while not seen or seen[-1] != b"X":
            seen.append(peer.recv_message()[0])

    async def main() -> None:
        async with streaming(connect, server) as connection:
            assert (await connection.receive_wal_message()).wal_start == 1
            await connection.send_standby_status(1, 1, 1)

    with ScriptedServer(streams(data(1), listens)) as server:
        run(main())
    assert seen == [b"d", b"X"]


def test_last_words_that_nobody_had_read_when_sending_failed(run: Run, connect: Connect) -> None:
    closed = threading.Event()

    def script(peer: Peer) -> None:
        begin_stream(peer)
        go_on.wait(PATIENCE)
        peer.send(data(1) + builders.error_response("bye", severity="FATAL", sqlstate="57P01"))
        peer.close()
        closed.set()

    async def main() -> None:
        async with streaming(connect, server) as connection:
            go_on.set()
            assert closed.wait(PATIENCE)
            # The loop has no turn in between: the answer to the first one makes the second fail.
            await connection.send_standby_status(1, 1, 1)
            await connection.send_standby_status(1, 1, 1)
            assert (await connection.receive_wal_message()).wal_start == 1
            with pytest.raises(ServerShutdown, match="FATAL 57P01: bye"):
                await connection.receive_wal_message()
            assert connection.closed

    go_on = threading.Event()
    with ScriptedServer(script) as server:
        run(main())
