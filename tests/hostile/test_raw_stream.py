"""A raw stream of a scripted server: what it gives, what is reported of it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgrepl import Lsn
from pgrepl.errors import ConnectionFailed, ServerShutdown, UsageError
from tests.hostile.decoded import (
    begin_decoded,
    decoded,
    expect_silence_to_count,
    leave,
    recv_status,
    until_hang_up,
)
from tests.hostile.sessions import (
    PATIENCE,
    address,
    answers_a_query,
    assert_usable,
    data,
    keepalive,
)
from tests.support import builders
from tests.support.scripted import Peer, ScriptedServer

Connect = Callable[..., Any]


def raw_stream_of(connect: Connect, server: ScriptedServer, **options: Any) -> tuple[Any, Any]:
    """A connection and the raw stream on it."""
    connection = connect(**address(server))
    return connection, connection.stream_raw("s", **options)


def test_the_command_has_the_plugins_options_and_no_publication(connect: Connect) -> None:
    commands = []

    def script(peer: Peer) -> None:
        commands.append(begin_decoded(peer))
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection, stream = raw_stream_of(
            connect,
            server,
            options={"include-xids": "0", "bare": None, "it's": "a 'b'"},
            start=Lsn("0/1200"),
        )
        assert stream.start == 0x1200
        leave(connection, stream)
    assert commands == [
        'START_REPLICATION SLOT "s" LOGICAL 0/1200 '
        "(\"include-xids\" '0', \"bare\", \"it's\" 'a ''b''')"
    ]


@pytest.mark.parametrize("options", [{"a": 1}, {1: "a"}, {"a": b"1"}])
def test_options_are_text(connect: Connect, options: Any) -> None:
    with ScriptedServer(decoded(until_hang_up)) as server:
        connection, stream = raw_stream_of(connect, server)
        with pytest.raises(UsageError, match="plugin's options as text"):
            connection.stream_raw("s", options=options)
        leave(connection, stream)


def test_batches_come_with_their_keepalives(connect: Connect) -> None:
    sent = data(0x2000, b"one") + keepalive(0x2008) + data(0x2010, b"two")
    with ScriptedServer(decoded(sent, until_hang_up)) as server:
        connection, stream = raw_stream_of(connect, server)
        payloads, count = b"", 0
        while count < 3:
            batch = stream.receive(timeout=PATIENCE)
            payloads += batch.payloads(b"\n")
            count += len(batch)
        assert (payloads, count) == (b"one\ntwo\n", 3)
        assert stream.stats().delivered == 0x2010
        leave(connection, stream)


def test_iterating_leaves_keepalives_out_and_the_slot_follows_them(connect: Connect) -> None:
    statuses: list[Any] = []

    def script(peer: Peer) -> None:
        begin_decoded(peer)
        peer.send(keepalive(0x1800) + data(0x2000, b"one") + data(0x1F00, b"two"))
        while not statuses or statuses[-1][1] < 0x2000:
            statuses.append(recv_status(peer))
        peer.send(keepalive(0x3000, reply_requested=True) + keepalive(0x3010))
        while statuses[-1][1] < 0x3010:
            statuses.append(recv_status(peer))
        peer.send(data(0x4000, b"three"))
        statuses.extend(until_hang_up(peer))

    with ScriptedServer(script) as server:
        connection, stream = raw_stream_of(connect, server)
        seen = []
        for message in stream:
            seen.append(bytes(message))
            if len(seen) == 3:
                break
            stream.ack(message)
        assert seen == [b"one", b"two", b"three"]
        leave(connection, stream)
    # The one that was not acknowledged holds up everything behind it.
    assert max(flushed for _, flushed, _, _ in statuses) == 0x3010
    assert [flushed for _, flushed, _, _ in statuses] == sorted(f for _, f, _, _ in statuses)


def test_what_is_not_acknowledged_is_not_reported(connect: Connect) -> None:
    statuses: list[Any] = []
    sent = data(0x2000) + keepalive(0x2800, reply_requested=True)
    script = decoded(sent, lambda peer: statuses.append(recv_status(peer)), until_hang_up)
    with ScriptedServer(script) as server:
        connection, stream = raw_stream_of(connect, server)
        while not statuses:
            try:
                stream.receive(timeout=0.05)
            except TimeoutError:
                continue
        leave(connection, stream)
    assert statuses[0][:3] == (0, 0, 0)


def test_an_acknowledgement_counts_as_far_as_something_was_given(connect: Connect) -> None:
    statuses: list[Any] = []
    script = decoded(
        data(0x2000) + keepalive(0x2800), lambda peer: statuses.extend(until_hang_up(peer))
    )
    with ScriptedServer(script) as server:
        connection, stream = raw_stream_of(connect, server)
        while stream.stats().received < 0x2800:
            batch = stream.receive(timeout=PATIENCE)
        stream.ack(Lsn(0x9000), flushed=False, applied=False)
        stream.ack(0x2000, applied=False)
        stream.ack(batch[-1], written=False, flushed=False)
        stream.stop(timeout=0.2)
        assert connection.closed
    assert statuses[-1][:3] == (0x2800, 0x2000, 0x2800)


@pytest.mark.parametrize("nonsense", [None, "0/1", 1.5])
def test_what_cannot_be_acknowledged(connect: Connect, nonsense: Any) -> None:
    with ScriptedServer(decoded(until_hang_up)) as server:
        connection, stream = raw_stream_of(connect, server)
        with pytest.raises(UsageError, match="expected a WalBatch, an XLogData"):
            stream.ack(nonsense)
        leave(connection, stream)


def test_a_time_limit_leaves_the_stream_on(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        recv_status(peer)
        peer.send(data(0x2000, b"late"))
        until_hang_up(peer)

    with ScriptedServer(script) as server:
        connection, stream = raw_stream_of(connect, server, status_interval=0.2)
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                stream.receive(timeout=timeout)
        assert stream.receive(timeout=PATIENCE).payloads() == b"late"
        leave(connection, stream)


def test_silence_counts_for_who_waits_elsewhere(connect: Connect) -> None:
    expect_silence_to_count(raw_stream_of, connect)


def test_the_servers_end_is_an_error_and_the_end(connect: Connect) -> None:
    with ScriptedServer(decoded(data(0x2000) + builders.copy_done(), until_hang_up)) as server:
        connection, stream = raw_stream_of(connect, server)
        with pytest.raises(ConnectionFailed, match="the server ended the stream"):
            for message in stream:
                stream.ack(message)
        assert connection.closed
        with pytest.raises(UsageError, match="this one has ended"):
            stream.ack(0x2000)
        stream.stop()


def test_a_shutdown_is_told(connect: Connect) -> None:
    end = builders.command_complete("COPY 0")
    with ScriptedServer(decoded(end)) as server:
        _, stream = raw_stream_of(connect, server)
        with pytest.raises(ServerShutdown):
            stream.receive(timeout=PATIENCE)


def test_a_stream_that_was_stopped_gives_nothing(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        begin_decoded(peer)
        assert recv_status(peer)[1] == 0
        peer.expect(b"c")
        peer.send(
            builders.copy_done()
            + builders.command_complete("START_REPLICATION")
            + builders.ready_for_query()
        )
        answers_a_query(peer)

    with ScriptedServer(script) as server:
        connection, stream = raw_stream_of(connect, server)
        with stream:
            pass
        assert repr(stream).startswith("<pgrepl.RawStream ended")
        stream.stop()
        assert_usable(connection)
        connection.disconnect()
