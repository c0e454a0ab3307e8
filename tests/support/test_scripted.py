"""The scripted server against a client that was written by somebody else: psycopg, on libpq."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support import builders
from tests.support.builders import ColumnDescription
from tests.support.certificates import CertificateSet
from tests.support.scripted import (
    CANCEL_REQUEST,
    PROTOCOL_3_0,
    SSL_REQUEST,
    Peer,
    ScriptedServer,
    handshake,
    negotiate,
)


def connect(server: ScriptedServer, **keywords: str) -> psycopg.Connection[tuple[object, ...]]:
    address = f"host={server.host} port={server.port} user=ann dbname=shop"
    return psycopg.connect(make_conninfo(address, **keywords), autocommit=True)


def raw(server: ScriptedServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=10)


def result_status(protocol: psycopg.pq.abc.PGconn) -> int:
    """The next result's status. libpq must not wait by itself: it would keep the GIL meanwhile."""
    while protocol.is_busy():
        receive(protocol)
    result = protocol.get_result()
    assert result is not None
    return result.status


def copied(protocol: psycopg.pq.abc.PGconn) -> bytes | None:
    """The next CopyData's payload, or None after CopyDone."""
    while (answer := protocol.get_copy_data(1))[0] == 0:
        receive(protocol)
    return bytes(answer[1]) if answer[0] > 0 else None


def receive(protocol: psycopg.pq.abc.PGconn) -> None:
    ready, _, _ = select.select([protocol.socket], [], [], 10)
    assert ready, "nothing came"
    protocol.consume_input()


def test_libpq_reads_what_the_builders_make() -> None:
    def script(peer: Peer) -> None:
        startup = handshake(peer)
        assert startup.code == PROTOCOL_3_0
        assert startup.parameters["user"] == "ann"
        assert startup.parameters["database"] == "shop"
        assert peer.recv_query() == "SELECT 1"
        peer.send(
            builders.notice_response("mind the gap", hint="jump", sqlstate="01000")
            + builders.parameter_status("TimeZone", "Europe/Oslo")
            + builders.row_description("name", ColumnDescription("n", type_oid=20, type_size=8))
            + builders.data_row("bolt", "7")
            + builders.data_row(None, "-1")
            + builders.command_complete("SELECT 2")
            + builders.ready_for_query()
        )
        peer.expect_hang_up()

    with ScriptedServer(script) as server, connect(server) as connection:
        notices: list[tuple[str | None, ...]] = []
        connection.add_notice_handler(
            lambda d: notices.append((d.message_primary, d.message_hint, d.sqlstate))
        )
        cursor = connection.execute("SELECT 1")
        assert cursor.fetchall() == [("bolt", 7), (None, -1)]
        assert cursor.statusmessage == "SELECT 2"
        assert notices == [("mind the gap", "jump", "01000")]
        assert connection.info.parameter_status("TimeZone") == "Europe/Oslo"
        assert connection.info.backend_pid == 4711


def test_error_fields_reach_libpq() -> None:
    texts = {name: f"the {name}" for name in builders.ERROR_FIELDS}
    texts |= {"sqlstate": "42P01", "severity": "ERROR", "severity_nonlocalized": "ERROR"}
    texts |= {"position": "3", "internal_position": "4", "source_line": "5"}
    message = texts.pop("message")

    def script(peer: Peer) -> None:
        handshake(peer)
        peer.recv_query()
        peer.send(builders.error_response(message, **texts) + builders.ready_for_query())

    with ScriptedServer(script) as server, connect(server) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable) as caught:
            connection.execute("SELECT 1")
        diagnosis = caught.value.diag
        assert diagnosis.message_primary == message
        assert diagnosis.message_detail == "the detail"
        assert diagnosis.context == "the context"
        assert diagnosis.statement_position == "3"
        assert diagnosis.internal_position == "4"
        assert diagnosis.internal_query == "the internal_query"
        assert diagnosis.schema_name == "the schema_name"
        assert diagnosis.constraint_name == "the constraint_name"
        assert diagnosis.source_file == "the source_file"
        assert diagnosis.source_function == "the source_function"


