"""The client's own certificate: where it is looked for, who may read its key, and what is said."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import TLSError, UsageError
from tests.hostile.sessions import address, answers_a_query, assert_usable, refused
from tests.hostile.tls_sessions import Connect, tls_session
from tests.support import builders
from tests.support.disclosure import everything_about
from tests.support.flavours import DRIVERS
from tests.support.scripted import SSL_REQUEST, Peer, ScriptedServer, handshake, negotiate

if TYPE_CHECKING:
    from tests.support.certificates import Certificate, CertificateFiles, CertificateSet, KeyKind

pytestmark = pytest.mark.flavours(*DRIVERS)

PASSPHRASE = "open sesame, Übung"


def shown_to(
    connect: Connect, certificates: CertificateSet, *, wanted: bool = True, **keywords: Any
) -> str | None:
    """The common name in the certificate that a server gets to see, one that wants or asks for
    one; None: it gets none."""
    seen: list[str | None] = []

    def script(peer: Peer) -> None:
        handshake(peer)
        certificate = peer._socket.getpeercert()  # type: ignore[attr-defined]
        subject = certificate["subject"] if certificate else ()
        seen.append(dict(part[0] for part in subject).get("commonName"))
        answers_a_query(peer)

    context = certificates.server.server_context(client_ca=certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED if wanted else ssl.CERT_OPTIONAL
    with (
        ScriptedServer(script, tls=context) as server,
        connect(**address(server, sslmode="require", **keywords)) as connection,
    ):
        assert_usable(connection)
    [name] = seen
    return name


def as_keywords(files: CertificateFiles) -> dict[str, Any]:
    """The keywords that name these files."""
    return {"sslcert": files.certificate, "sslkey": files.key}


def usage_error(connect: Connect, **keywords: Any) -> str:
    """What is said of files of no use, which is found out before anything is sent."""
    with ScriptedServer(negotiate) as server:
        error = refused(connect, server, sslmode="require", **keywords)
    assert type(error) is UsageError
    return str(error)


def client(certificates: CertificateSet) -> Certificate:
    """A new certificate of the right authority."""
    return certificates.authority.issue("u_cert", client=True)


# Where it is


def test_a_certificate_that_is_named(connect: Connect, certificates: CertificateSet) -> None:
    assert shown_to(connect, certificates, **as_keywords(certificates.client)) == "u_cert"


def test_the_certificate_at_home(
    connect: Connect, certificates: CertificateSet, home: Path
) -> None:
    assert shown_to(connect, certificates, wanted=False) is None
    folder = home / ".postgresql"
    folder.mkdir()
    client(certificates).write(folder, "postgresql")
    assert shown_to(connect, certificates) == "u_cert"
    disabled: dict[str, Any] = {"sslcertmode": "disable", "wanted": False}
    assert shown_to(connect, certificates, **disabled) is None
    assert shown_to(connect, certificates, **disabled, **as_keywords(certificates.client)) is None
    # A certificate that is named may have its key at home, and the other way round.
    (folder / "postgresql.crt").rename(folder / "elsewhere.crt")
    assert shown_to(connect, certificates, sslcert=folder / "elsewhere.crt") == "u_cert"


def test_a_certificate_that_is_not_there_is_not_shown(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    files = as_keywords(certificates.client) | {"sslcert": tmp_path / "missing.crt"}
    assert shown_to(connect, certificates, wanted=False, **files) is None


def test_a_certificate_without_its_key(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    certificate = certificates.client.certificate
    for missing in ({}, {"sslkey": tmp_path / "missing.key"}):
        text = usage_error(connect, sslcert=certificate, **missing)
        assert "but not its private key" in text
        assert "sslcertmode=disable" in text


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_the_key_of_another_certificate(
    connect: Connect, certificates: CertificateSet, tmp_path: Path, kind: KeyKind
) -> None:
    another = certificates.authority.issue("another", client=True, kind=kind)
    key = another.write(tmp_path, "another").key
    text = usage_error(connect, **as_keywords(certificates.client) | {"sslkey": key})
    assert "is not that of the certificate" in text


@pytest.mark.parametrize("bad", ["sslcert", "sslkey"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA"])
def test_files_that_are_something_else(
    connect: Connect, certificates: CertificateSet, tmp_path: Path, bad: str, content: bytes
) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(content)
    nonsense.chmod(0o600)
    text = usage_error(connect, **as_keywords(certificates.client) | {bad: nonsense})
    assert "expected PEM" in text
    assert str(nonsense) in text


# Who may read the key

POSIX = pytest.mark.skipif(os.name == "nt", reason="no permissions as POSIX has them")


@POSIX
@pytest.mark.parametrize(
    ("mode", "of_root", "of_others"),
    # What is said of a key of root's, and of one of anybody else's.
    [
        (0o600, True, True),
        (0o400, True, True),
        (0o640, True, False),
        (0o440, True, False),
        (0o660, False, False),
        (0o650, False, False),
        (0o644, False, False),
        (0o601, False, False),
        (0o602, False, False),
    ],
    ids="{:o}".format,
)
def test_a_key_that_others_can_read(
    connect: Connect,
    certificates: CertificateSet,
    tmp_path: Path,
    mode: int,
    of_root: bool,
    of_others: bool,
) -> None:
    files = client(certificates).write(tmp_path, "client")
    files.key.chmod(mode)
    owners = [(files.key.stat().st_uid, of_root if files.key.stat().st_uid == 0 else of_others)]
    if os.geteuid() == 0:
        owners.append((65534, of_others))
    for owner, is_fine in owners:
        os.chown(files.key, owner, -1)
        if is_fine:
            assert shown_to(connect, certificates, **as_keywords(files)) == "u_cert"
        else:
            text = usage_error(connect, **as_keywords(files))
            assert "others can read or change the private key" in text
            assert "chmod 0600" in text


@POSIX
def test_a_key_that_is_no_file(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.key"
    os.mkfifo(pipe, 0o600)
    for key in (pipe, tmp_path):
        files = as_keywords(certificates.client) | {"sslkey": key}
        assert "expected a regular file as private key" in usage_error(connect, **files)


def test_a_link_to_a_key(connect: Connect, certificates: CertificateSet, tmp_path: Path) -> None:
    link = tmp_path / "link.key"
    link.symlink_to(certificates.client.key)
    files = as_keywords(certificates.client) | {"sslkey": link}
    assert shown_to(connect, certificates, **files) == "u_cert"


# Pass phrases


def test_an_encrypted_key(connect: Connect, certificates: CertificateSet, tmp_path: Path) -> None:
    files = client(certificates).encrypted(PASSPHRASE).write(tmp_path, "client")
    keywords = as_keywords(files) | {"sslpassword": PASSPHRASE}
    assert shown_to(connect, certificates, **keywords) == "u_cert"
    # One that is not needed does no harm.
    keywords = as_keywords(certificates.client) | {"sslpassword": PASSPHRASE}
    assert shown_to(connect, certificates, **keywords) == "u_cert"


@pytest.mark.parametrize(
    ("sslpassword", "text"),
    [
        (None, "is encrypted; give its pass phrase as sslpassword"),
        ("", "is encrypted; give its pass phrase as sslpassword"),
        ("canary", "the sslpassword does not open the private key"),
        ("canary" * 1000, "expected an sslpassword of 1024 bytes or less"),
    ],
    ids=["none", "empty", "wrong", "too long"],
)
def test_v17_an_encrypted_key_that_cannot_be_opened(
    connect: Connect,
    certificates: CertificateSet,
    tmp_path: Path,
    sslpassword: str | None,
    text: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nobody is asked at the terminal, and nothing is shown of what was tried."""
    files = client(certificates).encrypted(PASSPHRASE).write(tmp_path, "client")
    with ScriptedServer(negotiate) as server:
        error = refused(
            connect, server, sslmode="require", sslpassword=sslpassword, **as_keywords(files)
        )
    assert type(error) is UsageError
    assert text in str(error)
    assert capfd.readouterr() == ("", "")
    shown = everything_about(error)
    assert PASSPHRASE not in shown
    assert "canary" not in shown


