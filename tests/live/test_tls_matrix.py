"""TLS on real servers, by tables: what comes of each mode with each certificate, account, client
certificate, and version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

import pgrepl
from tests.live.streams import Connect
from tests.live.tls_servers import PASSWORD, PRESENTED, TLSServer, tls_server
from tests.support.certificates import CertificateSet
from tests.support.clusters import CLIENT_CERTIFICATE_USER, Cluster
from tests.support.flavours import DRIVERS

pytestmark = pytest.mark.flavours(*DRIVERS)

MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@pytest.fixture(scope="module")
def server(cluster: Cluster, certificates: CertificateSet) -> Iterator[TLSServer]:
    """A server of the module's own."""
    with tls_server(cluster, certificates) as started:
        yield started


def outcome(connect: Connect, server: TLSServer, **keywords: Any) -> str:
    """``TLS``, ``plain``, or why there is no session."""
    try:
        connection = connect(**{**server.address, "user": "anybody", **keywords})
    except pgrepl.TLSError as error:
        return "no-TLS" if "does not offer" in str(error) else "refused"
    except pgrepl.AuthenticationRejected as error:
        assert error.sqlstate == "28000"
        return "rejected"
    except pgrepl.UsageError:
        return "no-root"
    with connection:
        _, version, _ = server.session(connection.pid)
        assert connection.identify_system().timeline == 1
    return "TLS" if version else "plain"


def outcomes(connect: Connect, server: TLSServer, **keywords: Any) -> str:
    """What comes of each mode, in a line."""
    return " ".join(outcome(connect, server, sslmode=mode, **keywords) for mode in MODES)


# What a server presents: what comes of each mode, in their order, with a root certificate and a
# revocation list.
CERTIFICATES: Final[Mapping[str, str]] = {
    "server": "plain plain TLS TLS TLS TLS",
    "wrong_host": "plain plain TLS TLS TLS refused",
    "expired": "plain plain plain refused refused refused",
    "not_yet_valid": "plain plain plain refused refused refused",
    "revoked": "plain plain plain refused refused refused",
    "self_signed": "plain plain plain refused refused refused",
    "unknown": "plain plain plain refused refused refused",
}
# And with neither of them.
UNCHECKED: Final = "plain plain TLS TLS no-root no-root"


def test_the_table_is_whole() -> None:
    assert tuple(CERTIFICATES) == PRESENTED


@pytest.mark.parametrize("name", CERTIFICATES)
def test_mode_and_certificate(
    connect: Connect, server: TLSServer, certificates: CertificateSet, name: str
) -> None:
    server.configure(certificate=name)
    checked = {"sslrootcert": certificates.ca, "sslcrl": certificates.crl}
    assert outcomes(connect, server, **checked) == CERTIFICATES[name]
    assert outcomes(connect, server) == UNCHECKED
    server.configure()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "localhost."])
def test_verify_full_and_host(
    connect: Connect, server: TLSServer, certificates: CertificateSet, host: str
) -> None:
    for name, hosts in (("server", {"127.0.0.1", "localhost", "LOCALHOST"}), ("wrong_host", set())):
        server.configure(certificate=name)
        for sslsni in ("0", "1"):
            keywords = {
                "host": host,
                "hostaddr": "127.0.0.1",
                "sslmode": "verify-full",
                "sslrootcert": certificates.ca,
                "sslsni": sslsni,
            }
            expected = "TLS" if host in hosts else "refused"
            assert outcome(connect, server, **keywords) == expected
    server.configure()


# Who may come in how: what comes of each mode.
ACCOUNTS: Final[Mapping[str, str]] = {
    "anybody": "plain plain TLS TLS TLS TLS",
    "only_tls": "rejected TLS TLS TLS TLS TLS",
    "only_plain": "plain plain plain rejected rejected rejected",
    CLIENT_CERTIFICATE_USER: "rejected rejected rejected rejected rejected rejected",
}


@pytest.mark.parametrize("user", ACCOUNTS)
def test_mode_and_account(
    connect: Connect, server: TLSServer, certificates: CertificateSet, user: str
) -> None:
    keywords = {"user": user, "sslrootcert": certificates.ca}
    assert outcomes(connect, server, **keywords) == ACCOUNTS[user]


