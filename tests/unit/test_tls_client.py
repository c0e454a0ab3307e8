"""What is asked of a TLS session and of a certificate, where no server can be made to show it."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest

from pgrepl.conninfo.parameters import ConnectionParameters, Host, TLSSettings
from pgrepl.errors import TLSError
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.conversation import Exchange
from pgrepl.transport.attempts import Attempt, LookUp, Opened, search
from pgrepl.transport.tls import TLSClient
from pgrepl.transport.tls_names import is_for_host, name_to_send, names_of


class Session:
    """A session after the handshake."""

    def __init__(self, protocol: str | None, certificate: Any = None) -> None:
        self._protocol = protocol
        self._certificate = certificate

    def selected_alpn_protocol(self) -> str | None:
        return self._protocol

    def getpeercert(self) -> Any:
        if isinstance(self._certificate, Exception):
            raise self._certificate
        return self._certificate


def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, **settings: Any) -> TLSClient:
    monkeypatch.setenv("HOME", str(tmp_path))
    return TLSClient(TLSSettings(**settings), Host("db.test"))


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
@pytest.mark.parametrize("protocol", ["http/1.1", "postgresql ", "", "\x1b[2J"])
def test_a_server_that_chooses_what_was_not_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, negotiation: str, protocol: str
) -> None:
    made = client(monkeypatch, tmp_path, sslmode="require", sslnegotiation=negotiation)
    session: Any = Session(protocol)
    with pytest.raises(TLSError) as caught:
        made.check(session)
    assert "the protocol 'postgresql' (ALPN)" in str(caught.value)
    assert "something else than PostgreSQL listens there" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("negotiation", "fine"), [("postgres", True), ("direct", False)])
def test_a_server_that_chooses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, negotiation: str, fine: bool
) -> None:
    made = client(monkeypatch, tmp_path, sslmode="require", sslnegotiation=negotiation)
    agreed: Any = Session("postgresql")
    made.check(agreed)
    session: Any = Session(None)
    if fine:
        made.check(session)
    else:
        with pytest.raises(TLSError, match="got None"):
            made.check(session)


BROKEN = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


@pytest.mark.parametrize("certificate", [None, {}, BROKEN], ids=["none", "not read", "not UTF-8"])
def test_a_certificate_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, certificate: Any
) -> None:
    """It is for nobody."""
    roots = ssl.get_default_verify_paths().openssl_cafile_env
    monkeypatch.setenv(roots, "/nonexistent")
    made = client(monkeypatch, tmp_path, sslmode="verify-full", sslrootcert="system")
    session: Any = Session("postgresql", certificate)
    with pytest.raises(TLSError, match=r"it is for nobody, not for the host 'db\.test'"):
        made.check(session)


def alternatives(*names: tuple[str, str], common_name: str = "nobody") -> dict[str, Any]:
    subject = (((("countryName", "XX"),)), (("commonName", common_name),))
    return {"subject": subject, "subjectAltName": names}


@pytest.mark.parametrize(
    ("host", "certificate"),
    [
        # A letter that becomes a k as a small one.
        ("k.test", alternatives(("DNS", "\u212a.test"))),
        ("k.test", alternatives(common_name="\u212a.test")),
        ("", alternatives(("DNS", ""))),
        (".test", alternatives(("DNS", "*.test"))),
        ("a..test", alternatives(("DNS", "*..test"))),
        ("a" * 64 + ".test", alternatives(("DNS", "*.test"))),
        # As Python says of an address that has neither 4 nor 16 bytes.
        ("127.0.0.1", alternatives(("IP Address", "<invalid>"), common_name="127.0.0.1")),
        ("fe80::1%eth0", alternatives(("IP Address", "fe80::1"))),
        ("127.0.0.1", alternatives(("DNS", "\u0661\u0662\u0667.0.0.1"))),
        ("db.test", alternatives(("URI", "db.test"), ("email", "db.test"))),
        ("db.test", {"subject": ((("organizationName", "db.test"),),)}),
        ("db.test", {}),
    ],
)
def test_hosts_that_a_certificate_is_not_for(host: str, certificate: Any) -> None:
    assert not is_for_host(certificate, host)


def test_names_that_are_of_no_kind_leave_it_to_the_common_name() -> None:
    certificate = alternatives(("URI", "x"), ("othername", "<unsupported>"), common_name="db.test")
    assert is_for_host(certificate, "db.test")
    assert names_of(certificate) == ["db.test"]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("db.test", "db.test"),
        ("my_db", "my_db"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("10.0.0.1", None),
        ("10.1", None),
        ("1", None),
        (".", None),
        ("", None),
        ("::1", None),
        ("fe80::1%eth0", None),
        (".test", None),
        ("a..test", None),
        ("a" * 64, None),
    ],
)
def test_the_name_that_is_sent(host: str, name: str | None) -> None:
    assert name_to_send(host) == name


# What is told of a connection without TLS


def found(parameters: ConnectionParameters, address: str, *, tls: bool) -> None:
    """Search for a server; the only address there is has TLS, or none."""
    searching: Any = search(parameters)
    exchange = Exchange(searching)
    while (request := exchange.request) is not None:
        if isinstance(request, LookUp):
            exchange.answer([(socket.AF_INET, (address, request.port))])
        else:
            assert isinstance(request, Attempt)
            exchange.answer(Opened(None, ServerState(), request.made_with(tls=tls)))


@pytest.mark.parametrize(
    ("address", "sslmode", "tls", "warned"),
    [
        ("192.0.2.1", "prefer", False, True),
        ("192.0.2.1", "prefer", True, False),
        ("192.0.2.1", "require", True, False),
        # Who says so needs no warning.
        ("192.0.2.1", "disable", False, False),
        ("192.0.2.1", "allow", False, False),
        # There is nobody to listen.
        ("127.0.0.1", "prefer", False, False),
        ("::1", "prefer", False, False),
        ("::ffff:127.0.0.1", "prefer", False, False),
    ],
)
def test_prefer_warns_of_a_connection_without_tls(
    caplog: pytest.LogCaptureFixture, address: str, sslmode: Any, tls: bool, warned: bool
) -> None:
    parameters = ConnectionParameters(
        hosts=(Host("db.test"),), user="ann", dbname="shop", tls=TLSSettings(sslmode=sslmode)
    )
    found(parameters, address, tls=tls)
    records = [(each.name, each.levelname) for each in caplog.records]
    assert records == ([("pgrepl.tls", "WARNING")] if warned else [])
    if warned:
        assert "db.test" in caplog.text
        assert "sslmode=require" in caplog.text


def test_nobody_is_warned_of_a_unix_socket(caplog: pytest.LogCaptureFixture) -> None:
    parameters = ConnectionParameters(hosts=(Host("/tmp"),), user="ann", dbname="shop")
    found(parameters, "", tls=False)
    assert not caplog.records


def test_the_ciphers_are_pythons_but_those_whose_cost_is_the_servers_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Diffie-Hellman without curves has numbers as long as a server likes."""
    chosen = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).get_ciphers()
    offered = client(monkeypatch, tmp_path, sslmode="require")._context.get_ciphers()
    assert offered == [each for each in chosen if each["kea"] != "kx-dhe"]
    assert {each["protocol"] for each in offered} == {"TLSv1.2", "TLSv1.3"}
