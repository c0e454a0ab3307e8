"""Making a connection, and cancelling, where servers lie: what one of them does is no help to the
next, and none costs more than an error."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import (
    AuthenticationRejected,
    ConnectionFailed,
    Error,
    TLSError,
)
from tests.hostile.sessions import PATIENCE, address, answers_a_query, assert_usable, refused
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.inside import transport_of, wire_of
from tests.support.scram import MECHANISM
from tests.support.scripted import (
    SERVER_PARAMETERS,
    Peer,
    Script,
    ScriptedServer,
    handshake,
    negotiate,
)

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]

OK = builders.authentication(0)
STARTING_UP = builders.error_response("starting up", sqlstate="57P03", severity="FATAL")
REJECTED = builders.error_response("go away", sqlstate="28000", severity="FATAL")


def both(first: ScriptedServer, second: ScriptedServer, **more: Any) -> dict[str, Any]:
    """Keywords for `connect`: two hosts, in this order."""
    hosts = {"host": f"{first.host},{second.host}", "port": f"{first.port},{second.port}"}
    return address(first, **{**hosts, **more})


def session(peer: Peer) -> None:
    handshake(peer)
    answers_a_query(peer)


def says(*messages: bytes) -> Script:
    """A script that sends messages after the start of the session, and is hung up on."""

    def script(peer: Peer) -> None:
        negotiate(peer)
        for message in messages:
            peer.send(message)
        peer.expect_hang_up()

    return script


# One attempt knows nothing of another


def test_v13_nothing_of_one_host_is_known_to_the_next(connect: Connect) -> None:
    """All state of authentication and of the session is fresh for each attempt."""
    first = says(
        OK,
        builders.parameter_status("server_version", "6.6.6"),
        builders.parameter_status("planted", "by the first"),
        builders.backend_key_data(666, b"evil"),
        STARTING_UP + b"R\0\0",
    )
    with ScriptedServer(first) as wrong, ScriptedServer(session) as right:
        with connect(**both(wrong, right)) as connection:
            assert connection.parameters == SERVER_PARAMETERS
            assert connection.pid == 4711
            assert wire_of(connection).server.cancel_key == b"\1\2\3\4"
            assert_usable(connection)
        assert (wrong.connections, right.connections) == (1, 1)


def test_v13_half_an_authentication_is_forgotten(connect: Connect) -> None:
    def first(peer: Peer) -> None:
        negotiate(peer)
        peer.send(builders.sasl_mechanisms(MECHANISM))
        peer.expect(b"p")
        peer.send(STARTING_UP)
        peer.expect_hang_up()

    def second(peer: Peer) -> None:
        negotiate(peer)
        # What would go on where the first one stopped.
        peer.send(builders.authentication(12, b"v=AAAA") + OK)
        peer.expect_hang_up()

    with (
        ScriptedServer(first) as one,
        ScriptedServer(second) as other,
        pytest.raises(Error, match="expected"),
    ):
        connect(**both(one, other, password="pencil"))


def test_v13_tls_with_one_host_is_no_tls_with_the_next(
    connect: Connect, certificates: CertificateSet
) -> None:
    context = certificates.server.server_context()
    with (
        ScriptedServer(says(STARTING_UP), tls=context) as with_tls,
        ScriptedServer(session) as without,
    ):
        with connect(**both(with_tls, without, sslmode="prefer")) as connection:
            assert not transport_of(connection).has_tls
            assert_usable(connection)
        assert (with_tls.connections, without.connections) == (1, 1)
        with pytest.raises(TLSError, match="does not offer TLS"):
            connect(**both(with_tls, without, sslmode="require"))


def test_v13_bytes_that_came_too_early_are_forgotten(connect: Connect) -> None:
    """What is left in the buffer of an attempt goes with it."""

    def first(peer: Peer) -> None:
        negotiate(peer)
        peer.send(STARTING_UP + OK + builders.ready_for_query() * 100)
        peer.expect_hang_up()

    with (
        ScriptedServer(first) as wrong,
        ScriptedServer(session) as right,
        connect(**both(wrong, right)) as connection,
    ):
        assert_usable(connection)


def test_a_rejection_ends_the_search_and_tells_what_was_before(connect: Connect) -> None:
    with ScriptedServer(says(STARTING_UP)) as one, ScriptedServer(says(REJECTED)) as other:
        with pytest.raises(AuthenticationRejected) as caught:
            connect(**both(one, other))
        [note] = caught.value.__notes__
        assert f"127.0.0.1:{one.port}: FATAL 57P03: starting up" in note


# What a server may cost before the session has begun


def flood(*messages: bytes) -> Script:
    """A script that goes on until it is hung up on."""

    def script(peer: Peer) -> None:
        negotiate(peer)
        for message in itertools.cycle(messages):
            peer.send(message)

    return script


def trickle(data: bytes) -> Script:
    def script(peer: Peer) -> None:
        negotiate(peer)
        for byte in itertools.cycle(data):
            peer.send(bytes((byte,)))

    return script


def settings_without_end(peer: Peer) -> None:
    negotiate(peer)
    peer.send(OK)
    for number in itertools.count():
        peer.send(builders.parameter_status(f"name{number}", "x" * 60_000))


def rows_without_end(peer: Peer) -> None:
    settings = {**SERVER_PARAMETERS}
    del settings["in_hot_standby"]
    handshake(peer, parameters=settings)
    peer.recv_query()
    peer.send(builders.row_description("a"))
    while True:
        peer.send(builders.data_row("x" * 60_000))


LARGE_NOTICE = builders.notice_response("x" * 20_000, severity="DEBUG1")

GREEDY: dict[str, Script] = {
    "large notices": flood(LARGE_NOTICE),
    "large notices after authentication": lambda peer: (
        negotiate(peer),
        peer.send(OK),
        [peer.send(LARGE_NOTICE) for _ in itertools.repeat(None)],
    ),
    "settings": settings_without_end,
    "rows": rows_without_end,
    "small notices, byte by byte": trickle(builders.notice_response("x", severity="DEBUG1")),
    "negotiations": flood(builders.negotiate_protocol_version()),
    "authentications": flood(OK),
    "one message that is claimed to be long": flood(struct.pack("!ci", b"N", 2**29) + bytes(9999)),
    "one message that is as long as is allowed": flood(struct.pack("!ci", b"E", 30_000)),
    "silence": lambda peer: (negotiate(peer), peer.expect_hang_up()),
    "silence from the start": lambda peer: (peer.recv_startup(), peer.expect_hang_up()),
}


@contextlib.contextmanager
def memory_within(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[1] - before < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", GREEDY)
def test_v7_what_a_server_costs_at_most(connect: Connect, name: str) -> None:
    """Memory below 16 MiB, and an end: of what may come, or of connect_timeout."""
    with ScriptedServer(GREEDY[name]) as server, memory_within(16 << 20):
        error = refused(
            connect,
            server,
            connect_timeout=2 if "silence" in name else PATIENCE,
            target_session_attrs="primary" if name == "rows" else "any",
        )
        assert server.connections == 1
    assert isinstance(error, Error)
    assert isinstance(error, ConnectionFailed) == ("silence" in name)


def test_once_the_session_has_begun_messages_may_be_long(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        handshake(peer)
        peer.recv_query()
        peer.send(
            builders.row_description("a")
            + builders.data_row("x" * 200_000)
            + builders.command_complete("SELECT 1")
            + builders.ready_for_query()
        )

    with ScriptedServer(script) as server, connect(**address(server)) as connection:
        [result] = connection.query("SELECT repeat('x', 200000)", timeout=PATIENCE)
        assert result.rows == [("x" * 200_000,)]


def test_the_question_what_session_it_is_has_the_time_limit_too(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        handshake(peer, parameters={"server_version": "13.0"})
        assert peer.recv_query() == "SHOW transaction_read_only"
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        error = refused(connect, server, connect_timeout=1, target_session_attrs="read-write")
    assert "within connect_timeout, 1.0 s" in str(error)


def test_an_old_server_is_asked_and_may_be_passed_over(connect: Connect) -> None:
    def old(answer: str) -> Script:
        def script(peer: Peer) -> None:
            handshake(peer, parameters={"server_version": "13.0"})
            assert peer.recv_query() == "SELECT pg_catalog.pg_is_in_recovery()"
            peer.send(
                builders.row_description("a")
                + builders.data_row(answer)
                + builders.command_complete("SELECT 1")
                + builders.ready_for_query()
            )
            if answer == "f":
                answers_a_query(peer)
            peer.expect_hang_up()

        return script

    with ScriptedServer(old("t")) as standby, ScriptedServer(old("f")) as primary:
        with connect(**both(standby, primary, target_session_attrs="primary")) as connection:
            assert_usable(connection)
        assert (standby.connections, primary.connections) == (1, 1)


def test_a_resolver_that_never_answers(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """connect_timeout is for the look-up of a name as well."""
    answered = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host != "slow.example":
            return real(host, *arguments, **keywords)
        if not keywords.get("flags"):
            answered.wait(3)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectionFailed) as caught:
        connect(host="slow.example", user="ann", connect_timeout=1)
    assert str(caught.value) == (
        "could not find the address of host 'slow.example': no answer within connect_timeout, 1.0 s"
    )
    answered.set()
    for thread in threading.enumerate():
        if "slow.example" in thread.name:
            thread.join(PATIENCE)
