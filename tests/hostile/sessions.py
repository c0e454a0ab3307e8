"""Both ends of a session with a scripted server, up to where the hostility begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.errors import UsageError
from tests.support import builders
from tests.support.scripted import Peer, Script, ScriptedServer, handshake

# A guard against a hang for every call that waits; no test comes near it.
PATIENCE = 20

START = "START_REPLICATION SLOT s LOGICAL 0/0"

READY = builders.ready_for_query()
ENDED = builders.command_complete("COPY 0") + builders.command_complete("START_REPLICATION") + READY


def address(server: ScriptedServer, **more: Any) -> dict[str, Any]:
    """Keywords for `connect`, without TLS if nothing else is said."""
    return {
        "host": server.host,
        "port": server.port,
        "user": "ann",
        "dbname": "shop",
        "sslmode": "disable",
        "connect_timeout": PATIENCE,
        **more,
    }


def refused(connect: Callable[..., Any], server: ScriptedServer, **more: Any) -> Exception:
    """The error in which an attempt to connect ends."""
    with pytest.raises(Exception) as caught:
        connect(**address(server, **more)).close()
    return caught.value


def begin_stream(peer: Peer) -> None:
    """The server's side, up to CopyBothResponse."""
    handshake(peer)
    assert peer.recv_query() == START
    peer.send(builders.copy_both_response())


def streams(*steps: bytes | Callable[[Peer], object]) -> Script:
    """A script that begins a stream and then sends bytes, or lets a function talk."""

    def script(peer: Peer) -> None:
        begin_stream(peer)
        for step in steps:
            if isinstance(step, bytes):
                peer.send(step)
            else:
                step(peer)

    return script


def data(position: int, payload: bytes = b"payload") -> bytes:
    """A whole XLogData message."""
    return builders.copy_data(builders.xlog_data(position, position, 0, payload))


def keepalive(position: int, reply_requested: bool = False) -> bytes:
    """A whole keepalive."""
    return builders.copy_data(builders.keepalive(position, 0, reply_requested))


def streaming(connect: Callable[..., Any], server: ScriptedServer) -> Any:
    """A connection on which a stream has begun."""
    connection = connect(**address(server))
    connection.start_streaming(START, timeout=PATIENCE)
    return connection


def receive(connection: Any) -> Any:
    """The next message."""
    return connection.receive_wal_message(timeout=PATIENCE)


def answers_a_query(peer: Peer) -> None:
    """The server's side of `assert_usable`."""
    assert peer.recv_query() == "SELECT 1"
    peer.send(
        builders.row_description("a")
        + builders.data_row("1")
        + builders.command_complete("SELECT 1")
        + READY
    )


def assert_usable(connection: Any) -> None:
    """The next command works."""
    assert not connection.closed
    assert connection.query("SELECT 1", timeout=PATIENCE)[0].rows == [("1",)]


def assert_broken(connection: Any) -> None:
    """The connection is closed, and says so to whoever uses it."""
    assert connection.closed
    assert connection.fileno() == -1
    for use in (
        connection.receive_wal_message,
        connection.receive_wal_messages,
        connection.stop_streaming,
        lambda: connection.send_standby_status(1, 1, 1),
        lambda: connection.query("SELECT 1"),
    ):
        with pytest.raises(UsageError, match="this one is closed"):
            use()
