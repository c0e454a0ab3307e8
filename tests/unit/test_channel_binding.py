"""What a TLS connection is recognised by: the server's certificate, hashed as it was signed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from pgrepl.errors import AuthenticationError
from pgrepl.protocol.channel_binding import end_point

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet


def der(tag: int, *parts: bytes) -> bytes:
    """One DER value; shorter than 128 bytes, or than 65536."""
    body = b"".join(parts)
    size = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2)
    return bytes([tag]) + size + body


def oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    body = bytearray([first * 40 + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        body += bytes(reversed(groups))
    return der(0x06, bytes(body))


NULL = der(0x05)


def certificate(algorithm: str, parameters: bytes = NULL) -> bytes:
    """No more of a certificate than what says how it is signed."""
    identifier = der(0x30, oid(algorithm), parameters)
    return der(0x30, der(0x30, identifier), identifier, der(0x03, bytes(65)))


def pss(digest: str) -> bytes:
    """RSASSA-PSS with this hash for itself and its mask."""
    hashed = der(0x30, oid(digest), NULL)
    mask = der(0x30, oid("1.2.840.113549.1.1.8"), hashed)
    salt = der(0x02, bytes([32]))
    parameters = der(0x30, der(0xA0, hashed), der(0xA1, mask), der(0xA2, salt))
    return certificate("1.2.840.113549.1.1.10", parameters)


RSA = "1.2.840.113549.1.1"
ECDSA = "1.2.840.10045.4"
SHA3 = "2.16.840.1.101.3.4.3"
SHA2 = "2.16.840.1.101.3.4.2"

SIGNED: dict[str, tuple[bytes, str]] = {
    "RSA, MD5": (certificate(f"{RSA}.4"), "sha256"),
    "RSA, SHA-1": (certificate(f"{RSA}.5"), "sha256"),
    "RSA, SHA-224": (certificate(f"{RSA}.14"), "sha224"),
    "RSA, SHA-256": (certificate(f"{RSA}.11"), "sha256"),
    "RSA, SHA-384": (certificate(f"{RSA}.12"), "sha384"),
    "RSA, SHA-512": (certificate(f"{RSA}.13"), "sha512"),
    "ECDSA, SHA-1": (certificate(f"{ECDSA}.1", b""), "sha256"),
    "ECDSA, SHA-256": (certificate(f"{ECDSA}.3.2", b""), "sha256"),
    "ECDSA, SHA-384": (certificate(f"{ECDSA}.3.3", b""), "sha384"),
    "ECDSA, SHA-512": (certificate(f"{ECDSA}.3.4", b""), "sha512"),
    "ECDSA, SHA3-256": (certificate(f"{SHA3}.10", b""), "sha3_256"),
    "ECDSA, SHA3-512": (certificate(f"{SHA3}.12", b""), "sha3_512"),
    "PSS, SHA-1 by default": (certificate(f"{RSA}.10", der(0x30)), "sha256"),
    "PSS, SHA-1": (pss("1.3.14.3.2.26"), "sha256"),
    "PSS, SHA-256": (pss(f"{SHA2}.1"), "sha256"),
    "PSS, SHA-384": (pss(f"{SHA2}.2"), "sha384"),
    "PSS, SHA-512": (pss(f"{SHA2}.3"), "sha512"),
}


@pytest.mark.parametrize(("signed", "name"), SIGNED.values(), ids=SIGNED)
def test_the_hash_is_that_of_the_signature_unless_it_is_broken(signed: bytes, name: str) -> None:
    assert end_point(signed) == hashlib.new(name, signed).digest()


UNBOUND = {
    "Ed25519": (certificate("1.3.101.112", b""), "'ed25519'"),
    "Ed448": (certificate("1.3.101.113", b""), "'ed448'"),
    "RSA, MD2": (certificate(f"{RSA}.2"), "'md2'"),
    "PSS without parameters": (certificate(f"{RSA}.10", b""), "cannot be read"),
    "PSS with a hash that nobody knows": (pss("1.2.3.4"), "'1.2.3.4'"),
    "an algorithm that nobody knows": (certificate("1.2.3.4"), "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "no DER": (b"hello", "cannot be read"),
    "DER that is no certificate": (NULL, "cannot be read"),
    "cut off": (certificate(f"{RSA}.11")[:-70], "cannot be read"),
    "more behind it": (certificate(f"{RSA}.11") + b"x", "cannot be read"),
}


@pytest.mark.parametrize(("signed", "shown"), UNBOUND.values(), ids=UNBOUND)
def test_a_certificate_that_nothing_can_be_bound_to(signed: bytes, shown: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        end_point(signed)
    assert shown in str(caught.value)
    assert "channel_binding=disable" in str(caught.value)
    assert caught.value.__context__ is None


def test_real_certificates(certificates: CertificateSet) -> None:
    for files in (certificates.server, certificates.wrong_host, certificates.self_signed):
        pem = files.certificate.read_text()
        x509 = pytest.importorskip("cryptography.x509")
        loaded = x509.load_pem_x509_certificate(pem.encode())
        hashes = pytest.importorskip("cryptography.hazmat.primitives.serialization")
        raw = loaded.public_bytes(hashes.Encoding.DER)
        assert end_point(raw) == loaded.fingerprint(loaded.signature_hash_algorithm)
