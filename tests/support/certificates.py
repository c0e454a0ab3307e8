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
from typing import Final, Literal, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY: Final = timedelta(days=1)
_VALID: Final = (-_DAY, 30 * _DAY)
EXPIRED: Final = (-30 * _DAY, -_DAY)
NOT_YET_VALID: Final = (30 * _DAY, 60 * _DAY)

# Where every server of the tests is.
NAMES: Final = ("localhost",)
ADDRESSES: Final = ("127.0.0.1", "::1")

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
KeyKind: TypeAlias = Literal["ec", "rsa", "rsa-pss", "ed25519"]
Digest: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
KeyFormat: TypeAlias = Literal["PKCS8", "traditional"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, followed by those that lead to its root, and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<Certificate>"

    @property
    def der(self) -> bytes:
        """The certificate as a peer sees it, e.g. for tls-server-end-point (RFC 5929)."""
        first, end, _ = self.certificate.decode().partition("-----END CERTIFICATE-----")
        return ssl.PEM_cert_to_DER_cert(first + end)

    @property
    def serial_number(self) -> int:
        """What a revocation list knows it by."""
        return x509.load_der_x509_certificate(self.der).serial_number

    def encrypted(self, passphrase: str) -> Certificate:
        """The same with a key that only this opens."""
        key = serialization.load_pem_private_key(self.key, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase.encode()),
        )
        return Certificate(self.certificate, key)

    def key_as(self, encoding: Literal["PEM", "DER"], form: KeyFormat) -> bytes:
        """The key as other programs may have written it."""
        return serialization.load_pem_private_key(self.key, None).private_bytes(
            serialization.Encoding.PEM if encoding == "PEM" else serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8
            if form == "PKCS8"
            else serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )

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

    def server_context(self, *, client_ca: Path | None = None) -> ssl.SSLContext:
        """A server's side of TLS that presents this certificate; with `client_ca` it wants one of
        that authority from the client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    """A test CA: makes itself, then issues. `issuer` makes it an intermediate one; `kind` is that
    of its key, and so of what it signs with."""

    def __init__(self, name: str, *, issuer: Authority | None = None, kind: KeyKind = "ec") -> None:
        self._name = _name(name)
        self._kind = kind
        self._key = _new_key(kind)
        self._issuer = issuer
        above = issuer or self
        self._certificate = above._sign(
            _builder(self._name, above._name, self._key.public_key(), _VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(_authority_key(above._key), critical=False)
        )

    @property
    def certificate(self) -> bytes:
        """The CA's own certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def _chain(self) -> bytes:
        """What leads to the root, which is not part of it."""
        return self.certificate + self._issuer._chain if self._issuer is not None else b""

    def issue(
        self,
        *common_names: str,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        validity: tuple[timedelta, timedelta] = _VALID,
        client: bool = False,
        digest: Digest | None = None,
        kind: KeyKind = "ec",
    ) -> Certificate:
        """A certificate for a server, or with `client` for a client.

        `names` and `addresses` become its subjectAltName; `validity` is counted from now; `digest`
        is that of the signature, SHA-256 by default; `kind` is that of its own key.
        """
        key = _new_key(kind)
        leaf = _leaf(_name(*common_names), self._name, key, self._key, validity, client)
        if names or addresses:
            leaf = leaf.add_extension(
                _alternative_names(names, addresses), critical=not common_names
            )
        return _pem(self._sign(leaf, digest), key, self._chain)

    def revocation_list(self, *revoked: Certificate, validity: timedelta = 30 * _DAY) -> bytes:
        """The list of these certificates, PEM; `validity` is counted from now."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - 60 * _DAY)
            .next_update(now + validity)
        )
        for each in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(each.serial_number)
                .revocation_date(now - _DAY)
                .build()
            )
        signed = builder.sign(self._key, _digest(self._kind, None))
        return signed.public_bytes(serialization.Encoding.PEM)

    def _sign(
        self, builder: x509.CertificateBuilder, digest: Digest | None = None
    ) -> x509.Certificate:
        pss = padding.PSS(padding.MGF1(digest or hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return builder.sign(
            self._key,
            _digest(self._kind, digest),
            rsa_padding=pss if self._kind == "rsa-pss" else None,
        )


def self_signed(
    common_name: str,
    *,
    names: Sequence[str],
    addresses: Sequence[str],
    kind: KeyKind = "ec",
) -> Certificate:
    """A server's certificate that nobody vouches for."""
    key = _new_key(kind)
    leaf = _leaf(_name(common_name), _name(common_name), key, key, _VALID, client=False)
    leaf = leaf.add_extension(_alternative_names(names, addresses), critical=False)
    return _pem(leaf.sign(key, _digest(kind, None)), key)


