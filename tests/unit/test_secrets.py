"""A password shows nowhere: whatever goes wrong, and however closely one looks at the wreck."""

from __future__ import annotations

import base64
import copy
import hmac
import logging
import pickle
import socket
import ssl
import threading
import warnings
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
from tests.support.disclosure import everything_about, traces
from tests.support.scram import MECHANISM, ScramServer, salted_password
from tests.support.scripted import SSL_REQUEST, Peer, Script, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

CANARY = "Zq7/Xk9 %é"
PIECES = ("Zq7", "Xk9")
USER = "ann"
OK = builders.authentication(0)
READY = builders.ready_for_query()
CLEARTEXT = builders.authentication(3)
MD5 = builders.authentication(5, b"salt")
SASL = builders.sasl_mechanisms(MECHANISM)

# Each way to give the password, as what `connect` is called with.
WAYS: dict[str, Callable[[str], tuple[str, dict[str, str]]]] = {
    "uri": lambda p: (f"postgresql://{USER}:{quote(p, safe='')}@/shop", {}),
    "query of a uri": lambda p: (f"postgresql://{USER}@/?password={quote(p, safe='')}", {}),
    "conninfo": lambda p: (f"user={USER} password='{p}' dbname=shop", {}),
    "keyword": lambda p: (f"user={USER}", {"password": p}),
    "variable": lambda p: (f"user={USER}", {}),
}


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[BaseException, str], None]]:
    """Looks for a password in an error and, at the end, in all that was logged and warned of."""
    passwords = set()

    def look(error: BaseException, password: str) -> None:
        passwords.add(password)
        shown = everything_about(error)
        assert "pgrepl" in shown, "there should be frames of the library to look at"
        for trace in traces(password, USER, *PIECES):
            assert trace not in shown

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield look
    told = caplog.text + "".join(f"{r.__dict__}" for r in caplog.records)
    told += "".join(str(each.message) for each in warned)
    assert passwords
    for password in passwords:
        for trace in traces(password, USER, *PIECES):
            assert trace not in told


