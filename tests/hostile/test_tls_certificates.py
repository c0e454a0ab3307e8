"""Certificates of servers: which ones will do, for which host, and which version of TLS."""

from __future__ import annotations

import socket
import ssl
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import TLSError, UsageError
from tests.hostile.sessions import address, answers_a_query, assert_usable, refused
from tests.hostile.tls_sessions import (
    FINE,
    REFUSED,
    REQUIRING,
    Connect,
    has_tls,
    mode,
    tls_session,
    verdict,
)
from tests.support.flavours import DRIVERS
from tests.support.scripted import Peer, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet, KeyKind

pytestmark = pytest.mark.flavours(*DRIVERS)

# Whether it is good

CASES = {
    # certificate: what require, verify-ca and verify-full make of it
    "server": (FINE, FINE, FINE),
    "wrong_host": (FINE, FINE, REFUSED),
    "expired": (FINE, REFUSED, REFUSED),
    "not_yet_valid": (FINE, REFUSED, REFUSED),
    "self_signed": (FINE, REFUSED, REFUSED),
    "unknown": (FINE, REFUSED, REFUSED),
    "client": (FINE, REFUSED, REFUSED),
    # Without a revocation list nobody knows.
    "revoked": (FINE, FINE, FINE),
}


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
    assert verdict(connect, certificates.server, **keywords) == REFUSED


def test_an_intermediate_authority(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    from tests.support.certificates import ADDRESSES, NAMES, Authority, Certificate

    between = Authority("between", issuer=certificates.authority)
    made = between.issue("localhost", names=NAMES, addresses=ADDRESSES)
    full = mode("verify-full", certificates)
    assert verdict(connect, made.write(tmp_path, "whole"), **full) == FINE
    end = b"-----END CERTIFICATE-----\n"
    alone = Certificate(made.certificate.partition(end)[0] + end, made.key)
    assert verdict(connect, alone.write(tmp_path, "alone"), **full) == REFUSED
    # A list of one authority alone is no list of the whole chain.
    of_the_root = certificates.authority.revocation_list()
    lists = tmp_path / "lists.crl"
    lists.write_bytes(of_the_root)
    chained = made.write(tmp_path, "chained")
    assert verdict(connect, chained, sslcrl=lists, **full) == REFUSED
    lists.write_bytes(of_the_root + between.revocation_list())
    assert verdict(connect, chained, sslcrl=lists, **full) == FINE
    lists.write_bytes(of_the_root + between.revocation_list(made))
    assert verdict(connect, chained, sslcrl=lists, **full) == REFUSED


@pytest.mark.parametrize("kind", ["ec", "rsa", "rsa-pss", "ed25519"])
def test_kinds_of_keys(connect: Connect, tmp_path: Path, kind: KeyKind) -> None:
    from tests.support.certificates import ADDRESSES, NAMES, Authority

    authority = Authority("of another kind", kind=kind)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    made = authority.issue("localhost", names=NAMES, addresses=ADDRESSES, kind=kind)
    keywords = {"sslmode": "verify-full", "sslrootcert": tmp_path / "ca.crt"}
    assert verdict(connect, made.write(tmp_path, "server"), **keywords) == FINE


# Where the roots are


def test_the_root_certificate_at_home(
    connect: Connect, certificates: CertificateSet, home: Path
) -> None:
    """A root.crt that is there turns require into verify-ca."""
    assert verdict(connect, certificates.self_signed, sslmode="require") == FINE
    (home / ".postgresql").mkdir()
    (home / ".postgresql" / "root.crt").write_bytes(certificates.ca.read_bytes())
    for sslmode in REQUIRING:
        assert verdict(connect, certificates.server, sslmode=sslmode) == FINE
        assert verdict(connect, certificates.self_signed, sslmode=sslmode) == REFUSED
    assert verdict(connect, certificates.wrong_host, sslmode="require") == FINE


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
    # A listener, since the files are read when there is a server to use them with.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = {"host": "127.0.0.1", "port": listener.getsockname()[1], "user": "ann"}
        for sslmode in ("verify-ca", "verify-full"):
            with pytest.raises(UsageError, match=f"sslmode={sslmode} checks .* does not exist"):
                connect(**where, sslmode=sslmode)
        missing = tmp_path / "missing.crt"
        with pytest.raises(UsageError, match="does not exist; name a file in sslrootcert"):
            connect(**where, sslmode="require", sslrootcert=missing)
        nonsense = tmp_path / "nonsense.crt"
        nonsense.write_text("no certificate")
        with pytest.raises(UsageError, match="expected PEM certificates in sslrootcert"):
            connect(**where, sslmode="require", sslrootcert=nonsense)


@pytest.mark.parametrize("trusted", [True, False])
def test_the_roots_of_the_system(
    connect: Connect,
    certificates: CertificateSet,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    trusted: bool,
) -> None:
    # By the variable that moves the system's file; and not the one at home.
    file = certificates.ca if trusted else certificates.other_ca
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(file))
    (home / ".postgresql").mkdir()
    (home / ".postgresql" / "root.crt").write_bytes(certificates.ca.read_bytes())
    keywords = {"sslrootcert": "system", "sslmode": "verify-full"}
    assert verdict(connect, certificates.server, **keywords) == (FINE if trusted else REFUSED)
    # Which it is for is what matters where everybody can get one.
    assert verdict(connect, certificates.wrong_host, **keywords) == REFUSED
    keywords["sslcrl"] = str(certificates.crl)
    assert verdict(connect, certificates.revoked, **keywords) == REFUSED
    with pytest.raises(UsageError, match="sslrootcert=system"):
        connect(host="127.0.0.1", user="ann", sslrootcert="system", sslmode="verify-ca")