def test_copy_both_carries_wal_messages() -> None:
    body = builders.xlog_data(0x1_0000_0002, 0x1_0000_0003, -5, b"payload")
    alive = builders.keepalive(0x2_0000_0000, 6, reply_requested=True)

    def script(peer: Peer) -> None:
        handshake(peer)
        peer.recv_query()
        peer.send(builders.copy_both_response() + builders.copy_data(body))
        peer.send(builders.copy_data(alive) + builders.copy_done())
        assert peer.expect(b"c") == b""
        peer.send(builders.command_complete("COPY 0") + builders.ready_for_query())

    with ScriptedServer(script) as server, connect(server) as connection:
        protocol = connection.pgconn
        protocol.send_query(b"START_REPLICATION")
        protocol.flush()
        assert result_status(protocol) == psycopg.pq.ExecStatus.COPY_BOTH
        assert copied(protocol) == body
        assert copied(protocol) == alive
        assert copied(protocol) is None
        protocol.put_copy_end()
        protocol.flush()
        assert result_status(protocol) == psycopg.pq.ExecStatus.COMMAND_OK
        assert protocol.get_result() is None
    header = bytes.fromhex("77 0000000100000002 0000000100000003 fffffffffffffffb")
    assert body == header + b"payload"
    assert alive == bytes.fromhex("6b 0000000200000000 0000000000000006 01")


def test_password_authentication() -> None:
    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(builders.authentication(builders.AUTHENTICATION_CLEARTEXT_PASSWORD))
        assert peer.expect(b"p") == "pä ss\0".encode()
        peer.send(builders.error_response("no", sqlstate="28P01", severity="FATAL"))

    with (
        ScriptedServer(script) as server,
        pytest.raises(psycopg.OperationalError, match="FATAL:  no"),
    ):
        connect(server, password="pä ss", sslmode="disable")


def test_slow_bytes_make_whole_messages() -> None:
    def script(peer: Peer) -> None:
        handshake(peer)
        peer.recv_query()
        answer = builders.row_description("a") + builders.data_row("x" * 50)
        peer.send_slowly(answer + builders.command_complete("SELECT 1"), step=3)
        peer.send_slowly(builders.ready_for_query())

    with ScriptedServer(script) as server, connect(server) as connection:
        assert connection.execute("SELECT 1").fetchall() == [("x" * 50,)]


@pytest.mark.parametrize("presented", ["server", "wrong_host", "expired", "self_signed"])
def test_tls_with_each_certificate(certificates: CertificateSet, presented: str) -> None:
    def script(peer: Peer) -> None:
        handshake(peer)
        assert peer.recv_query() == "SELECT 1"
        peer.send(builders.empty_query_response() + builders.ready_for_query())

    tls = getattr(certificates, presented).server_context()
    with ScriptedServer(script, tls=tls) as server:
        verify = {"sslmode": "verify-full", "sslrootcert": str(certificates.ca)}
        if presented == "server":
            with connect(server, **verify) as connection:
                connection.execute("SELECT 1")
                assert connection.pgconn.ssl_in_use
        else:
            with pytest.raises(psycopg.OperationalError, match="certificate"):
                connect(server, **verify)
    assert server.hang_ups == (presented != "server")


# X509_V_ERR_..., see `man openssl-verification-options`.
@pytest.mark.parametrize(
    ("presented", "error"), [("wrong_host", 62), ("expired", 10), ("self_signed", 18)]
)
def test_each_certificate_has_the_fault_of_its_name_and_no_other(
    certificates: CertificateSet, presented: str, error: int
) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    tls = getattr(certificates, presented).server_context()
    with ScriptedServer(negotiate, tls=tls) as server, raw(server) as client:
        client.sendall(struct.pack("!ii", 8, SSL_REQUEST))
        assert client.recv(1) == b"S"
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            context.wrap_socket(client, server_hostname="localhost")
    assert caught.value.verify_code == error