@pytest.fixture(params=WAYS)
def attempt(
    request: pytest.FixtureRequest,
    connect: Callable[..., Any],
    watch: Callable[[BaseException, str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., BaseException]:
    """Tries to connect with the password, given in one of the ways, and looks at the error."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def failure(password: str = CANARY, **keywords: Any) -> BaseException:
        if request.param == "variable":
            monkeypatch.setenv("PGPASSWORD", password)
        conninfo, more = WAYS[request.param](password)
        with pytest.raises(Exception) as caught:
            connect(conninfo, **(more | {"connect_timeout": 20} | keywords))
        watch(caught.value, password)
        return caught.value

    return failure


# Before there is a connection


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
def test_what_goes_wrong_before_there_is_a_connection(
    attempt: Callable[..., BaseException], keywords: dict[str, Any]
) -> None:
    attempt(**keywords)


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
def test_a_conninfo_that_cannot_be_read(
    connect: Callable[..., Any], watch: Callable[[BaseException, str], None], conninfo: Any
) -> None:
    with pytest.raises(pgrepl.UsageError) as caught:
        connect(conninfo)
    watch(caught.value, CANARY)
    assert caught.value.__context__ is None


def test_a_keyword_that_is_no_text(
    connect: Callable[..., Any], watch: Callable[[BaseException, str], None]
) -> None:
    for password in (f"{CANARY}\0", f"\ud800{CANARY}", f"{CANARY}\udfff\ud83d"):
        with pytest.raises(pgrepl.UsageError, match="for password") as caught:
            connect(user=USER, password=password)
        watch(caught.value, CANARY)


# While the session begins


def scram_until(step: int) -> Script:
    """A script that breaks off after so many of its messages."""

    def script(peer: Peer) -> None:
        server = ScramServer(CANARY.encode())
        peer.recv_startup()
        peer.send(SASL)
        client_first = peer.expect(b"p").partition(b"\0")[2][4:]
        if step > 1:
            peer.send(builders.authentication(11, server.first(client_first)))
            final = server.final(peer.expect(b"p"))
            if step > 2:
                peer.send(builders.authentication(12, final))

    return script


def scram_with(change: Callable[[bytes], bytes], final: bytes | None = None) -> Script:
    """A script whose first message, or final one, breaks the rules."""

    def script(peer: Peer) -> None:
        server = ScramServer(CANARY.encode())
        peer.recv_startup()
        peer.send(SASL)
        first = server.first(peer.expect(b"p").partition(b"\0")[2][4:])
        peer.send(builders.authentication(11, change(first)))
        if final is not None:
            peer.expect(b"p")
            peer.send(final)
        peer.expect_hang_up()

    return script


def sends(*messages: bytes, hears: int = 0) -> Script:
    """A script that sends messages, hears as many and hangs up."""

    def script(peer: Peer) -> None:
        peer.recv_startup()
        for message in messages:
            peer.send(message)
        for _ in range(hears):
            peer.expect(b"p")

    return script


def resets(*messages: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.recv_startup()
        for message in messages:
            peer.send(message)
        peer.expect(b"p")
        peer.reset()

    return script


REJECTED = builders.error_response("wrong password", severity="FATAL", sqlstate="28P01")

SCRIPTS: dict[str, Script] = {
    "the end at once": sends(),
    "the end in a message": sends(OK[:5]),
    "the end after AuthenticationOk": sends(OK),
    "the end before ready": sends(OK, builders.backend_key_data()),
    "the end after the password": sends(CLEARTEXT, hears=1),
    "the end after MD5": sends(MD5, hears=1),
    "the end after the first step": scram_until(1),
    "the end after the second step": scram_until(2),
    "the end after the third step": scram_until(3),
    "a reset after the password": resets(CLEARTEXT),
    "a reset after MD5": resets(MD5),
    "a reset in SCRAM": resets(SASL),
    "the password rejected": sends(CLEARTEXT, REJECTED, hears=1),
    "MD5 rejected": sends(MD5, REJECTED, hears=1),
    "SCRAM rejected": scram_with(lambda first: first, REJECTED),
    "the password asked for twice": sends(CLEARTEXT, CLEARTEXT, hears=1),
    "MD5 after the password": sends(CLEARTEXT, MD5, hears=1),
    "a method that nobody knows": sends(builders.authentication(7)),
    "a mechanism that nobody knows": sends(builders.sasl_mechanisms("OTHER")),
    "a cut message": sends(builders.authentication(5, b"sal")),
    "no message at all": sends(b"HTTP/1.1 400"),
    "a length": sends(CLEARTEXT, b"R\xff\xff\xff\xff", hears=1),
    "another encoding": sends(OK, builders.parameter_status("client_encoding", "LATIN1"), READY),
    "turned away": sends(OK, builders.error_response("full", severity="FATAL", sqlstate="53300")),
    "no end of notices": sends(CLEARTEXT, builders.notice_response("n") * 1200, hears=1),
    "another nonce": scram_with(lambda first: b"r=other" + first[first.index(b",") :]),
    "a hostile count": scram_with(lambda first: first + b"000000"),
    "a bad salt": scram_with(lambda first: first.replace(b"s=", b"s=!")),
    "no SCRAM at all": scram_with(lambda first: b"\xff"),
    "a wrong signature": scram_with(lambda first: first, builders.authentication(12, b"v=AAAA")),
    "an error in SCRAM": scram_with(lambda first: first, builders.authentication(12, b"e=no")),
    "no signature": scram_with(lambda first: first, OK),
}


def test_what_goes_wrong_while_the_session_begins(attempt: Callable[..., BaseException]) -> None:
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


def test_bytes_that_are_no_text(
    connect: Callable[..., Any], watch: Callable[[BaseException, str], None]
) -> None:
    password = "Zq7\udcffXk9"
    for request in (CLEARTEXT, MD5, SASL):
        with ScriptedServer(sends(request, REJECTED)) as server:
            with pytest.raises(pgrepl.AuthenticationError) as caught:
                connect(host=server.host, port=server.port, user=USER, password=password)
            watch(caught.value, "Zq7Xk9")


def test_keys_in_place_of_a_password(
    connect: Callable[..., Any], watch: Callable[[BaseException, str], None]
) -> None:
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


def test_the_password_is_being_sent(
    encryption: ssl.SSLContext | None,
    connect: Callable[..., Any],
    watch: Callable[[BaseException, str], None],
) -> None:
    long = {
        "user": USER,
        "password": CANARY * 2_000_000,
        "sslmode": "require" if encryption else "disable",
    }
    with ScriptedServer(resets_while_it_is_sent, tls=encryption) as server:
        with pytest.raises(pgrepl.ConnectionFailed, match="while sending") as caught:
            connect(host=server.host, port=server.port, connect_timeout=20, **long)
        watch(caught.value, CANARY)
    _GO_ON.clear()
    with ScriptedServer(never_reads, tls=encryption) as server:
        with pytest.raises(pgrepl.ConnectionFailed, match="within connect_timeout") as caught:
            connect(host=server.host, port=server.port, connect_timeout=1, **long)
        _GO_ON.set()
        watch(caught.value, CANARY)


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


def test_a_connection_and_its_errors(
    connect: Callable[..., Any], watch: Callable[[BaseException, str], None]
) -> None:
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
        shown = f"{connection!r} {connection} {vars(connection)} {vars(connection._transport)}"
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


def test_parameters_and_secrets_do_not_show_it() -> None:
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


def test_nothing_listens_any_more(attempt: Callable[..., BaseException]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(attempt(host="127.0.0.1", port=port), pgrepl.ConnectionFailed)


def test_the_server_leaves_in_the_middle_of_a_query(attempt: Callable[..., BaseException]) -> None:
    def script(peer: Peer) -> None:
        handshake(peer, before_ready=[builders.error_response("no", severity="FATAL")])

    with ScriptedServer(script) as server:
        attempt(host=server.host, port=server.port, sslmode="disable")
