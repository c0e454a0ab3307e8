"""What a connection is doing, as its repr tells, and what it refuses meanwhile; and for whom it
stays open."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

import pgrepl
from pgrepl import aio
from pgrepl.errors import UsageError
from tests.hostile.decoded import begin_decoded, rows
from tests.hostile.sessions import (
    ENDED,
    PATIENCE,
    READY,
    address,
    answers_a_query,
    assert_usable,
    keepalive,
)
from tests.support import builders
from tests.support.flavours import FEW_FLAVOURS
from tests.support.inside import wire_of
from tests.support.scripted import Peer, ScriptedServer, handshake

Connect = Callable[..., Any]

NO_STREAM: Final = "expected a stream that was started; call start_streaming"
STREAM: Final = "expected no stream to be on; call stop_streaming"
BACKUP: Final = "expected no base backup to be on; read it to its end"
CLOSED: Final = "expected an open connection, this one is closed"

#: In which state a command, reading from the stream and reporting to the server are refused.
REFUSED: Final[dict[str, tuple[str | None, str | None, str | None]]] = {
    "commands": (None, NO_STREAM, NO_STREAM),
    "answering": (None, None, NO_STREAM),
    "streaming": (STREAM, None, None),
    "ended": (None, None, None),
    "stopping": (None, NO_STREAM, NO_STREAM),
    "base backup": (BACKUP, NO_STREAM, NO_STREAM),
    "closed": (CLOSED, CLOSED, CLOSED),
}


def expect_state(connection: Any, state: str) -> None:
    """The connection says that it is in a state, and refuses what that does not allow."""
    wire = wire_of(connection)
    assert repr(wire).endswith(f" pid={connection.pid} {state}>")
    assert wire.state.value == state
    uses: tuple[Callable[[], object], ...] = (
        lambda: connection.query("SELECT 1", timeout=PATIENCE),
        lambda: connection.receive_wal_message(timeout=PATIENCE),
        lambda: connection.send_standby_status(0, 0, 0),
    )
    for use, refusal in zip(uses, REFUSED[state], strict=True):
        if refusal is not None:
            with pytest.raises(UsageError, match=refusal):
                use()
    assert wire.state.value == state


class Script:
    """Goes through all states; what a client waits for in vain comes when it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Semaphore(0)

    def __call__(self, peer: Peer) -> None:
        handshake(peer)
        assert peer.recv_query() == "SELECT 0"
        self._wait()
        peer.send(rows(1, ("0",)) + READY)
        answers_a_query(peer)
        assert peer.recv_query().startswith("START_REPLICATION PHYSICAL")
        self._wait()
        peer.send(builders.copy_both_response() + keepalive(0x2000))
        self._wait()
        peer.send(builders.copy_done())
        while peer.recv_message()[0] != b"c":
            pass
        peer.send(ENDED)
        answers_a_query(peer)
        assert peer.recv_query().startswith("START_REPLICATION PHYSICAL")
        peer.send(builders.copy_both_response())
        while peer.recv_message()[0] != b"c":
            pass
        self._wait()
        peer.send(builders.copy_done() + ENDED)
        answers_a_query(peer)
        assert peer.recv_query().startswith("START_REPLICATION PHYSICAL")
        peer.send(builders.copy_both_response() + builders.error_response("gone"))
        self._wait()
        peer.send(READY)
        answers_a_query(peer)
        assert peer.recv_query().startswith("BASE_BACKUP")
        peer.send(
            rows(2, ("0/2000028", "1"), tag="SELECT")
            + rows(3, (None, None, None), tag="SELECT")
            + builders.copy_out_response()
        )
        peer.expect_hang_up()

    def _wait(self) -> None:
        assert self.go_on.acquire(timeout=PATIENCE)


@pytest.mark.flavours(*FEW_FLAVOURS)
def test_every_state(connect: Connect) -> None:
    script = Script()
    with ScriptedServer(script) as server, connect(**address(server)) as connection:
        expect_state(connection, "commands")
        with pytest.raises(TimeoutError):
            connection.query("SELECT 0", timeout=0)
        expect_state(connection, "answering")
        script.go_on.release()
        assert_usable(connection)
        expect_state(connection, "commands")

        with pytest.raises(TimeoutError):
            connection.start_physical(start=0x1000, timeout=0)
        expect_state(connection, "answering")
        script.go_on.release()
        # It goes on with the start that was cut off.
        assert connection.receive_wal_message(timeout=PATIENCE).wal_end == 0x2000
        expect_state(connection, "streaming")
        script.go_on.release()
        assert connection.receive_wal_message(timeout=PATIENCE) is None
        expect_state(connection, "ended")
        assert_usable(connection)
        expect_state(connection, "commands")

        connection.start_physical(start=0x1000, timeout=PATIENCE)
        with pytest.raises(TimeoutError):
            connection.stop_physical(timeout=0)
        expect_state(connection, "stopping")
        script.go_on.release()
        assert connection.stop_physical(timeout=PATIENCE) is None
        expect_state(connection, "commands")
        assert_usable(connection)

        connection.start_physical(start=0x1000, timeout=PATIENCE)
        with pytest.raises(pgrepl.ServerError, match="gone"):
            connection.receive_wal_message(timeout=PATIENCE)
        expect_state(connection, "answering")
        script.go_on.release()
        assert_usable(connection)

        backup = connection.base_backup(timeout=PATIENCE)
        expect_state(connection, "commands")
        assert isinstance(next(backup), pgrepl.basebackup.BackupStart)
        expect_state(connection, "base backup")
        connection.close()
        expect_state(connection, "closed")
        with pytest.raises(UsageError, match=CLOSED):
            next(backup)


