"""How a stream ends, by either side, with a server that does not keep to the rules."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.errors import ConnectionFailed, ProtocolError, ServerShutdown, UsageError
from tests.hostile.sessions import (
    ENDED,
    PATIENCE,
    answers_a_query,
    assert_broken,
    assert_usable,
    data,
    keepalive,
    receive,
    streaming,
    streams,
)
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scripted import Peer, ScriptedServer

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]


def test_a_shutdown(connect: Connect) -> None:
    end = keepalive(9, reply_requested=True), builders.command_complete("COPY 0")
    for message in (b"".join(end), b"".join(end) + builders.command_complete("X")):
        with ScriptedServer(streams(data(1) + message)) as server:
            connection = streaming(connect, server)
            assert receive(connection).wal_start == 1
            assert receive(connection).reply_requested is True
            with pytest.raises(ServerShutdown, match="the server shut down.*'COPY 0'") as caught:
                receive(connection)
            assert caught.value.sqlstate == "57P01"
            assert_broken(connection)


def test_a_result_in_place_of_copy_done(connect: Connect) -> None:
    with ScriptedServer(streams(data(1) + ENDED, answers_a_query)) as server:
        connection = streaming(connect, server)
        assert receive(connection).wal_start == 1
        for _ in range(3):
            assert receive(connection) is None
            assert len(connection.receive_wal_messages(timeout=PATIENCE)) == 0
        assert_usable(connection)
        connection.close()


def test_copy_done_with_data_behind_it(connect: Connect) -> None:
    def stops(peer: Peer) -> None:
        peer.expect(b"c")
        peer.send(keepalive(5) + data(6) + builders.notice_response("n") + ENDED)

    script = streams(
        data(1) + builders.copy_done() + keepalive(3) + data(4), stops, answers_a_query
    )
    with ScriptedServer(script) as server:
        connection = streaming(connect, server)
        assert receive(connection).wal_start == 1
        for _ in range(3):
            assert receive(connection) is None
        results = connection.stop_streaming(timeout=PATIENCE)
        assert [result.tag for result in results] == ["COPY 0", "START_REPLICATION"]
        assert_usable(connection)
        connection.close()


def test_a_command_after_copy_done_stops_the_stream_first(connect: Connect) -> None:
    def stops(peer: Peer) -> None:
        peer.expect(b"c")
        peer.send(keepalive(5) + ENDED)

    with ScriptedServer(streams(builders.copy_done(), stops, answers_a_query)) as server:
        connection = streaming(connect, server)
        assert receive(connection) is None
        assert_usable(connection)
        connection.close()


def test_what_comes_while_a_stream_is_stopped_is_thrown_away(connect: Connect) -> None:
    def stops(peer: Peer) -> None:
        peer.expect(b"c")
        for position in range(2000):
            peer.send(data(position) + keepalive(position))
        peer.send(builders.copy_done() + data(7) + ENDED)

    with ScriptedServer(streams(data(1), stops, answers_a_query)) as server:
        connection = streaming(connect, server)
        receive(connection)
        connection.stop_streaming(timeout=PATIENCE)
        with pytest.raises(UsageError, match="call start_streaming"):
            receive(connection)
        assert_usable(connection)
        connection.close()


def test_a_server_that_does_not_stop(connect: Connect) -> None:
    go_on = threading.Event()

    def stops(peer: Peer) -> None:
        peer.expect(b"c")
        peer.send(keepalive(1)[:9])
        go_on.wait(PATIENCE)
        peer.send(keepalive(1)[9:] + builders.copy_done() + ENDED)

    with ScriptedServer(streams(data(1), stops, answers_a_query)) as server:
        connection = streaming(connect, server)
        receive(connection)
        for _ in range(3):
            with pytest.raises(TimeoutError, match="within 0.02 s"):
                connection.stop_streaming(timeout=0.02)
        assert not connection.closed
        go_on.set()
        connection.stop_streaming(timeout=PATIENCE)
        assert_usable(connection)
        connection.close()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", ConnectionFailed),
        (builders.copy_done() + builders.command_complete("COPY 0"), ConnectionFailed),
        (builders.error_response("bye", severity="FATAL", sqlstate="57P01"), ServerShutdown),
        (builders.row_description("a")[:9], ConnectionFailed),
        (builders.authentication(0), ProtocolError),
        (struct.pack("!Bi", ord("d"), 2**31 - 1), ProtocolError),
    ],
    ids=["nothing", "no ReadyForQuery", "an error", "half a message", "nonsense", "a length"],
)
def test_a_server_that_leaves_while_it_should_stop(
    connect: Connect, message: bytes, kind: type[Exception]
) -> None:
    def stops(peer: Peer) -> None:
        peer.expect(b"c")
        peer.send(message)

    with ScriptedServer(streams(data(1), stops)) as server:
        connection = streaming(connect, server)
        receive(connection)
        with pytest.raises(kind) as caught:
            connection.stop_streaming(timeout=PATIENCE)
        assert type(caught.value) is kind
        assert_broken(connection)