# Other forms of keys


@pytest.mark.parametrize(
    ("kind", "encoding", "form"),
    [
        ("ec", "PEM", "traditional"),
        ("rsa", "PEM", "PKCS8"),
        ("rsa", "PEM", "traditional"),
        ("ed25519", "PEM", "PKCS8"),
        ("ec", "DER", "PKCS8"),
        ("ec", "DER", "traditional"),
        ("rsa", "DER", "PKCS8"),
        ("rsa", "DER", "traditional"),
        ("ed25519", "DER", "PKCS8"),
    ],
)
@POSIX
def test_forms_of_keys(
    connect: Connect,
    certificates: CertificateSet,
    tmp_path: Path,
    kind: Any,
    encoding: Any,
    form: Any,
) -> None:
    made = certificates.authority.issue("u_cert", client=True, kind=kind)
    files = made.write(tmp_path, "client")
    files.key.write_bytes(made.key_as(encoding, form))
    assert shown_to(connect, certificates, **as_keywords(files)) == "u_cert"


def test_a_binary_key_that_is_none(
    connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    nonsense = tmp_path / "nonsense.key"
    for content in (b"0", b"0\x82" + bytes(1000), b"0" * 1_000_000):
        nonsense.write_bytes(content)
        nonsense.chmod(0o600)
        text = usage_error(connect, **as_keywords(certificates.client) | {"sslkey": nonsense})
        assert "openssl pkey -inform DER" in text
    mismatch = client(certificates).key_as("DER", "PKCS8")
    nonsense.write_bytes(mismatch)
    text = usage_error(connect, **as_keywords(certificates.client) | {"sslkey": nonsense})
    assert "is not that of the certificate" in text


# What the server makes of it


def old_tls(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", [lambda context: None, old_tls], ids=["TLS 1.3", "TLS 1.2"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (None, r"certificate required .*\(sslcert\)|handshake failure"),
        ("client_unknown", r"unknown ca .*\(sslcert\)"),
        ("client_expired", r"certificate expired .*\(sslcert\)"),
        ("server", r"unsupported certificate .*\(sslcert\)"),
    ],
)
def test_a_certificate_that_the_server_does_not_accept(
    connect: Connect,
    certificates: CertificateSet,
    name: str | None,
    text: str,
    version: Callable[[ssl.SSLContext], None],
) -> None:
    """With TLS 1.3 its verdict comes when the handshake is over for the client."""
    context = certificates.server.server_context(client_ca=certificates.ca)
    version(context)
    files = as_keywords(getattr(certificates, name)) if name else {}
    with ScriptedServer(tls_session, tls=context) as server:
        error = refused(connect, server, sslmode="require", **files)
    assert type(error) is TLSError
    assert "the TLS handshake with the server failed" in str(error)
    assert re.search(text, str(error))


@pytest.mark.parametrize("version", [lambda context: None, old_tls], ids=["TLS 1.3", "TLS 1.2"])
def test_v18_prefer_and_a_certificate_that_the_server_does_not_accept(
    connect: Connect, certificates: CertificateSet, version: Callable[[ssl.SSLContext], None]
) -> None:
    """It goes on without TLS where the handshake failed, and not where there was TLS already."""
    context = certificates.server.server_context(client_ca=certificates.ca)
    version(context)
    files = as_keywords(certificates.client_unknown)
    codes: list[int] = []

    def script(peer: Peer) -> None:
        codes.append(peer.recv_startup().code)
        if codes[-1] == SSL_REQUEST:
            peer.send(b"S")
            peer.start_tls()
        peer.send(builders.error_response("no entry", sqlstate="28000", severity="FATAL"))

    with ScriptedServer(script, tls=context) as server:
        error = refused(connect, server, sslmode="prefer", **files)
    if version is old_tls:
        assert "no entry" in str(error)
        assert [code == SSL_REQUEST for code in codes] == [True, False]
    else:
        assert isinstance(error, TLSError)
        assert codes == [SSL_REQUEST]