# Revocation


def test_a_revoked_certificate(connect: Connect, certificates: CertificateSet, home: Path) -> None:
    for sslmode in ("verify-ca", "verify-full"):
        keywords = mode(sslmode, certificates)
        for crl, expected in ((certificates.crl, REFUSED), (home / "missing.crl", FINE)):
            assert verdict(connect, certificates.revoked, sslcrl=crl, **keywords) == expected
            assert verdict(connect, certificates.server, sslcrl=crl, **keywords) == FINE
    (home / ".postgresql").mkdir()
    (home / ".postgresql" / "root.crl").write_bytes(certificates.crl.read_bytes())
    keywords = mode("verify-full", certificates)
    assert verdict(connect, certificates.revoked, **keywords) == REFUSED
    assert verdict(connect, certificates.server, **keywords) == FINE


def test_a_file_that_holds_no_revocation_lists(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    nonsense = tmp_path / "nonsense.crl"
    nonsense.write_text("no list")
    with pytest.raises(UsageError, match="expected PEM revocation lists in sslcrl"):
        verdict(connect, certificates.server, sslcrl=nonsense, **mode("verify-ca", certificates))


def test_a_folder_of_revocation_lists(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    keywords = {"sslcrldir": folder, **mode("verify-ca", certificates)}
    # Once lists are to be looked at, an authority without one vouches for nobody.
    assert verdict(connect, certificates.server, **keywords) == REFUSED
    (folder / f"{name_hash(certificates)}.r0").write_bytes(certificates.crl.read_bytes())
    assert verdict(connect, certificates.server, **keywords) == FINE
    assert verdict(connect, certificates.revoked, **keywords) == REFUSED


def name_hash(certificates: CertificateSet) -> str:
    """What OpenSSL looks for in such a folder: the start of SHA-1 of the name in one form (its
    program `rehash` makes links of that name)."""
    import hashlib

    from cryptography import x509

    name = x509.load_pem_x509_certificate(certificates.ca.read_bytes()).subject
    # The form: without the outer sequence, and texts in UTF-8 and small letters.
    [attribute] = list(name)
    small = x509.Name([x509.NameAttribute(attribute.oid, str(attribute.value).lower())])
    canonical = small.public_bytes()[2:]
    return hashlib.sha1(canonical).digest()[3::-1].hex()


def test_a_revocation_list_that_is_none(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    nonsense = tmp_path / "nonsense.crl"
    nonsense.write_text("no list")
    with ScriptedServer(lambda peer: None) as server:
        error = refused(connect, server, sslcrl=nonsense, **mode("verify-ca", certificates))
    assert type(error) is UsageError
    assert "expected PEM revocation lists in sslcrl" in str(error)


def test_a_revocation_list_that_is_too_old(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    from datetime import timedelta

    old = tmp_path / "old.crl"
    old.write_bytes(certificates.authority.revocation_list(validity=timedelta(days=-1)))
    keywords = {"sslcrl": old, **mode("verify-ca", certificates)}
    context = certificates.server.server_context()
    with ScriptedServer(tls_session, tls=context) as server:
        error = refused(connect, server, **keywords)
    assert "CRL has expired" in str(error)
    assert "fetch a new revocation list" in str(error)


# What is said of it


@pytest.mark.parametrize(
    ("name", "why", "advice"),
    [
        ("expired", "certificate has expired", "have it renewed"),
        ("not_yet_valid", "certificate is not yet valid", "this machine's clock is wrong"),
        ("self_signed", "self", "in sslrootcert"),
        ("unknown", "unable to get local issuer", "name the certificate of its authority"),
        ("wrong_host", "it is for 'elsewhere.invalid', not for the host '127.0.0.1'", "hostaddr"),
    ],
)
def test_what_is_wrong_is_told(
    connect: Connect, certificates: CertificateSet, name: str, why: str, advice: str
) -> None:
    context = getattr(certificates, name).server_context()
    with ScriptedServer(tls_session, tls=context) as server:
        error = refused(connect, server, **mode("verify-full", certificates))
    assert why in str(error)
    assert advice in str(error)
    assert "127.0.0.1" in str(error)


def test_names_that_are_not_fit_to_print(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    names = [f"\x1b[{i}J.invalid" for i in range(5)] + ["long" * 60]
    made = certificates.authority.issue("localhost", names=names[::-1])
    context = made.write(tmp_path, "strange").server_context()
    with ScriptedServer(tls_session, tls=context) as server:
        error = refused(connect, server, **mode("verify-full", certificates))
    assert str(error).isprintable()
    assert len(str(error)) < 400
    assert "and 3 more" in str(error)


# The version of TLS


def limited(certificates: CertificateSet, low: ssl.TLSVersion, high: ssl.TLSVersion) -> Any:
    """A server's side of TLS with these versions alone."""
    context = certificates.server.server_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = low, high
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    return context


def test_an_old_version_of_tls(connect: Connect, certificates: CertificateSet) -> None:
    """TLS 1.2 is the least, if nothing else is asked for."""
    context = limited(certificates, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
    with ScriptedServer(tls_session, tls=context) as server:
        error = refused(connect, server, sslmode="require")
    assert type(error) is TLSError
    assert "the TLS handshake with the server failed" in str(error)
    assert "ssl_min_protocol_version" in str(error)


@pytest.mark.parametrize(
    ("server_version", "keywords", "expected"),
    [
        ("TLSv1_2", {}, FINE),
        ("TLSv1_3", {}, FINE),
        ("TLSv1_2", {"ssl_min_protocol_version": "TLSv1.3"}, REFUSED),
        ("TLSv1_3", {"ssl_min_protocol_version": "TLSv1.3"}, FINE),
        ("TLSv1_3", {"ssl_max_protocol_version": "TLSv1.2"}, REFUSED),
        ("TLSv1_2", {"ssl_max_protocol_version": "TLSv1.2"}, FINE),
        ("TLSv1_2", {"ssl_max_protocol_version": "TLSv1.3"}, FINE),
    ],
)
def test_versions_that_are_asked_for(
    connect: Connect,
    certificates: CertificateSet,
    server_version: str,
    keywords: dict[str, str],
    expected: str,
) -> None:
    version = ssl.TLSVersion[server_version]
    context = limited(certificates, version, version)
    with ScriptedServer(tls_session, tls=context) as server:
        if expected == REFUSED:
            error = refused(connect, server, sslmode="require", **keywords)
            assert type(error) is TLSError
            assert "ssl_min_protocol_version" in str(error)
            return
        with connect(**address(server, sslmode="require", **keywords)) as connection:
            assert has_tls(connection)
            assert_usable(connection)


# What the server is told


@pytest.mark.parametrize(
    ("host", "sslsni", "expected"),
    [
        ("localhost", "1", "localhost"),
        ("localhost", "0", None),
        ("127.0.0.1", "1", None),
        ("127.1", "1", None),
        ("::1", "1", None),
        ("LocalHost", "1", "LocalHost"),
        ("", "1", None),
        # The form in which names with other letters go over the wire.
        ("bücher.test", "1", "xn--bcher-kva.test"),
    ],
)
def test_the_name_that_the_server_is_told(
    connect: Connect, certificates: CertificateSet, host: str, sslsni: str, expected: str | None
) -> None:
    told: list[str | None] = []
    context = certificates.server.server_context()
    context.sni_callback = lambda session, name, used: told.append(name)
    keywords = {"host": host, "hostaddr": "127.0.0.1", "sslmode": "require", "sslsni": sslsni}
    with (
        ScriptedServer(tls_session, tls=context) as server,
        connect(**address(server, **keywords)) as connection,
    ):
        assert_usable(connection)
    assert told == [expected]


def test_the_protocol_that_the_server_is_told(
    connect: Connect, certificates: CertificateSet
) -> None:
    agreed = []

    def script(peer: Peer) -> None:
        handshake(peer)
        agreed.append(peer._socket.selected_alpn_protocol())  # type: ignore[attr-defined]
        answers_a_query(peer)

    context = certificates.server.server_context()
    context.set_alpn_protocols(["http/1.1", "postgresql"])
    with (
        ScriptedServer(script, tls=context) as server,
        connect(**address(server, sslmode="require")) as connection,
    ):
        assert_usable(connection)
    assert agreed == ["postgresql"]
