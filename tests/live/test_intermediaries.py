"""Who may stand between a client and a real server: a connection pooler, and somebody with a good
certificate who reads along."""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pgrepl
from pgrepl.testing.server_account import give, server_account
from tests.live.streams import Connect, eventually
from tests.live.tls_servers import PASSWORD, TLSServer, tls_server
from tests.support.certificates import CertificateSet
from tests.support.clusters import Cluster
from tests.support.flavours import DRIVERS
from tests.support.scripted import SSL_REQUEST, HangUp, Peer, Script, ScriptedServer

pytestmark = pytest.mark.flavours(*DRIVERS)


@pytest.fixture(scope="module")
def server(cluster: Cluster, certificates: CertificateSet) -> Iterator[TLSServer]:
    """A server of the module's own."""
    with tls_server(cluster, certificates) as started:
        yield started


# Somebody who ends TLS, reads along, and has a certificate of the same authority

Message = tuple[bytes, bytes]
Forgery = Callable[[Message], Message]


def unchanged(message: Message) -> Message:
    """What the server says is passed on as it is."""
    return message


def without_channel_binding(message: Message) -> Message:
    """The server seems to know SCRAM-SHA-256 alone."""
    tag, body = message
    if tag == b"R" and body[:4] == b"\0\0\0\x0a":
        body = body.replace(b"SCRAM-SHA-256-PLUS\0", b"")
    return tag, body


def eavesdropper(
    server: TLSServer, heard: list[bytes], forge: Forgery = unchanged, *, tls: bool = True
) -> Script:
    """Connects to the server as every client does, by TLS or not, and passes on what both say."""

    def script(peer: Peer) -> None:
        code = peer.recv_startup().code
        assert code == SSL_REQUEST, f"the client does not ask for TLS, but sends {code}"
        peer.send(b"S")
        peer.start_tls()
        address = (server.address["host"], server.address["port"])
        connected = socket.create_connection(address, timeout=10)
        with contextlib.closing(by_tls(connected) if tls else connected) as upstream:
            relay(peer, upstream, heard, forge)

    return script


def by_tls(connected: socket.socket) -> ssl.SSLSocket:
    connected.sendall(struct.pack("!ii", 8, SSL_REQUEST))
    assert connected.recv(1) == b"S"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connected)


def relay(peer: Peer, upstream: socket.socket, heard: list[bytes], forge: Forgery) -> None:
    """Pass on the StartupMessage, and then message by message until one side hangs up."""
    length = peer.recv_exactly(4)
    upstream.sendall(length + peer.recv_exactly(struct.unpack("!i", length)[0] - 4))
    relay_messages(peer, upstream, heard, forge)


def relay_messages(
    peer: Peer, upstream: socket.socket, heard: list[bytes], forge: Forgery = unchanged
) -> None:
    """Pass on message by message until one side hangs up."""
    server = Peer(upstream, None)
    while True:
        source = who_speaks(peer, server)
        try:
            tag, body = source.recv_message()
        except HangUp:
            return
        if source is peer:
            heard.append(tag + body)
        else:
            tag, body = forge((tag, body))
        to = server if source is peer else peer
        to.send(tag + struct.pack("!i", len(body) + 4) + body)


def who_speaks(*peers: Peer) -> Peer:
    """The first one of which something has come."""
    for each in peers:
        if isinstance(each._socket, ssl.SSLSocket) and each._socket.pending():
            return each
    ready, _, _ = select.select([each._socket for each in peers], [], [], 10)
    for each in peers:
        if each._socket in ready:
            return each
    raise TimeoutError("neither side says anything")


def through(
    connect: Connect,
    script: Script,
    certificates: CertificateSet,
    **keywords: Any,
) -> Any:
    """What comes of connecting by somebody who has a certificate as good as the server's."""
    context = certificates.wrong_host.server_context()
    with ScriptedServer(script, tls=context) as between:
        try:
            with connect(
                host="elsewhere.invalid",
                hostaddr=between.host,
                port=between.port,
                user="by_password",
                password=PASSWORD,
                dbname="postgres",
                sslmode="verify-full",
                sslrootcert=certificates.ca,
                **keywords,
            ) as connection:
                return connection.identify_system()
        except pgrepl.Error as error:
            return error


