"""Requests to cancel: by which way they go, and what a server may make of them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import ConnectionFailed, ProtocolError, ServerError, TLSError, UsageError
from tests.hostile.sessions import PATIENCE, address, answers_a_query, assert_usable
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scripted import (
    CANCEL_REQUEST,
    SSL_REQUEST,
    HangUp,
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


def session(peer: Peer) -> None:
    handshake(peer)
    answers_a_query(peer)


def takes_cancel(pid: int = 4711, key: bytes = b"\1\2\3\4", *, tls: bool = False) -> Script:
    """The server's side of a request to cancel, with this key and in this way."""

    def script(peer: Peer) -> None:
        request = peer.recv_startup()
        if tls:
            assert request.code == SSL_REQUEST
            peer.send(b"S")
            peer.start_tls()
            request = peer.recv_startup()
        assert request.code == CANCEL_REQUEST
        assert request.body == struct.pack("!i", pid) + key

    return script


def test_a_request_to_cancel(connect: Connect) -> None:
    with ScriptedServer(session, takes_cancel()) as server:
        with connect(**address(server)) as connection:
            connection.cancel()
            assert_usable(connection)
        assert server.connections == 2


def test_keys_of_up_to_256_bytes(connect: Connect) -> None:
    key = bytes(range(256))

    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(OK + builders.backend_key_data(7, key) + builders.ready_for_query())
        peer.expect_hang_up()

    with (
        ScriptedServer(script, takes_cancel(7, key)) as server,
        connect(**address(server, max_protocol_version="3.2")) as connection,
    ):
        connection.cancel()


