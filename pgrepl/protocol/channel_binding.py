"""What ties authentication to the TLS connection that it happens on: the server's certificate.

Source: RFC 5929, section 4 (tls-server-end-point).
"""

from __future__ import annotations

import hashlib
from typing import Final

from ..errors import AuthenticationError

__all__ = ["end_point"]

# The hash of the certificate's signature, but for two that are not good enough any more.
_HASHES: Final = {"md5": "sha256", "sha1": "sha256"} | {
    name: name
    for name in ("sha224", "sha256", "sha384", "sha512", "sha512_224", "sha512_256")
    + ("sha3_224", "sha3_256", "sha3_384", "sha3_512")
}
# They hash as part of signing; RFC 5929 does not say what the certificate is to be hashed by.
_WITHOUT_HASH: Final = ("ed25519", "ed448")


def end_point(certificate: bytes) -> bytes:
    """Return the binding data of a certificate, given in DER form.

    Raises `AuthenticationError` where none is defined for how the certificate is signed.
    """
    algorithm = _signature_algorithm(certificate)
    name = _HASHES.get(algorithm)
    if name is None or name not in hashlib.algorithms_available:
        raise AuthenticationError(
            "channel binding needs a server certificate that is signed by way of a hash, such as "
            f"RSA or ECDSA with SHA-256, got one signed by {algorithm[:40]!r}; connect with "
            "channel_binding=disable, or give the server another certificate"
        )
    return hashlib.new(name, certificate).digest()


def _signature_algorithm(certificate: bytes) -> str:
    """Return the hash that a certificate is signed by, or the algorithm's name if it has none."""
    # Here, since its tables take longer to load than all of a connection without TLS takes.
    from asn1crypto import x509

    try:
        algorithm = x509.Certificate.load(certificate, strict=True)["signature_algorithm"]
        name = str(algorithm["algorithm"].native)
        if name in _WITHOUT_HASH:
            return name
        if name.startswith("sha3_"):  # as in sha3_256_ecdsa, whose hash the library does not know
            return name.rpartition("_")[0]
        return str(algorithm.hash_algo)
    except Exception:
        # Which ones differs with what is wrong; OpenSSL has read the certificate before.
        return "an algorithm that cannot be read"
