"""Within TLS: what a record may hold, how it may be cut, and what its end means."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import ConnectionFailed, TLSError
from tests.hostile.sessions import (
    ENDED,
    PATIENCE,
    START,
    address,
    begin_stream,
    data,
    keepalive,
    receive,
    streaming,
)
from tests.hostile.tls_sessions import Connect
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.proxy import Proxy, Slicing, one_byte
from tests.support.scripted import Peer, Script, ScriptedServer

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)


# The largest one, RFC 8446, 5.1.
RECORD = 16384


def tls_stream(certificates: CertificateSet, script: Script) -> ScriptedServer:
    return ScriptedServer(script, tls=certificates.server.server_context())


@contextlib.contextmanager
def sent_as_one_record(
    connect: Connect, certificates: CertificateSet, record: bytes
) -> Iterator[Any]:
    """A connection whose stream brings this in one record, and then nothing."""
    done = threading.Event()

    def script(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(record)
        done.wait(3 * PATIENCE)  # its end would wake the client

    with tls_stream(certificates, script) as server, contextlib.ExitStack() as stack:
        stack.callback(done.set)
        connection = connect(**address(server, sslmode="require"))
        connection.start_streaming(START, timeout=20)
        yield connection
        connection.close()


def test_v23_many_messages_in_one_record_and_then_silence(
    connect: Connect, certificates: CertificateSet
) -> None:
    """What TLS has read already is no longer in the socket, where nobody may wait for it."""
    count = 300
    record = b"".join(data(i, bytes(24)) for i in range(count))
    record += data(count, bytes(RECORD - len(record) - len(data(0, b""))))
    assert len(record) == RECORD
    with sent_as_one_record(connect, certificates, record) as connection:
        assert [receive(connection).wal_start for _ in range(count + 1)] == list(range(count + 1))
        with pytest.raises(TimeoutError):
            connection.receive_wal_message(timeout=0.02)


def test_v23_a_record_that_no_read_takes_as_a_whole(
    connect: Connect, certificates: CertificateSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little room there is: the rest of a record is not in the socket either."""
    for twin in ("pgrepl.codec._native", "pgrepl.codec._pure"):
        with contextlib.suppress(ImportError):
            codec = importlib.import_module(twin)
            monkeypatch.setattr(codec, "FrameReader", partial(codec.FrameReader, 64))
    count = 250
    record = b"".join(data(i, bytes(24)) for i in range(count))
    assert len(record) < RECORD
    with sent_as_one_record(connect, certificates, record) as connection:
        assert [receive(connection).wal_start for _ in range(count)] == list(range(count))


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


def steps(size: int) -> Slicing:
    """Pieces of this size."""
    return lambda: lambda waiting, idle: min(size, waiting)


# A record's header has five bytes.
@pytest.mark.parametrize("slicing", [one_byte(), steps(3), steps(4), steps(7)], ids=[1, 3, 4, 7])
def test_records_that_are_cut_within_their_header(
    connect: Connect, certificates: CertificateSet, slicing: Slicing
) -> None:
    """The handshake, too."""
    count = 200

    def script(peer: Peer) -> None:
        begin_stream(peer)
        for i in range(count):
            peer.send(data(i, bytes(i % 40)))
        peer.send(ENDED)

    with (
        tls_stream(certificates, script) as server,
        Proxy((server.host, server.port), slicing=slicing) as proxy,
    ):
        keywords = {"host": proxy.host, "port": proxy.port, "sslrootcert": certificates.ca}
        connection = connect(**address(server, **keywords, sslmode="verify-full"))
        connection.start_streaming(START, timeout=20)
        got = []
        while (message := receive(connection)) is not None:
            got.append((message.wal_start, len(bytes(message))))
        assert got == [(i, i % 40) for i in range(count)]
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


# Renegotiation, which TLS 1.2 still has


@contextlib.contextmanager
def openssl_server(certificates: CertificateSet) -> Iterator[subprocess.Popen[bytes]]:
    """OpenSSL's own server, which asks for a new handshake when it reads an ``r``; it prints what
    it receives."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl, whose server can be made to renegotiate")
    files = certificates.server
    command = [program, "s_server", "-accept", "127.0.0.1:0", "-tls1_2", "-alpn", "postgresql"]
    command += ["-cert", str(files.certificate), "-key", str(files.key), "-naccept", "1"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def test_a_server_that_wants_to_renegotiate(connect: Connect, certificates: CertificateSet) -> None:
    """PostgreSQL never does: a new handshake within a session is somebody else's, and is not
    entered into. Without that the client would go on waiting here."""
    with openssl_server(certificates) as server:
        assert server.stdout is not None
        port = next(
            int(line.rpartition(b":")[2]) for line in server.stdout if line.startswith(b"ACCEPT")
        )
        printed = b""

        def renegotiate() -> None:
            nonlocal printed
            assert server.stdin is not None
            assert server.stdout is not None
            for line in server.stdout:
                printed += line
                if b"Secure Renegotiation IS" in line:
                    server.stdin.write(b"r\n")
                    server.stdin.flush()

        thread = threading.Thread(target=renegotiate)
        thread.start()
        try:
            with pytest.raises((ConnectionFailed, TLSError)) as caught:
                connect(
                    host="127.0.0.1",
                    port=port,
                    user="ann",
                    sslmode="require",
                    sslnegotiation="direct",
                    connect_timeout=20,
                )
        finally:
            thread.join(10)  # it ends after one connection, when it has said why
            server.terminate()
            thread.join()
    assert "connect_timeout" not in str(caught.value)
    assert b"no renegotiation" in printed