@dataclass(frozen=True, slots=True)
class CertificateSet:
    """The files of one test run. `ca` and `other_ca` are the certificates of two authorities;
    `crl` is the first one's list, with `revoked` on it."""

    folder: Path
    authority: Authority
    ca: Path
    other_ca: Path
    crl: Path
    server: CertificateFiles
    wrong_host: CertificateFiles
    expired: CertificateFiles
    not_yet_valid: CertificateFiles
    revoked: CertificateFiles
    self_signed: CertificateFiles
    unknown: CertificateFiles
    client: CertificateFiles
    client_expired: CertificateFiles
    client_unknown: CertificateFiles

    @classmethod
    def write(cls, folder: Path, *, client_name: str) -> Self:
        """Make them all in `folder`; `client_name` is the user that `client` speaks for."""
        authority, other = Authority("pgrepl test CA"), Authority("pgrepl other test CA")
        for name, each in (("ca", authority), ("other_ca", other)):
            (folder / f"{name}.crt").write_bytes(each.certificate)

        def server(
            name: str, by: Authority = authority, validity: tuple[timedelta, timedelta] = _VALID
        ) -> CertificateFiles:
            issued = by.issue("localhost", names=NAMES, addresses=ADDRESSES, validity=validity)
            return issued.write(folder, name)

        wrong_host = authority.issue("elsewhere.invalid", names=["elsewhere.invalid"])
        alone = self_signed("localhost", names=NAMES, addresses=ADDRESSES)
        revoked = authority.issue("localhost", names=NAMES, addresses=ADDRESSES)
        (folder / "ca.crl").write_bytes(authority.revocation_list(revoked))
        expired = authority.issue(client_name, client=True, validity=EXPIRED)
        unknown = other.issue(client_name, client=True)
        return cls(
            folder=folder,
            authority=authority,
            ca=folder / "ca.crt",
            other_ca=folder / "other_ca.crt",
            crl=folder / "ca.crl",
            server=server("server"),
            wrong_host=wrong_host.write(folder, "wrong_host"),
            expired=server("expired", validity=EXPIRED),
            not_yet_valid=server("not_yet_valid", validity=NOT_YET_VALID),
            revoked=revoked.write(folder, "revoked"),
            self_signed=alone.write(folder, "self_signed"),
            unknown=server("unknown", by=other),
            client=authority.issue(client_name, client=True).write(folder, "client"),
            client_expired=expired.write(folder, "client_expired"),
            client_unknown=unknown.write(folder, "client_unknown"),
        )


def _new_key(kind: KeyKind) -> Key:
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def _digest(kind: KeyKind, digest: Digest | None) -> Digest | None:
    """What is signed with a key of this kind: Ed25519 has a digest of its own."""
    return None if kind == "ed25519" else digest or hashes.SHA256()


def _leaf(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key,
    issuer_key: Key,
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
    key: PublicKey,
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


def _name(*common_names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])


def _authority_key(key: Key) -> x509.AuthorityKeyIdentifier:
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


def _pem(certificate: x509.Certificate, key: Key, chain: bytes = b"") -> Certificate:
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM) + chain,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
