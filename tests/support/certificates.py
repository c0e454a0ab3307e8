"""A certificate authority for the tests, and one certificate for each way to be wrong.

Everything is made anew in each run. The extensions are those that RFC 5280 asks for, so that
`ssl.VERIFY_X509_STRICT`, on by default from Python 3.13, accepts what is meant to be right.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY: Final = timedelta(days=1)
_VALID: Final = (-_DAY, 30 * _DAY)
_EXPIRED: Final = (-30 * _DAY, -_DAY)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<Certificate>"

    @property
    def der(self) -> bytes:
        """The certificate as a peer sees it, e.g. for tls-server-end-point (RFC 5929)."""
        return ssl.PEM_cert_to_DER_cert(self.certificate.decode())

    def write(self, folder: Path, name: str) -> CertificateFiles:
        """Write `<name>.crt` and `<name>.key`, the key readable by its owner alone."""
        files = CertificateFiles(folder / f"{name}.crt", folder / f"{name}.key")
        files.certificate.write_bytes(self.certificate)
        files.key.touch(mode=0o600)
        files.key.write_bytes(self.key)
        return files


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate and its key are, for programs that want files."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """A server's side of TLS that presents this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Authority:
    """A test CA: makes itself, then issues."""

    def __init__(self, name: str) -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), _VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(_authority_key(self._key), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """The CA's own certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        common_name: str,
        *,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        validity: tuple[timedelta, timedelta] = _VALID,
        client: bool = False,
        digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
    ) -> Certificate:
        """A certificate for a server, or with `client` for a client.

        `names` and `addresses` become its subjectAltName; `validity` is counted from now; `digest`
        is that of the signature, SHA-256 by default.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _leaf(_name(common_name), self._name, key, self._key, validity, client)
        if names or addresses:
            signed = signed.add_extension(_alternative_names(names, addresses), critical=False)
        return _pem(signed.sign(self._key, digest or hashes.SHA256()), key)


def self_signed(common_name: str, *, names: Sequence[str], addresses: Sequence[str]) -> Certificate:
    """A server's certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed = _leaf(_name(common_name), _name(common_name), key, key, _VALID, client=False)
    signed = signed.add_extension(_alternative_names(names, addresses), critical=False)
    return _pem(signed.sign(key, hashes.SHA256()), key)


@dataclass(frozen=True, slots=True)
class CertificateSet:
    """The files of one test run. `ca` and `other_ca` are the certificates of two authorities."""

    ca: Path
    other_ca: Path
    server: CertificateFiles
    wrong_host: CertificateFiles
    expired: CertificateFiles
    self_signed: CertificateFiles
    client: CertificateFiles

    @classmethod
    def write(cls, folder: Path, *, client_name: str) -> Self:
        """Make them all in `folder`; `client_name` is the user that `client` speaks for."""
        authority, other = Authority("pgrepl test CA"), Authority("pgrepl other test CA")
        names, addresses = ["localhost"], ["127.0.0.1", "::1"]
        for name, each in (("ca", authority), ("other_ca", other)):
            (folder / f"{name}.crt").write_bytes(each.certificate)
        server = authority.issue("localhost", names=names, addresses=addresses)
        wrong_host = authority.issue("elsewhere.invalid", names=["elsewhere.invalid"])
        expired = authority.issue("localhost", names=names, addresses=addresses, validity=_EXPIRED)
        alone = self_signed("localhost", names=names, addresses=addresses)
        return cls(
            ca=folder / "ca.crt",
            other_ca=folder / "other_ca.crt",
            server=server.write(folder, "server"),
            wrong_host=wrong_host.write(folder, "wrong_host"),
            expired=expired.write(folder, "expired"),
            self_signed=alone.write(folder, "self_signed"),
            client=authority.issue(client_name, client=True).write(folder, "client"),
        )


def _leaf(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    validity: tuple[timedelta, timedelta],
    client: bool,
) -> x509.CertificateBuilder:
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    return (
        _builder(subject, issuer, key.public_key(), validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_authority_key(issuer_key), critical=False)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    validity: tuple[timedelta, timedelta],
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + validity[0])
        .not_valid_after(now + validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _alternative_names(
    names: Sequence[str], addresses: Sequence[str]
) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [
            *(x509.DNSName(name) for name in names),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Certificate:
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
