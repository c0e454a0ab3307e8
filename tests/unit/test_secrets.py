"""A password shows nowhere: whatever goes wrong, and however closely one looks at the wreck."""

from __future__ import annotations

import base64
import copy
import hmac
import os
import pickle
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

import pgrepl
from pgrepl.conninfo import resolve
from pgrepl.secret import Secret
from tests.support import builders
from tests.support.canary import (
    CANARY,
    CLEARTEXT,
    MD5,
    OK,
    PIECES,
    READY,
    REJECTED,
    SASL,
    SCRIPTS,
    USER,
    WAYS,
    Look,
    sends,
    watching,
)
from tests.support.disclosure import everything_about, traces
from tests.support.flavours import BLOCKING, FEW_FLAVOURS, Flavour
from tests.support.inside import transport_of, wire_of
from tests.support.scram import salted_password
from tests.support.scripted import SSL_REQUEST, Peer, Script, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Iterator[Look]:
    with watching(caplog) as look:
        yield look


@pytest.fixture
def attempt(
    flavour: Flavour,
    connect: Callable[..., Any],
    watch: Look,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., BaseException]:
    """Tries to connect with the password, given in each way there is, and looks at the errors.

    What becomes of a password until there is a connection is the same in both flavours: asyncio
    has it given in one way.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in os.environ:
        if name.startswith("PG") and not name.startswith("PGREPL"):
            monkeypatch.delenv(name)

    def failure(way: str, password: str, keywords: dict[str, Any]) -> BaseException:
        with monkeypatch.context() as patch:
            conninfo, more = WAYS[way](password, tmp_path, patch)
            with pytest.raises(Exception) as caught:
                connect(conninfo, **(more | {"connect_timeout": 20} | keywords))
        watch(caught.value, password)
        return caught.value

    def failures(password: str = CANARY, **keywords: Any) -> BaseException:
        errors = {}
        for way in WAYS if flavour.is_blocking else ["uri"]:
            try:
                errors[way] = failure(way, password, keywords)
            except BaseException as error:
                error.add_note(f"The password was given by way of: {way}")
                raise
        assert len({type(error) for error in errors.values()}) == 1, errors
        return errors[way]

    return failures


# Before there is a connection, so that no twin of the codec has seen anything

no_codec = pytest.mark.flavours("blocking-python", "asyncio-python")


@no_codec
@pytest.mark.parametrize(
    "keywords",
    [
        {"nonsense": 1},
        {"pasword": "x"},
        {"service": "x"},
        {"replication": "nonsense"},
        {"host": "a,b"},
        {"port": "x"},
        {"port": 0},
        {"connect_timeout": "x"},
        {"sslmode": "nonsense"},
        {"sslrootcert": "system", "sslmode": "require"},
        {"sslrootcert": "/no/such/file", "sslmode": "verify-full", "host": "127.0.0.1"},
        {"application_name": "a\0b"},
        {"options": "\ud800"},
        {"host": "127.0.0.1", "port": 1},
        {"host": "a..b"},
        {"host": "no-such-host.invalid"},
        {"host": "/no-such-folder"},
        {"host": "127.0.0.1", "options": "x" * 10001, "port": 1},
    ],
    ids=str,
)
def test_v17_what_goes_wrong_before_there_is_a_connection(
    attempt: Callable[..., BaseException], keywords: dict[str, Any]
) -> None:
    attempt(**keywords)


@no_codec
@pytest.mark.parametrize(
    "conninfo",
    [
        f"password='{CANARY}",
        f"password='{CANARY}' x",
        f"password={CANARY}",
        f"user=ann password={CANARY} host=h",
        f"host={CANARY} port=x",
        f"port={CANARY}",
        f"sslmode={CANARY!r}",
        f"{CANARY}=x",
        CANARY,
        f"postgresql://ann:{CANARY}@h/d",
        f"postgresql://ann:{CANARY}",
        f"postgresql://ann@h/d?{CANARY}",
        f"postgresql://ann@h/d?password={CANARY}",
        f"postgresql://ann@h/d?passwd={quote(CANARY, safe='')}",
        f"postgresql://ann:{quote(CANARY, safe='')}%zz@h",
        f"postgresql://ann:{quote(CANARY, safe='')}%ff@h",
        f"postgresql://ann:{quote(CANARY, safe='')}@h:x",
        f"postgresql://ann:{quote(CANARY, safe='')}%00@h",
        f"postgresql://ann:x@{quote(CANARY, safe='')}:x/d",
        f"postgresql://[{CANARY}",
        f"postgresql://ann:{CANARY}@h".encode(),
    ],
    ids=range(21),
)
def test_v17_a_conninfo_that_cannot_be_read(
    connect: Callable[..., Any], watch: Look, conninfo: Any
) -> None:
    with pytest.raises(pgrepl.UsageError) as caught:
        connect(conninfo)
    watch(caught.value, CANARY)
    assert caught.value.__context__ is None


@no_codec
def test_a_keyword_that_is_no_text(connect: Callable[..., Any], watch: Look) -> None:
    for password in (f"{CANARY}\0", f"\ud800{CANARY}", f"{CANARY}\udfff\ud83d"):
        with pytest.raises(pgrepl.UsageError, match="for password") as caught:
            connect(user=USER, password=password)
        watch(caught.value, CANARY)


# While the session begins


def test_v17_what_goes_wrong_while_the_session_begins(
    attempt: Callable[..., BaseException],
) -> None:
    assert len(SCRIPTS) >= 25
    for name, script in SCRIPTS.items():
        with ScriptedServer(script) as server:
            error = attempt(host=server.host, port=server.port, sslmode="disable")
        assert isinstance(error, pgrepl.Error), name


def test_passwords_that_cannot_be_prepared(attempt: Callable[..., BaseException]) -> None:
    """Control characters, unassigned ones, private ones, both directions, nothing that is left."""
    for middle in ("\u0007", "\U0001f642", "\ue000", "\u0627", "\u00ad"):
        for request in (CLEARTEXT, MD5, SASL):
            with ScriptedServer(sends(request, REJECTED)) as server:
                error = attempt(
                    f"Zq7{middle}Xk9", host=server.host, port=server.port, sslmode="disable"
                )
            assert isinstance(error, pgrepl.AuthenticationError)


def test_bytes_that_are_no_text(connect: Callable[..., Any], watch: Look) -> None:
    password = "Zq7\udcffXk9"
    for request in (CLEARTEXT, MD5, SASL):
        with ScriptedServer(sends(request, REJECTED)) as server:
            with pytest.raises(pgrepl.AuthenticationError) as caught:
                connect(host=server.host, port=server.port, user=USER, password=password)
            watch(caught.value, "Zq7Xk9")


def test_keys_in_place_of_a_password(connect: Callable[..., Any], watch: Look) -> None:
    salted = salted_password(CANARY.encode(), bytes(range(16)), 4096)
    keys = {
        f"scram_{name}_key": base64.b64encode(
            hmac.digest(salted, f"{name.title()} Key".encode(), "sha256")
        ).decode()
        for name in ("client", "server")
    }
    only_one = {"scram_client_key": keys["scram_client_key"]}
    too_short = keys | {"scram_client_key": keys["scram_client_key"][4:]}
    for name, script in SCRIPTS.items():
        for given in (keys, only_one, too_short):
            with ScriptedServer(script) as server:
                with pytest.raises(pgrepl.Error) as caught:
                    connect(
                        **{"host": server.host, "port": server.port, "user": USER},
                        **{"sslmode": "disable", "connect_timeout": 20},
                        **given,
                    )
                watch(caught.value, CANARY)
            assert given["scram_client_key"] not in everything_about(caught.value), name
            assert isinstance(caught.value, pgrepl.UsageError) == (given is not keys), name


def test_a_python_without_md5(
    attempt: Callable[..., BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(data: bytes, **keywords: object) -> None:
        raise ValueError("unsupported hash type md5")

    fips = SimpleNamespace(md5=unsupported)
    monkeypatch.setattr("pgrepl.protocol.authentication.hashlib", fips)
    with ScriptedServer(sends(MD5)) as server:
        attempt(host=server.host, port=server.port, sslmode="disable")


# While the password is being sent. It is a very long one, so that sending takes its time.


def never_reads(peer: Peer) -> None:
    _begin(peer)
    peer.send(CLEARTEXT)
    while not _GO_ON.wait(0.01):
        pass


def resets_while_it_is_sent(peer: Peer) -> None:
    _begin(peer)
    peer.send(CLEARTEXT)
    peer.recv_exactly(100)
    peer.reset()


def _begin(peer: Peer) -> None:
    while peer.recv_startup().code == SSL_REQUEST:
        peer.send(b"S")
        peer.start_tls()


_GO_ON = threading.Event()


@pytest.fixture(params=["plain", "TLS"])
def encryption(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    """What the server presents, if it has TLS."""
    if request.param == "plain":
        return None
    certificates: CertificateSet = request.getfixturevalue("certificates")
    return certificates.server.server_context()


def test_v17_the_password_is_being_sent(
    encryption: ssl.SSLContext | None,
    connect: Callable[..., Any],
    watch: Look,
) -> None:
    long = {
        "user": USER,
        "password": CANARY * 2_000_000,
        "sslmode": "require" if encryption else "disable",
    }
    with ScriptedServer(resets_while_it_is_sent, tls=encryption) as server:
        with pytest.raises(pgrepl.ConnectionFailed, match="while (sending|receiving)") as caught:
            connect(host=server.host, port=server.port, connect_timeout=20, **long)
        watch(caught.value, CANARY)
    _GO_ON.clear()
    with ScriptedServer(never_reads, tls=encryption) as server:
        with pytest.raises(pgrepl.ConnectionFailed, match="within connect_timeout") as caught:
            connect(host=server.host, port=server.port, connect_timeout=1, **long)
        _GO_ON.set()
        watch(caught.value, CANARY)


@no_codec
def test_tls_fails(attempt: Callable[..., BaseException], certificates: CertificateSet) -> None:
    def answers(byte: bytes) -> Script:
        def script(peer: Peer) -> None:
            peer.recv_startup()
            peer.send(byte)

        return script

    def begins_tls(peer: Peer) -> None:
        _begin(peer)

    for script in (answers(b"N"), answers(b"S" + OK), answers(b"E"), answers(b"?"), answers(b"")):
        with ScriptedServer(script) as server:
            attempt(host=server.host, port=server.port, sslmode="require")
    with ScriptedServer(begins_tls, tls=certificates.wrong_host.server_context()) as server:
        keywords = {"sslmode": "verify-full", "sslrootcert": certificates.ca}
        error = attempt(host=server.host, port=server.port, **keywords)
        assert isinstance(error, pgrepl.TLSError)


# A connection that has a password behind it


@pytest.mark.flavours(*BLOCKING)
def test_v17_a_connection_and_its_errors(connect: Callable[..., Any], watch: Look) -> None:
    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(CLEARTEXT)
        peer.expect(b"p")
        peer.send(OK + READY)
        peer.recv_query()
        peer.send(builders.error_response("no") + READY)
        peer.recv_query()
        peer.send(b"\0")
        peer.expect_hang_up()

    with ScriptedServer(script) as server:
        connection = connect(
            host=server.host, port=server.port, user=USER, password=CANARY, sslmode="disable"
        )
        shown = f"{connection!r} {connection} {vars(connection)} "
        shown += f"{vars(wire_of(connection))} {vars(transport_of(connection))}"
        assert not any(trace in shown for trace in traces(CANARY, USER, *PIECES))
        with pytest.raises(TypeError) as not_pickled:
            pickle.dumps(connection)
        assert not any(trace in str(not_pickled.value) for trace in traces(CANARY, USER, *PIECES))
        for use in (
            lambda: connection.query("SELECT 1", timeout=20),
            lambda: connection.query("SELECT 1", timeout=20),
            lambda: connection.query("SELECT 1", timeout=20),
            connection.receive_wal_message,
        ):
            with pytest.raises(pgrepl.Error) as caught:
                use()
            watch(caught.value, CANARY)
        connection.close()


def test_v17_parameters_and_secrets_do_not_show_it() -> None:
    parameters = resolve(f"user={USER} password='{CANARY}'", {})
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    for each in (secret, parameters):
        assert not any(
            trace in f"{each!r} {each} {each!s:>5}" for trace in traces(CANARY, USER, *PIECES)
        )
        for take in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="a secret cannot be pickled"):
                take(each)
    assert not hasattr(secret, "__dict__")
    assert all("Zq7" not in str(getattr(secret, name)) for name in dir(secret))
    assert secret != Secret(CANARY)


def test_the_watch_would_notice() -> None:
    """What this page looks for is found where it is: in messages, arguments, locals and causes."""

    def fails(password: str) -> None:
        raise ValueError(len(password))

    namespace: dict[str, Any] = {}
    source = "def outer(fails, secret):\n    held = bytearray(secret.encode())\n    fails(secret)\n"
    exec(compile(source, "/elsewhere/pgrepl/outer.py", "exec"), namespace)
    with pytest.raises(ValueError, match="10") as caught:
        namespace["outer"](fails, CANARY)
    assert "Zq7" in everything_about(caught.value)
    wrapped = pgrepl.ConnectionFailed("lost")
    wrapped.__context__ = caught.value
    assert "Zq7" in everything_about(wrapped)
    assert "Zq7" in everything_about(ValueError(CANARY))
    assert "Zq7" not in everything_about(wrapped.__class__("lost"))


@no_codec
def test_nothing_listens_any_more(attempt: Callable[..., BaseException]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(attempt(host="127.0.0.1", port=port), pgrepl.ConnectionFailed)


def test_the_server_leaves_in_the_middle_of_a_query(attempt: Callable[..., BaseException]) -> None:
    def script(peer: Peer) -> None:
        handshake(peer, before_ready=[builders.error_response("no", severity="FATAL")])

    with ScriptedServer(script) as server:
        attempt(host=server.host, port=server.port, sslmode="disable")
