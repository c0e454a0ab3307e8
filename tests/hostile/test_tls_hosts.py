"""For which hosts a certificate is: one table for pgrepl and for libpq, with real certificates.

What a row says is one function's word, which both flavours and both twins share: the whole table is
held against TLS in memory, and a few rows against a server, in every flavour.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pgrepl.conninfo.parameters import Host, TLSSettings
from pgrepl.errors import TLSError, UsageError
from pgrepl.transport.tls import TLSClient
from tests.hostile.sessions import address, refused
from tests.hostile.tls_sessions import FINE, REFUSED, Connect, mode, verdict
from tests.support.flavours import DRIVERS
from tests.support.scripted import Peer, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateFiles, CertificateSet

pytestmark = pytest.mark.flavours(*DRIVERS)


class Case(NamedTuple):
    """A host, whom a certificate is for, and what comes of it. `libpq`: its verdict, where it is
    another one."""

    host: str
    expected: str
    common_names: tuple[str, ...] = ("nobody.invalid",)
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    libpq: str | None = None


HOST = "db.shop.test"
EVIL = "evil.invalid"

CASES = {
    # Names
    "alternative name": Case(HOST, FINE, names=(EVIL, HOST)),
    "capital letters in the name": Case(HOST, FINE, names=("DB.Shop.TEST",)),
    "capital letters in the host": Case("DB.shop.Test", FINE, names=(HOST,)),
    "another name": Case(HOST, REFUSED, names=(EVIL,)),
    "the end of the host": Case(HOST, REFUSED, names=("shop.test", "b.shop.test")),
    "the start of the host": Case(HOST, REFUSED, names=("db", "db.shop", "db.shop.test.invalid")),
    "a dot at the end": Case(HOST + ".", REFUSED, names=(HOST,)),
    "a name in other letters": Case(
        "bücher.test", FINE, names=("xn--bcher-kva.test",), libpq=REFUSED
    ),
    # Common names
    "common name": Case(HOST, FINE, (HOST,)),
    "another common name": Case(HOST, REFUSED, (EVIL,)),
    "common name beside names": Case(HOST, REFUSED, (HOST,), names=(EVIL,)),
    "common name beside addresses": Case(HOST, FINE, (HOST,), addresses=("127.0.0.1",)),
    "the second common name": Case(HOST, REFUSED, (EVIL, HOST)),
    "no name at all": Case(HOST, REFUSED, ()),
    "names and no common name": Case(HOST, FINE, (), names=(HOST,)),
    # Wildcards
    "wildcard": Case(HOST, FINE, names=("*.shop.test",)),
    "wildcard as common name": Case(HOST, FINE, ("*.shop.test",)),
    "wildcard with capital letters": Case(HOST, FINE, names=("*.SHOP.test",)),
    "wildcard for two labels": Case(HOST, REFUSED, names=("*.test",)),
    "wildcard for no label": Case("shop.test", REFUSED, names=("*.shop.test",)),
    "wildcard for an empty label": Case(".shop.test", REFUSED, names=("*.shop.test",)),
    "wildcard alone": Case("db", REFUSED, names=("*", "*.")),
    "wildcard of a private domain": Case("db.internal", FINE, names=("*.internal",)),
    "wildcard and an underscore": Case("my_db.shop.test", FINE, names=("*.shop.test",)),
    "wildcard in a label": Case(HOST, REFUSED, names=("d*.shop.test", "*b.shop.test")),
    "wildcard further right": Case(HOST, REFUSED, names=("db.*.test", "*.*.test")),
    "wildcard in the host": Case("*.shop.test", REFUSED, names=(HOST,)),
    # Addresses
    "address": Case("127.0.0.1", FINE, addresses=("::1", "127.0.0.1")),
    "another address": Case("127.0.0.1", REFUSED, addresses=("127.0.0.2",)),
    "address in another spelling": Case("0:0::0001", FINE, addresses=("::1",)),
    "an address of the other kind": Case("127.0.0.1", REFUSED, addresses=("::ffff:127.0.0.1",)),
    "address as common name": Case("127.0.0.1", FINE, ("127.0.0.1",)),
    "address as common name beside addresses": Case(
        "127.0.0.1", REFUSED, ("127.0.0.1",), addresses=("127.0.0.2",)
    ),
    "address as common name beside names": Case(
        "127.0.0.1", FINE, ("127.0.0.1",), names=("db.shop.test",)
    ),
    "address as a name": Case("127.0.0.1", FINE, names=("127.0.0.1",)),
    "wildcard for a part of an address": Case("127.0.0.1", REFUSED, names=("*.0.0.1",), libpq=FINE),
    "the address of a host by name": Case("localhost", REFUSED, addresses=("127.0.0.1",)),
    # Octal to some, decimal to others.
    "address in a spelling of old": Case("127.1", REFUSED, addresses=("127.0.0.1",), libpq=FINE),
    # Zero bytes
    "zero byte in the common name": Case(HOST, REFUSED, (f"{HOST}\0.{EVIL}",)),
    "zero byte in a name": Case(HOST, REFUSED, names=(f"{HOST}\0.{EVIL}",)),
    "zero byte in a wildcard": Case(HOST, REFUSED, names=(f"*.shop.test\0.{EVIL}",)),
    "zero byte before a name that fits": Case(HOST, REFUSED, names=(f"{EVIL}\0", HOST)),
}


@pytest.fixture
def certificate(case: Case, certificates: CertificateSet, tmp_path: Path) -> CertificateFiles:
    """The one of the case."""
    _, _, common_names, names, addresses, _ = case
    made = certificates.authority.issue(*common_names, names=names, addresses=addresses)
    return made.write(tmp_path, "server")


over_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def verdict_in_memory(
    certificates: CertificateSet, certificate: CertificateFiles, host: Host, **settings: Any
) -> str:
    """What pgrepl's side of TLS makes of a handshake with this certificate, without a socket."""
    client = TLSClient(TLSSettings(sslrootcert=str(certificates.ca), **settings), host)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = certificate.server_context().wrap_bio(to_server, to_client, server_side=True)
    unfinished = [ours, theirs]
    while unfinished:
        for side in [*unfinished]:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                unfinished.remove(side)
    try:
        client.check(ours)
    except TLSError as error:
        assert "the server's certificate is not acceptable: it is for " in str(error)
        return REFUSED
    return FINE