@pytest.mark.parametrize("binding", ["require", "prefer"])
def test_v3_somebody_who_reads_along_is_found_out_by_the_server(
    connect: Connect, server: TLSServer, certificates: CertificateSet, binding: str
) -> None:
    """The proof of the password is made over the certificate that the client has seen, which is
    not the one that the server has shown."""
    heard: list[bytes] = []
    found = through(connect, eavesdropper(server, heard), certificates, channel_binding=binding)
    assert isinstance(found, pgrepl.AuthenticationError)
    assert isinstance(found, pgrepl.ServerError)
    assert "channel binding" in str(found)
    assert heard[0].startswith(b"pSCRAM-SHA-256-PLUS\0")


def test_without_channel_binding_nobody_finds_out(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    heard: list[bytes] = []
    found = through(connect, eavesdropper(server, heard), certificates, channel_binding="disable")
    assert found.timeline == 1
    assert heard[0].startswith(b"pSCRAM-SHA-256\0")


def test_v3_v18_somebody_who_hides_channel_binding(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    """With require the client says no before it has said anything; with prefer the server finds
    out that the client was told a lie."""
    heard: list[bytes] = []
    script = eavesdropper(server, heard, without_channel_binding)
    found = through(connect, script, certificates, channel_binding="require")
    assert isinstance(found, pgrepl.AuthenticationError)
    assert not isinstance(found, pgrepl.ServerError)
    assert "channel_binding" in str(found)
    assert not any(each.startswith(b"p") for each in heard)
    found = through(connect, script, certificates, channel_binding="prefer")
    assert isinstance(found, pgrepl.AuthenticationError)
    assert isinstance(found, pgrepl.ServerError)
    assert "channel binding" in str(found)


def test_somebody_who_has_no_tls_to_the_server(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    """That a server cannot bind to TLS is what only require refuses."""
    heard: list[bytes] = []
    script = eavesdropper(server, heard, tls=False)
    found = through(connect, script, certificates, channel_binding="require")
    assert isinstance(found, pgrepl.AuthenticationError)
    assert "channel_binding" in str(found)
    assert not any(each.startswith(b"p") for each in heard)
    found = through(connect, script, certificates, channel_binding="prefer")
    assert found.timeline == 1


# PgBouncer


def program() -> tuple[str, tuple[int, ...]]:
    """Where PgBouncer is, and its version; a skip where it is not."""
    path = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip("needs PgBouncer: apt-get install pgbouncer")
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", told)
    assert found is not None, told
    return path, tuple(map(int, found.groups()))


@contextlib.contextmanager
def pgbouncer(
    server: TLSServer, certificates: CertificateSet, tls: str, *, more: str = "auth_type = trust"
) -> Iterator[int]:
    """A PgBouncer before the server that lets everybody in; its port. `tls` is its
    client_tls_sslmode, `more` are further lines of its settings."""
    path, _ = program()
    [(verifier,)] = server.execute(
        "SELECT rolpassword FROM pg_authid WHERE rolname = %s", "by_password"
    )
    account = server_account()
    with tempfile.TemporaryDirectory(prefix="pgrepl-pgbouncer-") as name:
        folder = Path(name)
        for suffix in ("crt", "key"):
            source = certificates.server.certificate.with_suffix(f".{suffix}")
            shutil.copy(source, folder / f"server.{suffix}")
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        (folder / "users").write_text(f'"anybody" ""\n"by_password" "{verifier}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"""[databases]
* = host={server.address["host"]} port={server.address["port"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
{more}
auth_file = {folder}/users
client_tls_sslmode = {tls}
client_tls_cert_file = {folder}/server.crt
client_tls_key_file = {folder}/server.key
"""
        )
        give(folder, account)
        who: dict[str, Any] = {} if account is None else {"user": account.uid, "group": account.gid}
        with subprocess.Popen(
            [path, "--quiet", str(folder / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            extra_groups=[] if account is not None else None,
            **who,
        ) as running:
            try:
                eventually(lambda: listens(port, running), "PgBouncer accepts connections")
                yield port
            finally:
                running.kill()


def listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether anybody can be connected to there."""
    assert process.poll() is None, f"PgBouncer has ended with code {process.returncode}"
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("replication", ["database", "physical"])
@pytest.mark.parametrize("tls", ["disable", "require"])
def test_a_pooler_that_does_not_pass_replication_on(
    connect: Connect,
    server: TLSServer,
    certificates: CertificateSet,
    tls: str,
    replication: str,
) -> None:
    if program()[1] >= (1, 23):
        pytest.skip("this PgBouncer passes replication on, which those before 1.23 do not")
    mode = "verify-full" if tls == "require" else "disable"
    with pgbouncer(server, certificates, tls) as port, pytest.raises(pgrepl.ServerError) as caught:
        connect(
            host="localhost",
            port=port,
            user="anybody",
            dbname="postgres",
            sslmode=mode,
            sslrootcert=certificates.ca,
            replication=replication,
        )
    assert caught.value.sqlstate == "08P01"
    assert "unsupported startup parameter: replication" in str(caught.value)
    assert "connect to the server itself" in str(caught.value)


def test_tls_with_a_pooler(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    """Whatever it says of replication, of TLS it says the same as a server."""
    keywords = {
        "host": "127.0.0.1",
        "user": "anybody",
        "dbname": "postgres",
        "sslrootcert": certificates.ca,
    }
    with (
        pgbouncer(server, certificates, "disable") as port,
        pytest.raises(pgrepl.TLSError, match="does not offer TLS"),
    ):
        connect(**keywords, port=port, sslmode="require")
    with pgbouncer(server, certificates, "require") as port:
        keywords["port"] = port
        with pytest.raises(pgrepl.ServerError, match="(?i)SSL required"):
            connect(**keywords, sslmode="disable")
        with pytest.raises(pgrepl.TLSError, match="certificate is not acceptable"):
            connect(**keywords | {"sslrootcert": certificates.other_ca}, sslmode="verify-ca")
        with pytest.raises(pgrepl.TLSError, match="not for the host '127.1'"):
            connect(**keywords | {"host": "127.1", "hostaddr": "127.0.0.1"}, sslmode="verify-full")
        if program()[1] < (1, 23):
            with pytest.raises(pgrepl.TLSError, match="sslnegotiation=direct needs"):
                connect(**keywords, sslmode="require", sslnegotiation="direct")


# Told to drop what it does not know, it lets us begin: an ordinary session, but that comes later.
SCRAM_BY_THE_POOLER = """
auth_type = scram-sha-256
ignore_startup_parameters = replication,DateStyle,IntervalStyle,extra_float_digits,bytea_output
"""


def test_a_pooler_that_asks_for_the_password(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    """It has a good certificate and knows the password's verifier, as a server does, but cannot
    bind one to the other: only require refuses."""
    keywords = {
        "host": "localhost",
        "user": "by_password",
        "password": PASSWORD,
        "dbname": "postgres",
        "sslrootcert": certificates.ca,
    }
    with pgbouncer(server, certificates, "allow", more=SCRAM_BY_THE_POOLER) as port:
        keywords["port"] = port
        for sslmode, reason in (
            ("verify-full", r"it offers \['SCRAM-SHA-256'\]"),
            ("disable", "this connection has no TLS to bind to"),
        ):
            with pytest.raises(pgrepl.AuthenticationError) as caught:
                connect(**keywords, sslmode=sslmode, channel_binding="require")
            assert not isinstance(caught.value, pgrepl.ServerError)
            assert re.search(f"channel_binding=require demands, but {reason}", str(caught.value))
            for binding in ("prefer", "disable"):
                with connect(**keywords, sslmode=sslmode, channel_binding=binding) as connection:
                    assert not connection.closed
        with pytest.raises(pgrepl.ServerError, match="authentication failed"):
            connect(**keywords | {"password": "wrong"}, sslmode="verify-full")
