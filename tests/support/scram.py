"""The server's side of SCRAM-SHA-256 and of its -PLUS, by RFC 5802, RFC 7677 and RFC 5929 alone.

Law: nothing here uses pgrepl. It is the second opinion on what it sends.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from dataclasses import dataclass

MECHANISM = "SCRAM-SHA-256"
MECHANISM_PLUS = "SCRAM-SHA-256-PLUS"

_END_POINT = b"p=tls-server-end-point"


class WrongProof(Exception):
    """The client does not know the password."""


@functools.lru_cache
def salted_password(password: bytes, salt: bytes, iterations: int) -> bytes:
    """`Hi(password, salt, i)`; many connections use one password."""
    return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)


def keys(password: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey, all that a server remembers of a password."""
    salted = salted_password(password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")


@dataclass
class ScramServer:
    """One exchange: `first`, then `final`.

    `end_point` is the hash of the server's certificate, which the client must bind to; None: it
    must not. `gs2` is then what the client has said of it: "n" or "y".
    """

    password: bytes
    salt: bytes = bytes(range(16))
    iterations: int = 4096
    nonce: bytes = b"3rfcNHYJY1ZVvWVs7j"
    end_point: bytes | None = None
    gs2: bytes = b""
    client_first_bare: bytes = b""
    server_first: bytes = b""

    def first(self, client_first: bytes) -> bytes:
        """Answer the client's first message, GS2 header included."""
        self.gs2, _, self.client_first_bare = client_first.partition(b",,")
        possible = (b"n", b"y") if self.end_point is None else (_END_POINT,)
        assert self.gs2 in possible, f"expected one of {possible}, got {self.gs2!r}"
        name, nonce = self.client_first_bare.split(b",")
        assert name.startswith(b"n=")
        assert nonce.startswith(b"r=")
        assert len(nonce) > 18
        salt = base64.b64encode(self.salt)
        self.server_first = nonce + self.nonce + b",s=%b,i=%d" % (salt, self.iterations)
        return self.server_first

    def final(self, client_final: bytes) -> bytes:
        """Check the proof and return the server's signature; raises `WrongProof`."""
        without_proof, _, proof = client_final.rpartition(b",p=")
        binding, nonce = without_proof.split(b",")
        assert binding == b"c=" + base64.b64encode(self.gs2 + b",," + (self.end_point or b""))
        assert nonce == self.server_first.split(b",")[0]
        stored_key, server_key = keys(self.password, self.salt, self.iterations)
        message = b",".join((self.client_first_bare, self.server_first, without_proof))
        signature = hmac.digest(stored_key, message, "sha256")
        pairs = zip(base64.b64decode(proof, validate=True), signature, strict=True)
        if hashlib.sha256(bytes(a ^ b for a, b in pairs)).digest() != stored_key:
            raise WrongProof
        return b"v=" + base64.b64encode(hmac.digest(server_key, message, "sha256"))
