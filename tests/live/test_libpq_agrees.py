"""The same attempts by libpq and by pgrepl, on the same server: connected with TLS, connected
without, or refused.

Law: they agree; where `stricter` says so, of what docs/connecting.md and docs/security.md tell, it
may be refused here alone. All cells are gone through with PGREPL_LONG=1, by both flavours of the
API; otherwise some of them, evenly, by the flavours in turn.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from psycopg import pq

import pgrepl
import pgrepl.aio
from pgrepl.testing.addresses import conninfo_string
from tests.live.tls_servers import PRESENTED, TLSServer, tls_server
from tests.support.certificates import Authority, Certificate, CertificateSet
from tests.support.clusters import CLIENT_CERTIFICATE_USER, PASSWORDS, Cluster
from tests.support.inside import wire_of

Cell = TypeVar("Cell")

MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

pytestmark = pytest.mark.timeout(3600)  # with PGREPL_LONG=1


@pytest.fixture(scope="module", autouse=True)
def libpq() -> None:
    if pq.version() < 18_00_00:
        pytest.skip(f"this libpq, {pq.version()}, has not all the keywords")


@pytest.fixture(scope="module")
def server(cluster: Cluster, certificates: CertificateSet) -> Iterator[TLSServer]:
    """A server of the module's own."""
    with tls_server(cluster, certificates) as started:
        yield started


def some(cells: Iterable[Cell], step: int) -> list[Cell]:
    """One of every `step`, which has no factor in common with an axis: each value comes up."""
    return list(cells)[:: 1 if is_long() else step]


def is_long() -> bool:
    return os.environ.get("PGREPL_LONG") == "1"


