"""A scripted server up to where a decoded stream begins: it answers what is asked before that."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.errors import ConnectionFailed
from tests.hostile.sessions import READY, address, data
from tests.support import builders
from tests.support.pgoutput_encoder import encode
from tests.support.scripted import HangUp, Peer, Script, ScriptedServer, handshake

START = 0x1000
"""The slot's confirmed position."""

SLOT = (
    *("s", "pgoutput", "logical", "shop", "f", None, "0/800", "0/1000"),
    *("reserved", "f", "f", None, "f", "f", None),
)


def rows(columns: int, *values: tuple[str | None, ...], tag: str = "SELECT 1") -> bytes:
    """A result of text columns."""
    return (
        builders.row_description(*(f"c{i}" for i in range(columns)))
        + b"".join(builders.data_row(*row) for row in values)
        + builders.command_complete(tag)
    )


def begin_decoded(peer: Peer, timeout: str = "60000") -> str:
    """The server's side up to CopyBothResponse; returns the START_REPLICATION command."""
    handshake(peer)
    while True:
        query = peer.recv_query()
        if query.startswith("START_REPLICATION"):
            peer.send(builders.copy_both_response())
            return query
        if query == "IDENTIFY_SYSTEM":
            peer.send(rows(4, ("7291", "1", "0/FFFFFF", "shop")) + READY)
        elif "pg_replication_slots" in query:
            peer.send(rows(15, SLOT) + rows(1, ("p",)) + rows(1, (timeout,)) + READY)
        else:
            assert "pg_catalog.pg_type" in query, query
            peer.send(rows(13) + READY)


def decoded(*steps: bytes | Callable[[Peer], object], timeout: str = "60000") -> Script:
    """A script that begins a decoded stream and then sends bytes, or lets a function talk."""

    def script(peer: Peer) -> None:
        begin_decoded(peer, timeout)
        for step in steps:
            if isinstance(step, bytes):
                peer.send(step)
            else:
                step(peer)

    return script


def said(message: Any, position: int = 0) -> bytes:
    """A pgoutput message as XLogData."""
    return data(position, encode(message))


def stream_of(connect: Callable[..., Any], server: ScriptedServer, **options: Any) -> Any:
    """A connection and the stream on it."""
    connection = connect(**address(server))
    return connection, connection.stream("s", publications=["p"], **options)


def recv_status(peer: Peer) -> tuple[int, int, int, bool]:
    """The client's next status: written, flushed, applied, and whether it wants an answer."""
    body = peer.expect(b"d")
    tag, written, flushed, applied, _, reply = struct.unpack("!cQQQqB", body)
    assert tag == b"r"
    return written, flushed, applied, bool(reply)


def until_hang_up(peer: Peer) -> list[tuple[int, int, int, bool]]:
    """All statuses up to the end of the connection."""
    statuses = []
    try:
        while True:
            tag, body = peer.recv_message()
            if tag in (b"c", b"X"):
                continue
            assert tag == b"d", (tag, body)
            _, written, flushed, applied, _, reply = struct.unpack("!cQQQqB", body)
            statuses.append((written, flushed, applied, bool(reply)))
    except HangUp:
        return statuses


def leave(connection: Any, stream: Any) -> None:
    """Close the connection under a stream, and end the stream."""
    connection.disconnect()
    stream.stop()


def expect_silence_to_count(
    open_stream: Callable[..., tuple[Any, Any]], connect: Callable[..., Any]
) -> None:
    """A server that says nothing is noticed by who waits elsewhere and looks in with no timeout."""
    asked: list[Any] = []
    with ScriptedServer(decoded(lambda peer: asked.extend(until_hang_up(peer)))) as server:
        connection, stream = open_stream(connect, server, receive_timeout=0.4)
        with pytest.raises(ConnectionFailed, match="not even an answer to a request"):
            while True:
                try:
                    stream.receive(timeout=0)
                except TimeoutError:
                    time.sleep(0.01)
        assert connection.closed
    assert any(reply for _, _, _, reply in asked)