def test_a_server_without_tls(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    server.configure(ssl="off")
    expected = "plain plain plain no-TLS no-TLS no-TLS"
    assert outcomes(connect, server, sslrootcert=certificates.ca) == expected
    if server.major >= 17:
        keywords = {"sslmode": "require", "sslnegotiation": "direct"}
        assert outcome(connect, server, **keywords) == "refused"
    server.configure()


# Client certificates

# Which one is shown: what comes of it for the account that needs one, and for one that does not.
CLIENTS: Final[Mapping[str, tuple[str, str]]] = {
    "none": ("rejected", "TLS"),
    "client": ("TLS", "TLS"),
    "client_expired": ("refused", "refused"),
    "client_unknown": ("refused", "refused"),
}


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", CLIENTS)
def test_client_certificate(
    connect: Connect, server: TLSServer, certificates: CertificateSet, name: str, version: str
) -> None:
    keywords: dict[str, Any] = {"sslmode": "require", "ssl_max_protocol_version": version}
    if name != "none":
        files = getattr(certificates, name)
        keywords |= {"sslcert": files.certificate, "sslkey": files.key}
    found = tuple(
        outcome(connect, server, user=user, **keywords)
        for user in (CLIENT_CERTIFICATE_USER, "anybody")
    )
    assert found == CLIENTS[name]
    # As if there were none.
    user, disabled = CLIENT_CERTIFICATE_USER, {"sslcertmode": "disable"}
    assert outcome(connect, server, user=user, **keywords, **disabled) == "rejected"


def test_what_the_server_knows_of_a_client_certificate(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    files = certificates.client
    keywords = {
        "user": CLIENT_CERTIFICATE_USER,
        "sslmode": "verify-full",
        "sslrootcert": certificates.ca,
        "sslcert": files.certificate,
        "sslkey": files.key,
    }
    for replication in ("database", "physical"):
        with connect(**server.address, **keywords, replication=replication) as connection:
            user, _, subject = server.session(connection.pid)
            assert (user, subject) == (CLIENT_CERTIFICATE_USER, f"/CN={CLIENT_CERTIFICATE_USER}")


def test_the_certificate_of_somebody_else(
    connect: Connect, server: TLSServer, certificates: CertificateSet, tmp_path: Any
) -> None:
    files = certificates.authority.issue("somebody", client=True).write(tmp_path, "somebody")
    keywords = {"sslmode": "require", "sslcert": files.certificate, "sslkey": files.key}
    found = outcome(connect, server, user=CLIENT_CERTIFICATE_USER, **keywords)
    assert found == "rejected"


# Versions: the server's least and greatest, the client's, and what comes of them. None: as it is
# without the setting.
VERSIONS: Final = [
    (None, None, None, None, "TLSv1.3"),
    (None, "TLSv1.2", None, None, "TLSv1.2"),
    ("TLSv1.3", None, None, None, "TLSv1.3"),
    (None, None, None, "TLSv1.2", "TLSv1.2"),
    (None, None, "TLSv1.3", None, "TLSv1.3"),
    (None, None, "TLSv1.2", "TLSv1.2", "TLSv1.2"),
    (None, "TLSv1.2", "TLSv1.3", None, "refused"),
    ("TLSv1.3", None, None, "TLSv1.2", "refused"),
    ("TLSv1.2", "TLSv1.2", None, "TLSv1.3", "TLSv1.2"),
]


def test_version(connect: Connect, server: TLSServer) -> None:
    found = []
    for server_least, server_greatest, least, greatest, _ in VERSIONS:
        limits = {
            "ssl_min_protocol_version": server_least,
            "ssl_max_protocol_version": server_greatest,
        }
        server.configure(**{name: value for name, value in limits.items() if value})
        keywords = {
            **server.address,
            "user": "anybody",
            "sslmode": "require",
            "ssl_min_protocol_version": least,
            "ssl_max_protocol_version": greatest,
        }
        try:
            with connect(**keywords) as connection:
                _, version, _ = server.session(connection.pid)
        except pgrepl.TLSError as error:
            assert "ssl_min_protocol_version and ssl_max_protocol_version" in str(error)
            version = "refused"
        found.append((server_least, server_greatest, least, greatest, version))
    assert found == VERSIONS
    server.configure()


# Direct negotiation


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("replication", ["database", "physical"])
def test_direct_tls(
    connect: Connect, server: TLSServer, certificates: CertificateSet, mode: str, replication: str
) -> None:
    keywords = {
        "user": "by_password",
        "password": PASSWORD,
        "sslnegotiation": "direct",
        "sslmode": mode,
        "sslrootcert": certificates.ca,
        "replication": replication,
    }
    if server.major < 17:
        with pytest.raises(pgrepl.TLSError, match="direct needs PostgreSQL 17 or later"):
            connect(**server.address, **keywords)
        return
    with connect(**server.address, **keywords) as connection:
        user, version, _ = server.session(connection.pid)
        assert (user, version) == ("by_password", "TLSv1.3")
        assert connection.identify_system().timeline == 1


def test_direct_tls_is_checked_like_any_other(
    connect: Connect, server: TLSServer, certificates: CertificateSet
) -> None:
    if server.major < 17:
        pytest.skip("needs PostgreSQL 17, which has sslnegotiation=direct")
    found = {}
    for name in CERTIFICATES:
        server.configure(certificate=name)
        keywords = {
            "sslnegotiation": "direct",
            "sslrootcert": certificates.ca,
            "sslcrl": certificates.crl,
        }
        found[name] = [outcome(connect, server, sslmode=mode, **keywords) for mode in MODES[3:]]
    assert found == {name: line.split()[3:] for name, line in CERTIFICATES.items()}
    server.configure()