def by_libpq(keywords: dict[str, str]) -> str:
    connection = pq.PGconn.connect(conninfo_string(keywords).encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            return "refused"
        return "TLS" if connection.ssl_in_use else "plain"
    finally:
        connection.finish()


def by_pgrepl(keywords: dict[str, Any]) -> str:
    try:
        with pgrepl.connect(**keywords) as connection:
            return "plain" if wire_of(connection).attempt.tls == "no" else "TLS"
    except pgrepl.Error:
        return "refused"


async def by_asyncio(keywords: dict[str, Any]) -> str:
    try:
        async with await pgrepl.aio.connect(**keywords) as connection:
            return "plain" if wire_of(connection).attempt.tls == "no" else "TLS"
    except pgrepl.Error:
        return "refused"


class Comparison:
    """Attempts, and where they did not come to the same."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._number = 0
        self._seen: set[str] = set()
        self._differences: list[tuple[object, str, set[str]]] = []

    def of(self, cell: object, *, stricter: bool = False, **keywords: Any) -> None:
        """Make the attempt in each way. None takes a keyword out."""
        given = {name: str(value) for name, value in keywords.items() if value is not None}
        given = {"connect_timeout": "20", "replication": "database", **given}
        expected = by_libpq(given)
        self._number += 1
        found = set()
        if is_long() or self._number % 2:
            found.add(by_pgrepl(given))
        if is_long() or not self._number % 2:
            found.add(self._runner.run(by_asyncio(given)))
        self._seen.add(expected)
        if found != {expected} and not (stricter and found == {"refused"}):
            self._differences.append((cell, expected, found))

    def check(self, *seen: str) -> None:
        """There were no differences, and something to compare."""
        assert self._differences == []
        assert self._seen >= set(seen)


@pytest.fixture
def comparison() -> Iterator[Comparison]:
    with asyncio.Runner() as runner:
        yield Comparison(runner)


# The chain, and what it is checked against


def test_chain(
    comparison: Comparison,
    server: TLSServer,
    certificates: CertificateSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    below = Authority("pgrepl intermediate CA", issuer=certificates.authority)
    good, revoked = (below.issue("localhost", names=["localhost"]) for _ in range(2))
    lists = certificates.crl.read_bytes() + below.revocation_list(revoked)
    itself = certificates.authority.revocation_list(Certificate(below.certificate, b""))
    crls = {"none": None, "root's": certificates.crl, "missing": tmp_path / "missing.crl"}
    for name, content in (
        ("both", lists),
        ("intermediate revoked", itself + below.revocation_list()),
    ):
        crls[name] = tmp_path / f"{name}.crl"
        crls[name].write_bytes(content)
    presented: dict[str, Certificate | None] = dict.fromkeys(PRESENTED)
    presented |= {"intermediate": good, "revoked by it": revoked}
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    roots = {
        "given": certificates.ca,
        "none": None,
        "system": "system",
        "missing": tmp_path / "missing.crt",
    }
    direct = (None, "direct") if server.major >= 17 else (None,)
    cells = some(itertools.product(presented, roots, crls, MODES, direct), 37)
    for name, group in itertools.groupby(cells, lambda cell: cell[0]):
        certificate = presented[name]
        if certificate is None:
            server.configure(certificate=name)
        else:
            server.present(certificate)
        for cell in group:
            _, root, crl, mode, negotiation = cell
            comparison.of(
                cell,
                # A root that was named must be there; lists count with those of the system too.
                stricter=root in ("missing", "system"),
                **server.address | {"host": "localhost", "hostaddr": "127.0.0.1"},
                user="anybody",
                sslmode=mode,
                sslrootcert=roots[root],
                sslcrl=crls[crl],
                sslnegotiation=negotiation,
            )
    server.configure()
    comparison.check("TLS", "plain", "refused")


# For whom a certificate is: common names, names, addresses
NAMES: Final[Sequence[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]] = (
    (("localhost",), (), ()),
    (("localhost",), (), ("127.0.0.1",)),
    (("localhost",), ("a.example.test",), ()),
    (("127.0.0.1",), (), ()),
    (("127.0.0.1",), (), ("127.0.0.9",)),
    (("*.example.test",), (), ()),
    ((), ("*.example.test", "LOCALHOST"), ()),
    ((), ("*.*.example.test", "a*.example.test", "*", "*.test"), ()),
    ((), ("127.0.0.1", "localhost.", "xn--bcher-kva.test"), ()),
    ((), (), ("::1", "127.0.0.1")),
    (("a.example.test", "localhost"), (), ()),
    ((), (), ()),
)
HOSTS: Final = (
    *("localhost", "LocalHost", "localhost.", "127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "127.0.0.9"),
    *("a.example.test", "A.EXAMPLE.Test", "b.a.example.test", ".example.test", "example.test"),
    *("ab.example.test", "foo.test", "xn--bcher-kva.test", "*.example.test", "10.0.0.1"),
)


def test_host(comparison: Comparison, server: TLSServer, certificates: CertificateSet) -> None:
    cells = some(itertools.product(NAMES, HOSTS), 5)
    for names, group in itertools.groupby(cells, lambda cell: cell[0]):
        common, alternative, addresses = names
        server.present(
            certificates.authority.issue(*common, names=alternative, addresses=addresses)
        )
        for cell in group:
            comparison.of(
                cell,
                **server.address | {"host": cell[1], "hostaddr": "127.0.0.1"},
                user="anybody",
                sslmode="verify-full",
                sslrootcert=certificates.ca,
            )
    server.configure()
    comparison.check("TLS", "refused")


# The client's certificate


def test_client_certificate(
    comparison: Comparison, server: TLSServer, certificates: CertificateSet, tmp_path: Path
) -> None:
    client = certificates.authority.issue(CLIENT_CERTIFICATE_USER, client=True)
    secret = client.encrypted("open sesame")
    file = client.write(tmp_path, "client").certificate

    def key(name: str, content: bytes, mode: int = 0o600) -> dict[str, Any]:
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(mode)
        return {"sslcert": file, "sslkey": path}

    def pair(name: str) -> dict[str, Any]:
        files = getattr(certificates, name)
        return {"sslcert": files.certificate, "sslkey": files.key}

    shown = {
        "none": {},
        "good": pair("client"),
        "expired": pair("client_expired"),
        "unknown": pair("client_unknown"),
        "a server's": pair("server"),
        "DER": key("der", client.key_as("DER", "PKCS8")),
        "opened": key("opened", secret.key) | {"sslpassword": "open sesame"},
        "not opened": key("closed", secret.key) | {"sslpassword": "open barley"},
        "readable": key("readable", client.key, 0o644),
        "readable by the group": key("group", client.key, 0o640),
        "of another": key("another", certificates.client.key.read_bytes()),
        "nonsense": key("nonsense", b"nonsense"),
        "no key": {"sslcert": file, "sslkey": tmp_path / "missing"},
        "no certificate": {"sslcert": tmp_path / "missing", "sslkey": tmp_path / "missing"},
    }
    # What is of no use keeps libpq's prefer from TLS, and is said here.
    of_no_use = {"not opened", "readable", "readable by the group", "of another", "nonsense"}
    of_no_use.add("no key")
    users = (CLIENT_CERTIFICATE_USER, "anybody")
    limits, modes = (None, "TLSv1.2"), ("prefer", "allow", "require", "verify-full")
    for cell in some(itertools.product(shown, users, limits, modes, (None, "disable")), 5):
        name, user, limit, mode, sslcertmode = cell
        comparison.of(
            cell,
            stricter=name in of_no_use and mode == "prefer",
            **server.address,
            user=user,
            sslmode=mode,
            sslcertmode=sslcertmode,
            ssl_max_protocol_version=limit,
            sslrootcert=certificates.ca,
            **shown[name],
        )
    comparison.check("TLS", "plain", "refused")


# Who is who

METHODS: Final = ("none", "password", "md5", "scram-sha-256", "gss", "sspi", "oauth")
REQUIRED: Final = (
    *(None, "", *METHODS, *(f"!{each}" for each in METHODS)),
    *("scram-sha-256,none", "password,md5", "!none,!password", "!md5,!scram-sha-256", "md5,!none"),
    *("md5,md5", "scram-sha-256,", "scram"),
)


def test_authentication(
    comparison: Comparison, own_cluster: Cluster, certificates: CertificateSet
) -> None:
    tcp = {"host": own_cluster.host, "sslmode": "disable"}
    ways: dict[str, dict[str, Any]] = {
        "TCP": tcp,
        "Unix socket": {"host": str(own_cluster.socket_directory)},
    }
    if own_cluster.has_tls:
        ways["TLS"] = tcp | {"sslmode": "require"}
    users = (*PASSWORDS, "u_trust", "u_reject", CLIENT_CERTIFICATE_USER, "nobody")
    files = certificates.client
    passwords = ("right", "right", "wrong", "", None)
    bindings = ("disable", "prefer", "require")
    for cell in some(itertools.product(users, ways, bindings, passwords, REQUIRED), 41):
        user, way, binding, password, required = cell
        comparison.of(
            cell,
            **ways[way],
            port=own_cluster.port,
            dbname="postgres",
            user=user,
            password=PASSWORDS.get(user, "any") if password == "right" else password,
            channel_binding=binding,
            require_auth=required,
            sslcert=files.certificate,
            sslkey=files.key,
        )
    comparison.check("plain", "refused", *(["TLS"] if own_cluster.has_tls else []))


# Versions


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_protocol_and_tls_versions(comparison: Comparison, server: TLSServer) -> None:
    tls = (None, "", "TLSv1.1", "TLSv1.2", "TLSv1.3", "SSLv3")
    protocol = (None, "3.0", "3.1", "3.2", "latest")
    direct = (None, "direct") if server.major >= 17 else (None,)
    for cell in some(itertools.product(tls, tls, protocol, protocol, direct), 71):
        tls_least, tls_greatest, least, greatest, negotiation = cell
        comparison.of(
            cell,
            **server.address,
            user="anybody",
            sslmode="require",
            sslnegotiation=negotiation,
            ssl_min_protocol_version=tls_least,
            ssl_max_protocol_version=tls_greatest,
            min_protocol_version=least,
            max_protocol_version=greatest,
        )
    comparison.check("TLS", "refused")