def test_the_right_certificate_stands_up_to_strict_verification(
    certificates: CertificateSet,
) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with ScriptedServer(handshake, tls=certificates.server.server_context()) as server:
        for host in ("localhost", "127.0.0.1"):
            with raw(server) as client:
                client.sendall(struct.pack("!ii", 8, SSL_REQUEST))
                assert client.recv(1) == b"S"
                with context.wrap_socket(client, server_hostname=host) as secure:
                    assert secure.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
                        certificates.server.certificate.read_text()
                    )


def test_failed_assertion_of_the_script_comes_out() -> None:
    def script(peer: Peer) -> None:
        assert peer.recv_message() == (b"Q", b"SELECT 1\0")

    def run() -> None:
        with ScriptedServer(script) as server, raw(server) as client:
            client.sendall(builders.message(b"Q", b"SELECT 2\0"))

    with pytest.raises(AssertionError, match="SELECT 2"):
        run()


def test_failure_of_the_test_is_told_what_the_script_said() -> None:
    def script(peer: Peer) -> None:
        peer.expect(b"Q")

    def run() -> None:
        with ScriptedServer(script) as server, raw(server) as client:
            client.sendall(builders.message(b"X"))
            assert client.recv(1) == b""
            raise RuntimeError("the test's own")

    with pytest.raises(RuntimeError, match="the test's own") as caught:
        run()
    assert "the client sent b'X'" in "".join(caught.value.__notes__)


def test_client_that_falls_silent_is_not_waited_for_for_ever() -> None:
    def run() -> None:
        with ScriptedServer(negotiate, timeout=0.1) as server, raw(server) as client:
            client.sendall(b"\0")
            assert client.recv(1) == b""

    with pytest.raises(TimeoutError, match=r"expected 8 bytes, has b'\\x00'"):
        run()


def test_client_that_does_not_read_is_not_waited_for_for_ever() -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.send(bytes(1 << 20))

    def run() -> None:
        with ScriptedServer(script, timeout=0.1) as server, raw(server) as client:
            assert client.recv(1) == b"\0"
            time.sleep(0.3)

    with pytest.raises(TimeoutError, match="the client does not read"):
        run()


def test_script_that_does_not_end_is_an_error() -> None:
    def script(peer: Peer) -> None:
        peer.send_slowly(bytes(1_000_000))

    with (
        contextlib.ExitStack() as afterwards,
        pytest.raises(TimeoutError, match="has not ended"),
        ScriptedServer(script, timeout=0.2) as server,
    ):
        afterwards.enter_context(raw(server))


def test_each_script_has_its_connection() -> None:
    def first(peer: Peer) -> None:
        peer.send(b"1")

    def second(peer: Peer) -> None:
        peer.send(b"2")

    with ScriptedServer(first, second) as server:
        answers = []
        for _ in range(3):
            with raw(server) as client:
                answers.append(client.recv(10))
    assert answers == [b"1", b"2", b""]
    assert server.connections == 3


def test_a_second_connection_is_served_while_the_first_is_busy() -> None:
    cancelled = threading.Event()

    def busy(peer: Peer) -> None:
        assert cancelled.wait(10)
        peer.send(b"cancelled")

    def cancel(peer: Peer) -> None:
        assert negotiate(peer).code == CANCEL_REQUEST
        cancelled.set()

    with ScriptedServer(busy, cancel) as server, raw(server) as client:
        with raw(server) as other:
            other.sendall(struct.pack("!iiii", 16, CANCEL_REQUEST, 4711, 0x01020304))
            assert other.recv(1) == b""
        assert client.recv(100) == b"cancelled"


def test_reset_is_a_reset_and_close_is_not() -> None:
    def closing(peer: Peer) -> None:
        assert peer.recv_exactly(1) == b"?"
        peer.send(b"!")

    def resetting(peer: Peer) -> None:
        closing(peer)
        peer.reset()

    with ScriptedServer(closing, resetting) as server:
        with raw(server) as client:
            client.sendall(b"? and more, which nobody reads")
            assert (client.recv(1), client.recv(1)) == (b"!", b"")
        with raw(server) as client, pytest.raises(ConnectionResetError):
            client.sendall(b"?")
            while client.recv(1):
                pass
