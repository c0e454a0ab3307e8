"""A server that breaks off, lies or never comes to an end before the session has begun."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgrepl.errors import (
    AuthenticationError,
    AuthenticationRejected,
    ConnectionFailed,
    ProtocolError,
    ServerError,
    ServerShutdown,
)
from tests.hostile.sessions import address, refused
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scram import MECHANISM, ScramServer, WrongProof
from tests.support.scripted import SERVER_PARAMETERS, Peer, Script, ScriptedServer

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]

OK = builders.authentication(0)
READY = builders.ready_for_query()
BEGINNING = (
    b"".join(builders.parameter_status(name, value) for name, value in SERVER_PARAMETERS.items())
    + builders.backend_key_data()
    + READY
)


class Allowance:
    """Sends through a peer until so many bytes are out, and then breaks off."""

    def __init__(self, peer: Peer, size: int) -> None:
        self._peer = peer
        self.left = size

    def send(self, data: bytes) -> bool:
        """Send what is allowed of it; False if that was not all."""
        self._peer.send(data[: self.left])
        whole = len(data) <= self.left
        self.left -= min(len(data), self.left)
        return whole


def trust(peer: Peer, allowance: Allowance) -> None:
    peer.recv_startup()
    allowance.send(OK + BEGINNING)


def scram(peer: Peer, allowance: Allowance) -> None:
    server = ScramServer(b"pencil")
    peer.recv_startup()
    if not allowance.send(builders.sasl_mechanisms(MECHANISM)):
        return
    client_first = peer.expect(b"p").partition(b"\0")[2][4:]
    if not allowance.send(builders.authentication(11, server.first(client_first))):
        return
    final = server.final(peer.expect(b"p"))
    allowance.send(builders.authentication(12, final) + OK + READY)


def breaks_off(
    connect: Connect,
    session: Callable[[Peer, Allowance], None],
    end: Callable[[Peer], None],
    sizes: Iterable[int],
) -> int:
    """Break off after each number of bytes, up to the first that is enough, which is returned."""
    allowances = iter(sizes)
    allowed = 0

    def script(peer: Peer) -> None:
        nonlocal allowed
        allowed = next(allowances)
        allowance = Allowance(peer, allowed)
        session(peer, allowance)
        if allowance.left:
            peer.expect_hang_up()  # all was sent, and the session begins
        else:
            end(peer)

    with ScriptedServer(script) as server:
        while True:
            try:
                connection = connect(**address(server, password="pencil"))
            except ConnectionFailed as error:
                assert "server" in str(error)
                assert "closed the connection" in str(error) or "failed while" in str(error)
            else:
                assert not connection.closed
                connection.close()
                return allowed


@pytest.mark.parametrize("session", [trust, scram])
def test_the_end_of_the_connection_after_every_byte(
    connect: Connect, session: Callable[[Peer, Allowance], None]
) -> None:
    enough = breaks_off(connect, session, Peer.close, itertools.count())
    assert enough > 150, "the whole beginning should be needed"


@pytest.mark.parametrize("session", [trust, scram])
def test_a_reset_after_some_bytes(
    connect: Connect, session: Callable[[Peer, Allowance], None]
) -> None:
    breaks_off(connect, session, Peer.reset, itertools.count(step=7))


def test_what_was_cut_off_is_told(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(OK + BEGINNING[:5])

    with ScriptedServer(script) as server:
        error = refused(connect, server)
    assert isinstance(error, ConnectionFailed)
    assert "in the middle of a message of which 5 bytes had come" in str(error)


def bad_messages(
    connect: Connect, before: bytes, messages: list[bytes], **keywords: Any
) -> list[Exception]:
    """What each of these messages comes to, sent behind `before`; the client must hang up."""
    bad = iter(messages)

    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(before + next(bad))
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        errors = [refused(connect, server, **keywords) for _ in messages]
        assert server.connections == len(messages)
    return errors


LENGTHS = [-(2**31), -1, 0, 1, 2, 3, 65537, 2**30 - 1, 2**30, 2**31 - 1]


@pytest.mark.parametrize("before", [b"", OK], ids=["before authentication", "after it"])
def test_v5_v6_a_length_out_of_range(connect: Connect, before: bytes) -> None:
    cases = list(itertools.product(b"RKSZENvCTDAd", LENGTHS))
    headers = [struct.pack("!Bi", *case) + bytes(8) for case in cases]
    for (tag, length), error in zip(cases, bad_messages(connect, before, headers), strict=True):
        assert type(error) is ProtocolError
        assert f"for message {chr(tag)!r}, got {length} (offset 1)" in str(error)
        assert (error.tag, error.offset) == (bytes((tag,)), 1)


@pytest.mark.parametrize("before", [b"", OK], ids=["before authentication", "after it"])
def test_an_unknown_tag(connect: Connect, before: bytes) -> None:
    tags = [bytes((tag,)) for tag in b"\0\1\x16\x7f\xff HTP/QXpkwx" if tag not in b"HT"]
    errors = bad_messages(connect, before, [tag + bytes(20) for tag in tags])
    for tag, error in zip(tags, errors, strict=True):
        assert type(error) is ProtocolError
        assert "expected the tag of a backend message, got " in str(error)
        assert (error.tag, error.offset) == (tag, 0)


def test_another_protocol_altogether(connect: Connect) -> None:
    for greeting in (
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x4a\0\0\0",
    ):
        (error,) = bad_messages(connect, b"", [greeting])
        assert type(error) is ProtocolError
        assert "expected " in str(error)
        assert "got " in str(error)


@pytest.mark.parametrize("before", [b"", OK], ids=["before authentication", "after it"])
def test_messages_that_have_no_place_here(connect: Connect, before: bytes) -> None:
    messages = [
        builders.row_description("a"),
        builders.data_row("1"),
        builders.command_complete("SELECT 1"),
        builders.copy_both_response(),
        builders.copy_data(builders.keepalive(1)),
        builders.copy_done(),
        builders.empty_query_response(),
    ]
    for message, error in zip(messages, bad_messages(connect, before, messages), strict=True):
        assert type(error) is ProtocolError
        assert f"got message {message[:1]!r} of {len(message) - 5} bytes" in str(error)


def test_a_negotiation_that_nobody_asked_for(connect: Connect) -> None:
    versions = [0x30000, 0x30001, 0x30002, 0x20000, 0x40000, -1]
    messages = [builders.negotiate_protocol_version(version) for version in versions]
    for error in bad_messages(connect, b"", messages):
        assert type(error) is ProtocolError
        assert "while the version of the protocol was negotiated: expected a version" in str(error)
    (error,) = bad_messages(connect, OK, messages[:1])
    assert "got message b'v' of 8 bytes" in str(error)


def test_v6_fields_that_are_cut_off(connect: Connect) -> None:
    whole = [
        OK,
        builders.authentication(5, b"salt"),
        builders.sasl_mechanisms(MECHANISM),
        builders.error_response("no", detail="d"),
        builders.notice_response("n"),
    ]
    setting = builders.parameter_status("name", "value")
    for before, all_of_them in ((b"", whole), (OK, [setting])):
        cut = [
            builders.message(each[:1], each[5:size])
            for each in all_of_them
            for size in range(5, len(each))
        ]
        for error in bad_messages(connect, before, cut, password="pencil"):
            assert type(error) is ProtocolError
            assert "in message b" in str(error)
            assert "got its end after" in str(error)


def test_v7_an_error_that_is_too_long(connect: Connect) -> None:
    whole = builders.error_response("x" * 29_000, severity="FATAL", sqlstate="53300")
    (error,) = bad_messages(connect, b"", [whole])
    assert type(error) is ServerError
    (error,) = bad_messages(connect, b"", [builders.error_response("x" * 70_000)])
    assert type(error) is ProtocolError
    assert "expected a length between 4 and 65536 for message 'E', got 70" in str(error)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (b"", builders.notice_response("still here", severity="DEBUG1")),
        (OK, builders.notice_response("still here", severity="DEBUG1")),
        (OK, builders.parameter_status("TimeZone", "UTC")),
        (OK, builders.notification_response("channel")),
    ],
    ids=["notices at first", "notices", "settings", "notifications"],
)
def test_v7_a_beginning_without_end(connect: Connect, message: bytes, before: bytes) -> None:
    sent = 0

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.recv_startup()
        peer.send(before)
        while True:  # until the client hangs up
            peer.send(message * 100)
            sent += 100

    with ScriptedServer(script) as server:
        error = refused(connect, server)
        assert server.connections == 1
    assert server.hang_ups == 1
    assert type(error) is ProtocolError
    assert "expected at most 1000 messages before the server is ready, got more" in str(error)
    assert sent >= 900


def test_a_server_that_sends_just_enough_to_seem_alive(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send_slowly(builders.notice_response("one moment please") * 100, 10, 0.02)

    with ScriptedServer(script) as server:
        error = refused(connect, server, connect_timeout=1)
    assert server.hang_ups == 1
    assert type(error) is ConnectionFailed
    assert f"no connection to 127.0.0.1:{server.port} within connect_timeout, 1.0 s" in str(error)


def falls_silent(*messages: bytes) -> Script:
    def script(peer: Peer) -> None:
        for message in messages:
            peer.send(message)
        # Whatever the client still says is heard, and never answered.
        while peer.recv_exactly(1):
            pass

    return script


def test_silence(connect: Connect) -> None:
    cleartext = builders.authentication(3)
    scripts = {
        "from the start": falls_silent(),
        "in a header": falls_silent(OK[:3]),
        "after AuthenticationOk": falls_silent(OK),
        "before the last byte": falls_silent(OK, BEGINNING[:-1]),
        "in SCRAM": falls_silent(builders.sasl_mechanisms(MECHANISM)),
        "after the password": falls_silent(cleartext),
        "in the answer to it": falls_silent(cleartext, OK[:5]),
    }

    def attempt(script: Script) -> Exception:
        with ScriptedServer(script) as server:
            error = refused(connect, server, connect_timeout=1, password="pencil")
        assert server.hang_ups == 1
        return error

    with ThreadPoolExecutor(len(scripts)) as pool:
        errors = dict(zip(scripts, pool.map(attempt, scripts.values()), strict=True))
    for where, error in errors.items():
        assert type(error) is ConnectionFailed, where
        assert "within connect_timeout, 1.0 s" in str(error)


# What a server may say, and what it may not ask for


def test_the_server_turns_the_session_away(connect: Connect) -> None:
    for sqlstate, kind in (
        ("53300", ServerError),
        ("57P03", ServerError),
        ("57P01", ServerShutdown),
        ("3D000", ServerError),
        ("28000", AuthenticationRejected),
        ("28P01", AuthenticationRejected),
    ):
        for before in (b"", OK, OK + builders.backend_key_data()):
            message = builders.error_response("no\x1b[2J", severity="FATAL", sqlstate=sqlstate)
            (error,) = bad_messages(connect, before, [message])
            assert type(error) is kind
            assert str(error) == f"FATAL {sqlstate}: no\\x1b[2J"


def test_a_wrong_password(connect: Connect) -> None:
    rejected = builders.error_response("wrong password", severity="FATAL", sqlstate="28P01")

    def script(peer: Peer) -> None:
        exchange = ScramServer(b"another")
        peer.recv_startup()
        peer.send(builders.sasl_mechanisms(MECHANISM))
        first = exchange.first(peer.expect(b"p").partition(b"\0")[2][4:])
        peer.send(builders.authentication(11, first))
        with pytest.raises(WrongProof):
            exchange.final(peer.expect(b"p"))
        peer.send(rejected)
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        error = refused(connect, server, password="pencil")
    assert type(error) is AuthenticationRejected
    assert str(error) == "FATAL 28P01: wrong password"


def test_v22_authentication_ok_in_the_middle_of_scram(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        exchange = ScramServer(b"whatever")
        peer.recv_startup()
        peer.send(builders.sasl_mechanisms(MECHANISM))
        first = exchange.first(peer.expect(b"p").partition(b"\0")[2][4:])
        peer.send(builders.authentication(11, first))
        peer.expect(b"p")
        peer.send(OK + BEGINNING)
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        error = refused(connect, server, password="pencil")
    assert type(error) is AuthenticationError
    assert "the server must prove that it knows the password before it is trusted" in str(error)


def test_v12_a_method_that_is_not_supported(connect: Connect) -> None:
    for code, name in ((9, "SSPI"), (2, "Kerberos 5"), (77, "number 77")):
        (error,) = bad_messages(connect, b"", [builders.authentication(code)])
        assert type(error) is AuthenticationError
        assert f"got method {name}, which pgrepl does not support" in str(error)


def test_no_password_is_sent_that_nobody_gave(connect: Connect) -> None:
    for request in (builders.authentication(3), builders.authentication(5, b"salt")):
        (error,) = bad_messages(connect, b"", [request])
        assert type(error) is AuthenticationError
        assert "none was given" in str(error)


def test_text_in_another_encoding(connect: Connect) -> None:
    """Where there is no SQL to say it with."""
    latin = OK + builders.parameter_status("client_encoding", "LATIN1")
    (error,) = bad_messages(connect, latin, [READY], replication="physical")
    assert type(error) is ProtocolError
    assert "expected client_encoding UTF8 as requested, got 'LATIN1'" in str(error)


# Nobody there


def test_nothing_listens(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=f"could not connect to 127.0.0.1:{port}: .*refused"):
        connect(host="127.0.0.1", port=port, user="ann", connect_timeout=20)


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".invalid", "no-such-host.invalid"])
def test_a_host_that_does_not_exist(connect: Connect, host: str) -> None:
    with pytest.raises(ConnectionFailed, match=f"could not find the address of host '{host}'"):
        connect(host=host, user="ann", connect_timeout=20)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_a_socket_that_does_not_exist(connect: Connect) -> None:
    with pytest.raises(ConnectionFailed, match=r"the socket /no-such-folder/.s.PGSQL.5433"):
        connect(host="/no-such-folder", port=5433, user="ann")