@over_cases
def test_whom_a_certificate_is_for(
    certificates: CertificateSet, certificate: CertificateFiles, case: Case
) -> None:
    """Whether or not the server is told the name; `verify-ca` does not look at it."""
    host = Host(case.host, hostaddr="127.0.0.1")
    for sslsni in (True, False):
        verdict = verdict_in_memory(
            certificates, certificate, host, sslmode="verify-full", sslsni=sslsni
        )
        assert verdict == case.expected, f"{sslsni=}"
    assert verdict_in_memory(certificates, certificate, host, sslmode="verify-ca") == FINE


#: In every flavour, that the drivers ask, and what for.
WITH_A_SERVER = ("alternative name", "another name", "address", "another address")


@pytest.mark.parametrize("case", [CASES[name] for name in WITH_A_SERVER], ids=WITH_A_SERVER)
@pytest.mark.parametrize("sslsni", ["1", "0"], ids=["told the name", "not told"])
def test_hosts(
    connect: Connect,
    certificates: CertificateSet,
    certificate: CertificateFiles,
    case: Case,
    sslsni: str,
) -> None:
    keywords = {"host": case.host, "hostaddr": "127.0.0.1", "sslsni": sslsni}
    full = mode("verify-full", certificates)
    assert verdict(connect, certificate, **keywords, **full) == case.expected


@pytest.mark.parametrize("case", [CASES["another name"]], ids=["another name"])
def test_verify_ca_does_not_look_at_names(
    connect: Connect, certificates: CertificateSet, certificate: CertificateFiles
) -> None:
    keywords = {"host": HOST, "hostaddr": "127.0.0.1", **mode("verify-ca", certificates)}
    assert verdict(connect, certificate, **keywords) == FINE


def test_an_address_alone_is_no_host(connect: Connect, certificates: CertificateSet) -> None:
    keywords = {"host": None, "hostaddr": "127.0.0.1", **mode("verify-full", certificates)}
    with ScriptedServer(lambda peer: None) as server:
        error = refused(connect, server, **keywords)
    assert type(error) is UsageError
    assert "give the name as host, next to hostaddr" in str(error)


@over_cases
def test_libpq_says_the_same(
    certificates: CertificateSet, certificate: CertificateFiles, case: Case
) -> None:
    """Or the table says that it does not."""
    psycopg = pytest.importorskip("psycopg")

    def script(peer: Peer) -> None:
        handshake(peer)
        peer.expect_hang_up()

    with ScriptedServer(script, tls=certificate.server_context()) as server:
        keywords = {"host": case.host, "hostaddr": "127.0.0.1"}
        full = mode("verify-full", certificates)
        try:
            psycopg.connect(**address(server, **keywords, **full)).close()
        except psycopg.OperationalError as error:
            assert "certificate" in str(error)
            found = REFUSED
        else:
            found = FINE
    assert found == (case.libpq or case.expected)
