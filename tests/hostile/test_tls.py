"""TLS: what may be said before it, which certificates will do, and what a record may hold."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import ConnectionFailed, TLSError, UsageError
from tests.hostile.sessions import (
    ENDED,
    START,
    address,
    answers_a_query,
    assert_usable,
    begin_stream,
    data,
    keepalive,
    receive,
    refused,
    streaming,
)
from tests.support import builders
from tests.support.scripted import SSL_REQUEST, Peer, Script, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateFiles, CertificateSet

Connect = Callable[..., Any]

REQUIRING = ["require", "verify-ca", "verify-full"]
BEGINNING = (
    builders.authentication(0)
    + builders.parameter_status("server_version", "6.6.6")
    + builders.ready_for_query()
)


def mode(sslmode: str, certificates: CertificateSet | None = None) -> dict[str, Any]:
    """Keywords for this mode; the root certificate is given where the mode needs one."""
    keywords: dict[str, Any] = {"sslmode": sslmode}
    if certificates is not None and sslmode.startswith("verify"):
        keywords["sslrootcert"] = certificates.ca
    return keywords


def answers(*steps: bytes | float) -> Script:
    """A script that answers a request for TLS with these bytes, with a pause where a number is."""

    def script(peer: Peer) -> None:
        assert peer.recv_startup().code == SSL_REQUEST
        for step in steps:
            if isinstance(step, bytes):
                peer.send(step)
            else:
                time.sleep(step)
        while peer.recv_exactly(1):  # until the client hangs up
            pass

    return script


def plain_session(peer: Peer) -> None:
    """A session of a client that does not ask for TLS."""
    startup = handshake(peer)
    assert startup.parameters["user"] == "ann"
    answers_a_query(peer)


# Before TLS


@pytest.mark.parametrize("sslmode", REQUIRING)
def test_the_server_has_no_tls(
    connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    with ScriptedServer(answers(b"N")) as server:
        error = refused(connect, server, **mode(sslmode, certificates))
        assert server.connections == 1
    assert type(error) is TLSError
    assert "the server does not offer TLS, which this sslmode requires" in str(error)


def test_prefer_goes_on_without_tls_on_the_same_connection(connect: Connect) -> None:
    with ScriptedServer(plain_session) as server:
        with connect(**address(server, sslmode="prefer")) as connection:
            assert_usable(connection)
        assert server.connections == 1


def test_disable_does_not_ask(connect: Connect, certificates: CertificateSet) -> None:
    with (
        ScriptedServer(plain_session, tls=certificates.server.server_context()) as server,
        connect(**address(server, sslmode="disable")) as connection,
    ):
        assert_usable(connection)
        assert not isinstance(connection._transport.socket, ssl.SSLSocket)


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["in the same segment", "a little later"])
@pytest.mark.parametrize("sslmode", REQUIRING)
def test_bytes_that_are_slipped_in_before_the_handshake(
    connect: Connect, certificates: CertificateSet, sslmode: str, pause: float
) -> None:
    steps = [b"S" + BEGINNING] if pause == 0 else [b"S", pause, BEGINNING]
    with ScriptedServer(answers(*steps)) as server:
        error = refused(connect, server, **mode(sslmode, certificates))
    assert type(error) is TLSError
    told = "expected nothing before the TLS handshake, got data" in str(error)
    assert told or (pause > 0 and "the TLS handshake with the server failed" in str(error))


def test_bytes_that_are_slipped_in_are_forgotten_by_the_next_attempt(connect: Connect) -> None:
    with ScriptedServer(answers(b"S" + BEGINNING), plain_session) as server:
        with connect(**address(server, sslmode="prefer")) as connection:
            assert connection.server_version == 180000
            assert_usable(connection)
        assert server.connections == 2


REFUSAL = builders.error_response(
    "\x1b[2JYour password: ", severity="FATAL", sqlstate="28P01", hint="enter it on evil.invalid"
)


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and all that it came of."""
    return [] if error is None else [error, *chain(error.__cause__), *chain(error.__context__)]