@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-full"])
def test_v18_a_request_to_cancel_goes_by_tls_where_the_session_does(
    connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    verified = {"sslrootcert": certificates.ca} if sslmode == "verify-full" else {}
    with ScriptedServer(
        session, takes_cancel(tls=True), tls=certificates.server.server_context()
    ) as server:
        with connect(**address(server, sslmode=sslmode, **verified)) as connection:
            connection.cancel()
            assert_usable(connection)
        assert server.connections == 2


def test_v18_the_key_is_never_sent_in_the_clear_where_the_session_has_tls(
    connect: Connect, certificates: CertificateSet
) -> None:
    """Not under sslmode=prefer either."""

    def has_none(peer: Peer) -> None:
        assert peer.recv_startup().code == SSL_REQUEST
        peer.send(b"N")
        with pytest.raises(HangUp):
            peer.recv_exactly(1)

    def another(peer: Peer) -> None:
        assert peer.recv_startup().code == SSL_REQUEST
        peer.send(b"S")
        with pytest.raises(HangUp):
            peer.start_tls()
            peer.recv_exactly(1)

    tls = certificates.server.server_context()
    with (
        ScriptedServer(session, has_none, tls=tls) as server,
        connect(**address(server, sslmode="prefer")) as connection,
    ):
        with pytest.raises(TLSError, match="does not offer TLS"):
            connection.cancel()
        assert_usable(connection)
    with ScriptedServer(session, another, tls=tls) as server:
        wanted = address(server, sslmode="verify-full", sslrootcert=certificates.ca)
        with connect(**wanted) as connection:
            tls.load_cert_chain(certificates.expired.certificate, certificates.expired.key)
            with pytest.raises(TLSError, match="not acceptable"):
                connection.cancel()
            assert_usable(connection)


def test_v1_bytes_that_are_slipped_in_before_a_request_to_cancel(
    connect: Connect, certificates: CertificateSet
) -> None:
    def slips_in(peer: Peer) -> None:
        assert peer.recv_startup().code == SSL_REQUEST
        peer.send(b"S" + OK)
        with pytest.raises(HangUp):
            peer.recv_exactly(1)

    tls = certificates.server.server_context()
    with (
        ScriptedServer(session, slips_in, tls=tls) as server,
        connect(**address(server, sslmode="require")) as connection,
    ):
        with pytest.raises(TLSError, match="expected nothing before the TLS handshake, got data"):
            connection.cancel()
        assert_usable(connection)


def test_what_a_closed_connection_has_begun(connect: Connect) -> None:
    """The server may be at work all the same."""

    def is_left(peer: Peer) -> None:
        handshake(peer)
        peer.expect_hang_up()

    with ScriptedServer(is_left, takes_cancel()) as server:
        connection = connect(**address(server))
        connection.close()
        connection.cancel()
        assert server.connections == 2


def test_it_goes_to_the_host_that_the_session_is_at(connect: Connect) -> None:

    def starting_up(peer: Peer) -> None:
        negotiate(peer)
        peer.send(STARTING_UP)
        peer.expect_hang_up()

    with ScriptedServer(starting_up) as first, ScriptedServer(session, takes_cancel()) as second:
        hosts = {"host": f"{first.host},{second.host}", "port": f"{first.port},{second.port}"}
        with connect(**{**address(first, sslmode="prefer"), **hosts}) as connection:
            connection.cancel()
            assert_usable(connection)
        assert (first.connections, second.connections) == (1, 2)


def test_a_reset_is_as_good_as_an_end(connect: Connect) -> None:
    def resets(peer: Peer) -> None:
        takes_cancel()(peer)
        peer.reset()

    with ScriptedServer(session, resets) as server, connect(**address(server)) as connection:
        connection.cancel()
        assert_usable(connection)


def test_a_server_that_answers_a_request_to_cancel(connect: Connect) -> None:
    def refuses(peer: Peer) -> None:
        takes_cancel()(peer)
        peer.send(builders.error_response("not here\x1b[2J", sqlstate="08P01", severity="FATAL"))

    def talks(peer: Peer) -> None:
        takes_cancel()(peer)
        peer.send(builders.ready_for_query())

    with (
        ScriptedServer(session, refuses, talks) as server,
        connect(**address(server)) as connection,
    ):
        with pytest.raises(ServerError) as caught:
            connection.cancel()
        assert str(caught.value) == "FATAL 08P01: not here\\x1b[2J"
        with pytest.raises(ProtocolError, match="in answer to the request to cancel"):
            connection.cancel()
        assert_usable(connection)


@pytest.mark.parametrize("by", ["timeout", "connect_timeout"])
def test_a_server_that_takes_no_note(connect: Connect, by: str) -> None:
    def ignores(peer: Peer) -> None:
        takes_cancel()(peer)
        with pytest.raises(HangUp):
            peer.recv_exactly(1)

    with ScriptedServer(session, ignores) as server:
        limit = 1 if by == "connect_timeout" else PATIENCE
        with connect(**address(server, connect_timeout=limit)) as connection:
            with pytest.raises(TimeoutError) as caught:
                connection.cancel(**({"timeout": 0.2} if by == "timeout" else {}))
            assert f"127.0.0.1:{server.port} has not taken note" in str(caught.value)
            assert_usable(connection)


def test_nothing_listens_any_more(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        port = listener.getsockname()[1]

        def serve() -> None:
            connected = listener.accept()[0]
            listener.close()
            connected.settimeout(PATIENCE)
            peer = Peer(connected, None)
            session(peer)
            peer.close()

        served = pool.submit(serve)
        with connect(host="127.0.0.1", port=port, user="ann", sslmode="disable") as connection:
            with pytest.raises(ConnectionFailed, match=f"could not connect to 127.0.0.1:{port}"):
                connection.cancel()
            assert_usable(connection)
        served.result(PATIENCE)


def test_a_server_that_gave_no_key(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(OK + builders.ready_for_query())
        peer.expect_hang_up()

    with ScriptedServer(script) as server, connect(**address(server)) as connection:
        with pytest.raises(UsageError, match="pg_cancel_backend"):
            connection.cancel()
        assert not connection.closed
        assert server.connections == 1