@pytest.mark.flavours(*FEW_FLAVOURS)
def test_what_was_handed_out_goes_with_its_stream(connect: Connect) -> None:
    """What one read brought is given once, and by no stream that has ended."""

    def script(peer: Peer) -> None:
        handshake(peer)
        for _ in range(2):
            peer.recv_query()
            peer.send(
                builders.copy_both_response() + b"".join(keepalive(each) for each in range(1, 6))
            )
            while peer.recv_message()[0] != b"c":
                pass
            peer.send(builders.copy_done() + ENDED)
        peer.expect_hang_up()

    with ScriptedServer(script) as server, connect(**address(server)) as connection:
        connection.start_physical(start=1, timeout=PATIENCE)
        ends = [connection.receive_wal_message(timeout=PATIENCE).wal_end for _ in range(2)]
        while len(ends) < 5:
            ends += [each.wal_end for each in connection.receive_wal_messages(timeout=PATIENCE)]
        assert ends == [1, 2, 3, 4, 5]
        connection.stop_physical(timeout=PATIENCE)
        connection.start_physical(start=1, timeout=PATIENCE)
        assert connection.receive_wal_message(timeout=PATIENCE).wal_end == 1
        connection.stop_physical(timeout=PATIENCE)
        for read in (connection.receive_wal_message, connection.receive_wal_messages):
            with pytest.raises(UsageError, match=NO_STREAM):
                read(timeout=PATIENCE)


def awaited(connection: Any, result: Any) -> Any:
    """What was asked for in either flavour."""
    return connection.wait_for(result) if isinstance(result, Coroutine) else result


def carries(peer: Peer) -> None:
    """Streams until it is stopped, and takes commands and another stream then."""
    begin_decoded(peer)
    peer.send(keepalive(0x2000))
    while peer.recv_message()[0] != b"c":
        pass
    peer.send(builders.copy_done() + ENDED)
    answers_a_query(peer)
    assert peer.recv_query().startswith("START_REPLICATION PHYSICAL")
    peer.send(builders.copy_both_response() + keepalive(0x2000))
    while peer.recv_message()[0] != b"c":
        pass
    peer.send(builders.copy_done() + ENDED)
    peer.expect_hang_up()


@pytest.mark.flavours(*FEW_FLAVOURS)
@pytest.mark.parametrize("raw", [False, True])
def test_what_a_connection_that_carries_a_stream_refuses_costs_it_nothing(
    connect: Connect, raw: bool
) -> None:
    carried = "this connection carries the stream of slot 's': stop\\(\\) it"
    with ScriptedServer(carries) as server, connect(**address(server)) as connection:
        begin = (
            connection.stream_raw("s", timeout=PATIENCE)
            if raw
            else connection.stream("s", publications=["p"], timeout=PATIENCE)
        )
        stream = awaited(connection, begin)
        for command in (connection.identify_system, lambda: connection.query("SELECT 1")):
            with pytest.raises(UsageError) as caught:
                command()
            assert str(caught.value) == (
                "expected no stream to be on, this connection carries the stream of slot 's': "
                "stop() it, or use another connection"
            )
        with pytest.raises(UsageError, match=f"start_streaming\\(\\) began, {carried}"):
            connection.stop_streaming(timeout=PATIENCE)
        assert len(list(awaited(connection, stream.receive(PATIENCE)))) == 1
        awaited(connection, stream.stop())
        assert_usable(connection)
        with pytest.raises(UsageError, match=NO_STREAM):
            connection.stop_streaming(timeout=PATIENCE)
        # The next one may be read by hand again.
        connection.start_physical(start=0x1000, timeout=PATIENCE)
        with pytest.raises(UsageError, match=STREAM):
            connection.query("SELECT 1")
        connection.stop_streaming(timeout=PATIENCE)
        expect_state(connection, "commands")


def outlives(peer: Peer) -> None:
    """Streams to a client that has let its connection go, and sees it closed by nobody."""
    begin_decoded(peer)
    peer.send(keepalive(0x2000))
    while peer.recv_message()[0] != b"c":
        pass
    peer.send(builders.copy_done() + ENDED)
    peer.expect_hang_up()


def forgotten(stream: list[Any]) -> None:
    """Whoever lets the last one go is told, once, and of what."""
    described = repr(wire_of(stream[0]))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        stream.clear()
        gc.collect()
    # The collector may come to the socket first, which tells of itself.
    [told] = [each for each in warned if "pgrepl" in str(each.message)]
    assert issubclass(told.category, ResourceWarning)
    assert str(told.message) == f"{described} was not closed"
    assert repr(told.source) == described.replace("commands", "closed")


def test_a_stream_that_outlives_its_connection() -> None:
    with ScriptedServer(outlives) as server:
        connection = pgrepl.connect(**address(server))
        stream = [connection.stream("s", publications=["p"], timeout=PATIENCE)]
        del connection
        gc.collect()
        assert len(list(stream[0].receive(PATIENCE))) == 1
        stream[0].stop()
        forgotten(stream)


def test_an_asynchronous_stream_that_outlives_its_connection() -> None:
    async def main() -> None:
        connection = await aio.connect(**address(server))
        stream = [await connection.stream("s", publications=["p"], timeout=PATIENCE)]
        del connection
        gc.collect()
        assert len(list(await stream[0].receive(PATIENCE))) == 1
        await stream[0].stop()
        forgotten(stream)
        await asyncio.sleep(0)

    with ScriptedServer(outlives) as server:
        asyncio.run(main())