@pytest.mark.parametrize("sslmode", REQUIRING)
def test_what_a_server_says_before_tls_is_not_shown(
    connect: Connect,
    certificates: CertificateSet,
    sslmode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG), ScriptedServer(answers(REFUSAL)) as server:
        error = refused(connect, server, **mode(sslmode, certificates))
    assert type(error) is TLSError
    assert "with an error message, which is not shown" in str(error)
    shown = "".join(repr(each) + str(each) + str(vars(each)) for each in chain(error))
    for word in ("password", "evil", "28P01", "\x1b"):
        assert word not in shown
        assert word not in caplog.text


def test_prefer_tries_again_after_a_refusal(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), ScriptedServer(answers(REFUSAL), plain_session) as server:
        with connect(**address(server, sslmode="prefer")) as connection:
            assert_usable(connection)
        assert server.connections == 2
    assert "evil" not in caplog.text


@pytest.mark.parametrize("byte", [b"s", b"n", b"G", b"R", b"\0", b"\xff", b"\x16"])
def test_an_answer_that_means_nothing(connect: Connect, byte: bytes) -> None:
    with ScriptedServer(answers(byte)) as server:
        error = refused(connect, server, sslmode="require")
    assert type(error) is TLSError
    assert f"expected the byte 'S' or 'N' in answer to the request for TLS, got {byte!r}" in str(
        error
    )


@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["close", "reset"])
@pytest.mark.parametrize("answer", [b"", b"S"], ids=["no answer", "after S"])
def test_the_end_of_the_connection_before_tls(
    connect: Connect, answer: bytes, end: Callable[[Peer], None]
) -> None:
    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(answer)
        end(peer)

    with ScriptedServer(script) as server:
        error = refused(connect, server, sslmode="require")
    assert isinstance(error, TLSError | ConnectionFailed)
    assert "server" in str(error)


def test_the_end_of_the_connection_within_the_handshake(connect: Connect) -> None:
    cases = list(itertools.product([Peer.close, Peer.reset], range(7)))
    left = iter(cases)

    def script(peer: Peer) -> None:
        end, size = next(left)
        peer.recv_startup()
        peer.send(b"S")
        peer.recv_exactly(100)  # of the ClientHello
        peer.send(b"\x16\x03\x03\0\x50\x02"[:size])
        end(peer)

    with ScriptedServer(script) as server:
        for _ in cases:
            error = refused(connect, server, sslmode="require")
            assert isinstance(error, TLSError | ConnectionFailed)
            assert "TLS handshake" in str(error) or "failed while receiving" in str(error)


