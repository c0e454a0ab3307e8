"""A child that inherits a connection by fork: nothing that it drops, closes or uses reaches the
peer, and the parent goes on."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import ssl
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

import pgrepl
from pgrepl import aio
from pgrepl.aio.stream import AsyncStream
from pgrepl.errors import UsageError
from tests.hostile.decoded import begin_decoded, recv_status
from tests.hostile.sessions import ENDED, PATIENCE, address, keepalive
from tests.support import builders
from tests.support.event_loops import LOOPS, loop_factory
from tests.support.forking import in_child
from tests.support.inside import transport_of, wire_of
from tests.support.scripted import Peer, ScriptedServer

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks on this system")


class Script:
    """Streams, and sees that nothing comes from a child, not even an end."""

    def __init__(self) -> None:
        self.child_is_gone = threading.Event()

    def __call__(self, peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(keepalive(0x2000, reply_requested=True))
        while recv_status(peer)[0] != 0x2000:
            pass
        assert self.child_is_gone.wait(PATIENCE)
        peer._socket.setblocking(False)
        try:
            told: object = peer._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            told = None
        assert told is None, f"the child has told the server {told!r}"
        peer._socket.settimeout(PATIENCE)
        peer.send(keepalive(0x3000, reply_requested=True))
        recv_status(peer)
        while peer.recv_message()[0] != b"c":
            pass
        peer.send(builders.copy_done() + ENDED)
        peer.expect_hang_up()


def of_the_parent(use: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=f"expected the process {os.getppid()}, which made this"):
        use()


def quietly_dropped(connection: Any) -> None:
    """What the garbage collector does; a warning would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wire_of(connection).__del__()
        gc.collect()
    assert connection.closed


def used_by_child(connection: pgrepl.Connection, stream: pgrepl.Stream) -> None:
    """As somebody would who does not know that it is another process."""
    for use in (
        lambda: connection.query("SELECT 1", timeout=PATIENCE),
        lambda: connection.send_standby_status(1, 1, 1),
        lambda: connection.receive_wal_messages(PATIENCE),
        lambda: connection.cancel(PATIENCE),
        lambda: stream.ack(0x2000),
        lambda: stream.receive(0),
    ):
        of_the_parent(use)


def left_by_child(connection: pgrepl.Connection, stream: pgrepl.Stream) -> None:
    """As ``with`` blocks do; it is not the stream that ends."""
    descriptor = connection.fileno()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, force=True)
    with connection, stream:
        pass
    assert connection.closed
    with pytest.raises(OSError):
        os.fstat(descriptor)


def locked_for_child(connection: pgrepl.Connection, stream: pgrepl.Stream) -> None:
    """Whatever a thread of the parent held at that moment."""
    held: Any = stream._feedback
    held._lock.acquire()
    transport = transport_of(connection)
    transport._io_lock.acquire()
    transport._reading.acquire()
    used_by_child(connection, stream)
    left_by_child(connection, stream)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "child",
    [
        used_by_child,
        left_by_child,
        locked_for_child,
        lambda connection, _: quietly_dropped(connection),
    ],
    ids=["uses", "leaves", "locked", "drops"],
)
def test_blocking(child: Callable[..., None], tls: bool, certificates: CertificateSet) -> None:
    script = Script()
    context = certificates.server.server_context() if tls else None
    mode = "require" if tls else "disable"
    with (
        ScriptedServer(script, tls=context) as server,
        pgrepl.connect(**address(server, sslmode=mode)) as connection,
        connection.stream("s", publications=["p"]) as stream,
    ):
        assert len(list(stream.receive(PATIENCE))) == 1
        in_child(lambda: child(connection, stream))
        script.child_is_gone.set()
        assert len(list(stream.receive(PATIENCE))) == 1


def now(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that does not wait."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def used_by_async_child(connection: aio.AsyncConnection, stream: AsyncStream) -> None:
    of_the_parent(lambda: stream.ack(0x2000))
    for use in (
        connection.query("SELECT 1", timeout=PATIENCE),
        connection.send_standby_status(1, 1, 1),
        connection.receive_wal_messages(PATIENCE),
        connection.cancel(PATIENCE),
        stream.receive(0),
    ):
        of_the_parent(functools.partial(use.send, None))


def left_by_async_child(connection: aio.AsyncConnection, stream: AsyncStream) -> None:
    async def leave() -> None:
        async with connection, stream:
            pass

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(leave())
    assert connection.closed


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "child",
    [
        used_by_async_child,
        left_by_async_child,
        lambda connection, stream: (now(stream.stop()), now(connection.disconnect())),
        lambda connection, _: quietly_dropped(connection),
    ],
    ids=["uses", "leaves", "stops", "drops"],
)
def test_asyncio(
    child: Callable[..., None], tls: bool, loop: str, certificates: CertificateSet
) -> None:
    script = Script()
    context = certificates.server.server_context() if tls else None
    mode = "require" if tls else "disable"

    async def scenario(server: ScriptedServer) -> None:
        async with (
            aio.connect(**address(server, sslmode=mode)) as connection,
            connection.stream("s", publications=["p"]) as stream,
        ):
            assert len(list(await stream.receive(PATIENCE))) == 1
            in_child(lambda: child(connection, stream))
            script.child_is_gone.set()
            assert len(list(await stream.receive(PATIENCE))) == 1

    with (
        ScriptedServer(script, tls=context) as server,
        asyncio.Runner(loop_factory=loop_factory(loop)) as runner,
    ):
        runner.run(scenario(server))
