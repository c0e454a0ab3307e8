"""A server that lies, breaks off or falls silent while it streams."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.errors import (
    ConnectionFailed,
    ProtocolError,
    ServerError,
    ServerShutdown,
    UsageError,
)
from tests.hostile.sessions import (
    ENDED,
    PATIENCE,
    READY,
    START,
    address,
    answers_a_query,
    assert_broken,
    assert_usable,
    begin_stream,
    data,
    keepalive,
    receive,
    streaming,
    streams,
)
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scripted import Peer, ScriptedServer, handshake

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]


# Bytes that break the protocol


def fault_in_stream(connect: Connect, bad: bytes) -> ProtocolError:
    """The error that `bad` comes to, when the message ahead of it was delivered."""
    with ScriptedServer(streams(data(1) + bad, Peer.expect_hang_up)) as server:
        connection = streaming(connect, server)
        assert receive(connection).wal_start == 1
        with pytest.raises(ProtocolError) as caught:
            receive(connection)
        assert_broken(connection)
    assert type(caught.value) is ProtocolError
    return caught.value


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 1, 2, 3, 2**30, 2**31 - 1])
def test_v5_v6_a_length_out_of_range(connect: Connect, length: int) -> None:
    for tag in b"dEcCZ":
        error = fault_in_stream(connect, struct.pack("!Bi", tag, length))
        assert f"for message {chr(tag)!r}, got {length} (offset 1)" in str(error)
        assert (error.tag, error.offset) == (bytes((tag,)), 1)


@pytest.mark.parametrize("tag", [b"\0", b"X", b"w", b"k", b"\xff"])
def test_an_unknown_tag(connect: Connect, tag: bytes) -> None:
    error = fault_in_stream(connect, tag)
    assert "expected the tag of a backend message, got " in str(error)
    assert (error.tag, error.offset) == (tag, 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "in a CopyData message, got an empty one"),
        (b"x" * 40, "expected 'w' (XLogData) or 'k' (keepalive) in a CopyData message, got 'x'"),
        (b"s" + bytes(32), "expected 'w' (XLogData) or 'k' (keepalive)"),
        (b"w" + bytes(23), "expected an XLogData message of at least 25 bytes, got 24"),
        (b"k" + bytes(16), "expected a keepalive of 18 bytes, got 17"),
        (b"k" + bytes(18), "expected a keepalive of 18 bytes, got 19"),
    ],
)
def test_copy_data_that_is_no_message(connect: Connect, body: bytes, words: str) -> None:
    error = fault_in_stream(connect, builders.copy_data(body))
    assert words in str(error)
    assert error.offset == 0


@pytest.mark.parametrize(
    "message",
    [
        READY,
        builders.row_description("a"),
        builders.data_row("1"),
        builders.copy_both_response(),
        builders.copy_in_response(),
        builders.copy_out_response(),
        builders.authentication(0),
        builders.backend_key_data(),
        builders.empty_query_response(),
        builders.negotiate_protocol_version(),
    ],
    ids=lambda message: repr(message[:1]),
)
def test_messages_that_have_no_place_in_a_stream(connect: Connect, message: bytes) -> None:
    error = fault_in_stream(connect, message)
    assert "expected a message of the replication stream, got message" in str(error)
    assert error.tag == message[:1]


@pytest.mark.parametrize(
    "message",
    [
        builders.message(b"E", b"SERROR"),
        builders.message(b"E", b"SERROR\0"),
        builders.message(b"N", b"M\0"),
        builders.message(b"S", b"name\0"),
        builders.message(b"c", b"x"),
        builders.message(b"C", b"COPY 0"),
        builders.message(b"C", b"COPY 0\0x"),
    ],
    ids=repr,
)
def test_messages_that_are_cut_off_or_too_long(connect: Connect, message: bytes) -> None:
    error = fault_in_stream(connect, message)
    assert f"message {message[:1]!r}, got" in str(error)


def test_the_fault_is_told_by_batches_too(connect: Connect) -> None:
    with ScriptedServer(streams(data(1) + data(2) + b"X", Peer.expect_hang_up)) as server:
        connection = streaming(connect, server)
        starts: list[int] = []
        with pytest.raises(ProtocolError, match="got 'X'"):
            while True:
                batch = connection.receive_wal_messages(timeout=PATIENCE)
                assert len(batch) > 0
                starts += batch.wal_start
        assert starts == [1, 2]
        assert_broken(connection)


# The end of the connection


def test_the_end_of_the_connection_after_every_byte(connect: Connect) -> None:
    sent = data(1) + keepalive(2) + builders.error_response("no", severity="FATAL")
    ends = [len(data(1)), len(data(1)) + len(keepalive(2)), len(sent)]
    size = 0

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(sent[:size])

    with ScriptedServer(script) as server:
        for size in range(len(sent) + 1):
            connection = streaming(connect, server)
            for _ in range(sum(end <= size for end in ends[:2])):
                assert receive(connection) is not None
            kind = ServerError if size == len(sent) else ConnectionFailed
            with pytest.raises(kind) as caught:
                receive(connection)
            if kind is ConnectionFailed:
                left = size - max([0, *(end for end in ends if end <= size)])
                told = f"in the middle of a message of which {left} bytes had come"
                assert (told in str(caught.value)) == (left > 0)
                assert "the server closed the connection" in str(caught.value)
            assert_broken(connection)


def test_a_reset(connect: Connect) -> None:
    delivered = threading.Event()

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(data(1) + keepalive(2)[:7])
        delivered.wait(PATIENCE)  # a reset also discards what the client has not read
        peer.reset()

    with ScriptedServer(script) as server:
        connection = streaming(connect, server)
        assert receive(connection).wal_start == 1
        delivered.set()
        with pytest.raises(ConnectionFailed, match="failed while receiving|closed the connection"):
            receive(connection)
        assert_broken(connection)


def test_a_status_into_a_reset_connection(connect: Connect) -> None:
    reset = threading.Event()

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(data(1))
        peer.expect(b"d")
        peer.reset()
        reset.set()

    with ScriptedServer(script) as server:
        connection = streaming(connect, server)
        receive(connection)
        connection.send_standby_status(1, 1, 1)
        assert reset.wait(PATIENCE)
        with pytest.raises(ConnectionFailed, match="failed while sending"):
            for _ in range(1000):
                connection.send_standby_status(1, 1, 1)
        connection.close()


def test_the_last_words_of_a_server_that_no_longer_listens(connect: Connect) -> None:
    """What it said before it closed is told, though a status can no longer be sent."""
    closed = threading.Event()

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(data(1) + builders.error_response("bye", severity="FATAL", sqlstate="57P01"))
        peer.close()
        closed.set()

    with ScriptedServer(script) as server:
        connection = streaming(connect, server)
        assert receive(connection).wal_start == 1
        assert closed.wait(PATIENCE)
        for _ in range(3):
            try:
                connection.send_standby_status(1, 1, 1)
            except ConnectionFailed:
                break
        with pytest.raises(ServerShutdown, match="FATAL 57P01: bye"):
            receive(connection)
        assert_broken(connection)


# Errors


@pytest.mark.parametrize("ahead", [b"", data(1)], ids=["at once", "after data"])
def test_an_error_and_then_the_next_command(connect: Connect, ahead: bytes) -> None:
    error = builders.error_response("canceled", sqlstate="57014")
    late = keepalive(5) + builders.command_complete("COPY 0")
    with ScriptedServer(streams(ahead + error + late + READY, answers_a_query)) as server:
        connection = streaming(connect, server)
        if ahead:
            receive(connection)
        with pytest.raises(ServerError, match="ERROR 57014: canceled"):
            receive(connection)
        with pytest.raises(UsageError, match="call start_streaming"):
            receive(connection)
        assert_usable(connection)
        connection.close()


def test_an_error_and_then_silence(connect: Connect) -> None:
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(builders.error_response("canceled", sqlstate="57014"))
        go_on.wait(PATIENCE)
        peer.send(READY)
        answers_a_query(peer)

    with ScriptedServer(script) as server:
        connection = streaming(connect, server)
        with pytest.raises(ServerError, match="canceled"):
            receive(connection)  # at once, with nothing behind it
        with pytest.raises(TimeoutError, match="within 0.05 s"):
            connection.query("SELECT 1", timeout=0.05)
        go_on.set()
        assert_usable(connection)
        connection.close()


@pytest.mark.parametrize("behind", [b"", READY], ids=["silence", "ready"])
@pytest.mark.parametrize("severity", ["FATAL", "PANIC", "", "FEHLER"])
def test_an_error_that_ends_the_session(connect: Connect, severity: str, behind: bytes) -> None:
    fatal = builders.error_response("the end", severity=severity, sqlstate="XX000")
    with ScriptedServer(streams(data(1) + fatal + behind, Peer.expect_hang_up)) as server:
        connection = streaming(connect, server)
        receive(connection)
        with pytest.raises(ServerError, match="XX000: the end"):
            receive(connection)
        assert_broken(connection)


def test_no_ready_for_query_after_an_error(connect: Connect) -> None:
    with ScriptedServer(streams(builders.error_response("canceled"))) as server:
        connection = streaming(connect, server)
        with pytest.raises(ServerError, match="canceled"):
            receive(connection)
        with pytest.raises(ConnectionFailed, match="the server closed the connection"):
            connection.query("SELECT 1", timeout=PATIENCE)
        assert_broken(connection)


# What may come at any time, and in any pieces


def test_notices_and_settings_in_a_stream(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    warning = builders.notice_response("no publication", severity="WARNING", sqlstate="01000")
    setting = builders.parameter_status("TimeZone", "Europe/Oslo")
    between = warning + setting + builders.notification_response("channel", "payload")
    with ScriptedServer(streams(between + data(1) + between + data(2) + ENDED)) as server:
        connection = streaming(connect, server)
        with caplog.at_level(logging.DEBUG):
            assert [receive(connection).wal_start for _ in range(2)] == [1, 2]
            assert receive(connection) is None
        assert connection.parameters["TimeZone"] == "Europe/Oslo"
        connection.close()
    assert [(each.name, each.levelname, each.getMessage()) for each in caplog.records] == [
        ("pgrepl.notice", "WARNING", "WARNING 01000: 'no publication'")
    ] * 2


def test_one_byte_at_a_time(connect: Connect) -> None:
    sent = b"".join(data(i, bytes((i,)) * (i * 7)) + keepalive(i) for i in range(20)) + ENDED
    with ScriptedServer(streams(lambda peer: peer.send_slowly(sent, 1, 0))) as server:
        connection = streaming(connect, server)
        got = []
        while (message := receive(connection)) is not None:
            got.append(bytes(message) if hasattr(message, "data") else message.wal_end)
        assert got == [each for i in range(20) for each in (bytes((i,)) * (i * 7), i)]
        connection.close()


def test_a_claim_that_is_never_kept(connect: Connect) -> None:
    done = threading.Event()
    claim = builders.message(b"d", b"w" + bytes(5000), length=2**30 - 1)
    with ScriptedServer(streams(data(1) + claim, lambda peer: done.wait(PATIENCE))) as server:
        connection = streaming(connect, server)
        receive(connection)
        for _ in range(3):
            with pytest.raises(TimeoutError, match="within 0.02 s"):
                connection.receive_wal_message(timeout=0.02)
        assert not connection.closed
        connection.close()
        done.set()


def test_a_stream_of_nothing_but_notices_takes_no_memory(connect: Connect) -> None:
    notice = builders.notice_response("again", severity="DEBUG1")
    setting = builders.parameter_status("TimeZone", "UTC")
    with ScriptedServer(streams((notice + setting) * 20_000, data(1))) as server:
        connection = streaming(connect, server)
        assert receive(connection).wal_start == 1
        assert len(connection.parameters) < 20
        connection.close()


# Lies in the answer to a command


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            builders.row_description("a", "b") + builders.data_row("1"),
            "expected a row of 2 columns as described, got 1",
        ),
        (builders.data_row("1"), "expected RowDescription before the first row"),
        (
            builders.row_description("a") + builders.message(b"D", b"\0\1\xff\xff\xff\xfe"),
            "expected a column length of 0 or more, or -1 for NULL, got -2",
        ),
        (
            builders.row_description("a") + builders.message(b"D", b"\0\1\x7f\xff\xff\xff1"),
            "expected a field of 2147483647 bytes",
        ),
        (builders.message(b"T", b"\x7f\xff"), "expected a zero-terminated string in message b'T'"),
        (builders.message(b"T", b"\x80\0"), "expected a number of columns, got -32768"),
        (builders.copy_data(b"x"), "expected the answer to a query, got message b'd'"),
        (struct.pack("!Bi", ord("D"), -5), "for message 'D', got -5"),
        (b"?", "expected the tag of a backend message, got '?'"),
    ],
)
def test_an_answer_that_makes_no_sense(connect: Connect, answer: bytes, words: str) -> None:
    def script(peer: Peer) -> None:
        handshake(peer)
        peer.recv_query()
        peer.send(answer)
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        connection = connect(**address(server))
        with pytest.raises(ProtocolError) as caught:
            connection.query("SELECT 1", timeout=PATIENCE)
        assert words in str(caught.value)
        assert_broken(connection)


def test_a_stream_that_does_not_begin(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        handshake(peer)
        assert peer.recv_query() == START
        peer.send(builders.error_response("no slot", sqlstate="42704") + READY)
        answers_a_query(peer)
        assert peer.recv_query() == START
        peer.send(builders.message(b"W", b"\0\0\1"))
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        connection = connect(**address(server))
        with pytest.raises(ServerError, match="no slot"):
            connection.start_streaming(START, timeout=PATIENCE)
        assert_usable(connection)
        with pytest.raises(ProtocolError, match="a field of 2 bytes in message b'W'"):
            connection.start_streaming(START, timeout=PATIENCE)
        assert_broken(connection)