def test_silence(connect: Connect) -> None:
    def falls_silent_in_the_handshake(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(b"S")
        peer.recv_exactly(100)  # of the ClientHello
        peer.send(b"\x16\x03\x03\0")
        while peer.recv_exactly(1):
            pass

    def attempt(script: Script) -> Exception:
        with ScriptedServer(script) as server:
            return refused(connect, server, sslmode="require", connect_timeout=1)

    scripts = [answers(), answers(b"S"), falls_silent_in_the_handshake]
    with ThreadPoolExecutor(len(scripts)) as pool:
        for error in pool.map(attempt, scripts):
            assert type(error) is ConnectionFailed
            assert "within connect_timeout, 1.0 s" in str(error)


def test_no_tls_at_all_behind_the_promise(connect: Connect) -> None:
    for nonsense in (b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(100), b"\x15\x03\x01\0\2\2\x28"):
        with ScriptedServer(answers(b"S", 0.01, nonsense)) as server:
            error = refused(connect, server, sslmode="require")
        assert type(error) is TLSError
        assert "TLS" in str(error)


# Certificates

FINE, TLS_ERROR = "fine", "refused"

CASES = {
    # certificate: what require, verify-ca and verify-full make of it
    "server": (FINE, FINE, FINE),
    "wrong_host": (FINE, FINE, TLS_ERROR),
    "expired": (FINE, TLS_ERROR, TLS_ERROR),
    "self_signed": (FINE, TLS_ERROR, TLS_ERROR),
}


def tls_session(peer: Peer) -> None:
    handshake(peer)
    answers_a_query(peer)


def verdict(connect: Connect, certificate: CertificateFiles, **keywords: Any) -> str:
    """Whether a session comes about with a server that presents this certificate."""
    with ScriptedServer(tls_session, tls=certificate.server_context()) as server:
        try:
            connection = connect(**address(server, **keywords))
        except TLSError as error:
            assert "the server's certificate is not acceptable: " in str(error)
            return TLS_ERROR
        with connection:
            assert isinstance(connection._transport.socket, ssl.SSLSocket)
            assert_usable(connection)
        return FINE


@pytest.mark.parametrize("sslmode", REQUIRING)
@pytest.mark.parametrize("name", CASES)
def test_certificates(
    connect: Connect, certificates: CertificateSet, name: str, sslmode: str
) -> None:
    expected = CASES[name][REQUIRING.index(sslmode)]
    certificate = getattr(certificates, name)
    assert verdict(connect, certificate, **mode(sslmode, certificates)) == expected


@pytest.mark.parametrize("sslmode", REQUIRING)
def test_another_authority(connect: Connect, certificates: CertificateSet, sslmode: str) -> None:
    # A root certificate that is given is used in the weaker modes as well.
    keywords = {"sslmode": sslmode, "sslrootcert": certificates.other_ca}
    assert verdict(connect, certificates.server, **keywords) == TLS_ERROR


def test_prefer_goes_on_without_tls_where_the_certificate_will_not_do(
    connect: Connect, certificates: CertificateSet
) -> None:
    keywords = {"sslmode": "prefer", "sslrootcert": certificates.other_ca}
    context = certificates.server.server_context()
    with ScriptedServer(tls_session, plain_session, tls=context) as server:
        with connect(**address(server, **keywords)) as connection:
            assert_usable(connection)
            assert not isinstance(connection._transport.socket, ssl.SSLSocket)
        assert server.connections == 2


def test_a_host_by_name_and_by_address(connect: Connect, certificates: CertificateSet) -> None:
    full = mode("verify-full", certificates)
    for host in ("localhost", "LOCALHOST", "127.0.0.1"):
        assert verdict(connect, certificates.server, host=host, **full) == FINE
    assert verdict(connect, certificates.wrong_host, host="localhost", **full) == TLS_ERROR


def test_the_root_certificate_at_home(
    connect: Connect, certificates: CertificateSet, home: Path
) -> None:
    assert verdict(connect, certificates.self_signed, sslmode="require") == FINE
    (home / ".postgresql").mkdir()
    (home / ".postgresql" / "root.crt").write_bytes(certificates.ca.read_bytes())
    for sslmode in REQUIRING:
        assert verdict(connect, certificates.server, sslmode=sslmode) == FINE
        assert verdict(connect, certificates.self_signed, sslmode=sslmode) == TLS_ERROR


def test_a_process_without_a_home(
    connect: Connect, certificates: CertificateSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwd = pytest.importorskip("pwd")

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    assert verdict(connect, certificates.self_signed, sslmode="require") == FINE
    with pytest.raises(UsageError, match="does not exist"):
        connect(host="127.0.0.1", user="ann", sslmode="verify-ca")


def test_a_root_certificate_that_is_not_there(connect: Connect, tmp_path: Path) -> None:
    for sslmode in ("verify-ca", "verify-full"):
        with pytest.raises(UsageError, match=f"sslmode={sslmode} checks .* does not exist"):
            connect(host="127.0.0.1", user="ann", sslmode=sslmode)
    missing = tmp_path / "missing.crt"
    with pytest.raises(UsageError, match="does not exist; name a file in sslrootcert"):
        connect(host="127.0.0.1", user="ann", sslmode="require", sslrootcert=missing)
    nonsense = tmp_path / "nonsense.crt"
    nonsense.write_text("no certificate")
    with pytest.raises(UsageError, match="expected PEM certificates in sslrootcert"):
        connect(host="127.0.0.1", user="ann", sslmode="require", sslrootcert=nonsense)


def test_an_old_version_of_tls(connect: Connect, certificates: CertificateSet) -> None:
    context = certificates.server.server_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    with ScriptedServer(tls_session, tls=context) as server:
        error = refused(connect, server, sslmode="require")
    assert type(error) is TLSError
    assert "the TLS handshake with the server failed" in str(error)


# Within TLS


def tls_stream(certificates: CertificateSet, script: Script) -> ScriptedServer:
    return ScriptedServer(script, tls=certificates.server.server_context())


def test_many_messages_in_one_record_and_then_silence(
    connect: Connect, certificates: CertificateSet
) -> None:
    """What TLS has read already is no longer in the socket, where nobody may wait for it."""
    done = threading.Event()
    count = 300

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(b"".join(data(i, bytes(20)) for i in range(count)))
        done.wait(20)

    with tls_stream(certificates, script) as server:
        connection = connect(**address(server, sslmode="require"))
        connection.start_streaming(START, timeout=20)
        assert [receive(connection).wal_start for _ in range(count)] == list(range(count))
        with pytest.raises(TimeoutError):
            connection.receive_wal_message(timeout=0.02)
        connection.close()
        done.set()


@pytest.mark.parametrize("size", [1, 4, 5, 6, 29, 16384, 16385])
def test_records_of_any_size(connect: Connect, certificates: CertificateSet, size: int) -> None:
    payloads = [bytes((i,)) * (i * 40) for i in range(30 if size < 100 else 200)]
    sent = b"".join(data(i, payload) for i, payload in enumerate(payloads)) + ENDED

    def script(peer: Peer) -> None:
        begin_stream(peer)
        for at in range(0, len(sent), size):
            peer.send(sent[at : at + size])

    with tls_stream(certificates, script) as server:
        connection = connect(**address(server, sslmode="require"))
        connection.start_streaming(START, timeout=20)
        got = []
        while (message := receive(connection)) is not None:
            got.append(bytes(message))
        assert got == payloads
        connection.close()


@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["close", "reset"])
def test_a_stream_that_is_cut_off_within_tls(
    connect: Connect, certificates: CertificateSet, end: Callable[[Peer], None]
) -> None:
    """An end without TLS's own goodbye is an end all the same, and never the end of the stream."""
    taken = threading.Event()

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(data(1) + keepalive(2)[:9])
        taken.wait(20)
        end(peer)

    with tls_stream(certificates, script) as server:
        connection = connect(**address(server, sslmode="require"))
        connection.start_streaming(START, timeout=20)
        assert receive(connection).wal_start == 1
        taken.set()
        with pytest.raises(ConnectionFailed, match="closed the connection, in the middle|failed"):
            receive(connection)
        assert connection.closed


def test_garbage_instead_of_a_record(connect: Connect, certificates: CertificateSet) -> None:
    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(data(1))
        # Behind the back of TLS, as somebody on the way could.
        with socket.socket(fileno=peer._socket.detach()) as bare:
            bare.settimeout(20)
            bare.sendall(bytes(100))
            with contextlib.suppress(ConnectionResetError):
                while bare.recv(4096):
                    pass

    with tls_stream(certificates, script) as server:
        connection = connect(**address(server, sslmode="require"))
        connection.start_streaming(START, timeout=20)
        assert receive(connection).wal_start == 1
        with pytest.raises(ConnectionFailed, match="failed while receiving"):
            receive(connection)
        assert connection.closed


def test_the_same_stream_with_and_without_tls(
    connect: Connect, certificates: CertificateSet
) -> None:
    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(b"".join(data(i) + keepalive(i) for i in range(500)) + ENDED)

    seen = []
    for context in (None, certificates.server.server_context()):
        with ScriptedServer(script, tls=context) as server:
            if context is None:
                connection = streaming(connect, server)
            else:
                connection = connect(**address(server, sslmode="require"))
                connection.start_streaming(START, timeout=20)
            messages = []
            while (message := receive(connection)) is not None:
                messages.append(message)
            seen.append(messages)
            connection.close()
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1000
