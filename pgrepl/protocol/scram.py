"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's side: what is said and what must be heard.

Law: a message is read by the table of what it must be, whole, and by nothing else; and no key that
is made of the password is ever in a local variable, where a traceback could show it.

Theory of operation: both sides derive ClientKey and ServerKey from the password. The client proves
that it knows the first without sending it, the server that it knows the second. Each proof is made
over all that was said, so that nobody in between can have changed a word of it; with -PLUS, over
the server's TLS certificate as well.

Sources: RFC 5802, RFC 7677, RFC 5929 section 4; PostgreSQL documentation, "SASL Authentication".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..errors import AuthenticationError, UsageError
from ..secret import Secret
from .saslprep import prepared

__all__ = [
    "MECHANISM",
    "MECHANISM_PLUS",
    "NO_BINDING",
    "SERVER_CANNOT_BIND",
    "ChannelBinding",
    "Keys",
    "ScramExchange",
    "given_keys",
    "keys_of_password",
]

MECHANISM: Final = "SCRAM-SHA-256"
MECHANISM_PLUS: Final = "SCRAM-SHA-256-PLUS"

_HASH: Final = "sha256"
_KEY_SIZE: Final = 32
_NONCE_SIZE: Final = 18
_SHOWN: Final = 40

# RFC 5802, section 7: what the values of attributes are made of.
_PRINTABLE: Final = r"[\x21-\x2b\x2d-\x7e]+"
_BASE64: Final = r"[A-Za-z0-9+/]+={0,2}"
_NUMBER: Final = r"[1-9][0-9]{0,9}"
_TEXT: Final = r"[^,]*"


class _Attribute(NamedTuple):
    letter: str
    name: str
    form: re.Pattern[str]


def _attribute(letter: str, name: str, form: str) -> _Attribute:
    return _Attribute(letter, name, re.compile(form))


# The server's messages: these attributes, in this order, each once, and nothing else. RFC 5802
# has extensions behind them; no server of PostgreSQL's protocol has any, and libpq takes none. What
# begins with "m=" must be refused by whoever does not know it.
_SERVER_FIRST: Final = (
    _attribute("r", "nonce", _PRINTABLE),
    _attribute("s", "salt", _BASE64),
    _attribute("i", "iteration count", _TEXT),  # see `_iterations`
)
_SERVER_FINAL: Final = (_attribute("v", "signature", _BASE64),)
_SERVER_ERROR: Final = (_attribute("e", "error", _TEXT),)


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """What the client says about channel binding: `header`, the GS2 header, and `data`, what the
    exchange is bound to."""

    header: bytes
    data: bytes = b""

    @classmethod
    def tls_server_end_point(cls, data: bytes) -> ChannelBinding:
        """To the hash of the server's certificate."""
        return cls(b"p=tls-server-end-point,,", data)


NO_BINDING: Final = ChannelBinding(b"n,,")
"""There is no TLS, or binding is not wanted."""

SERVER_CANNOT_BIND: Final = ChannelBinding(b"y,,")
"""The client could, but the server did not offer to; one that did offer sees by this that somebody
took its offer away."""


@dataclass(frozen=True, slots=True)
class Keys:
    """ClientKey and ServerKey in base64; who has them needs no password."""

    client: Secret
    server: Secret

    def proof(self, spoken: bytes) -> bytes:
        """Return ClientProof for all that was said (AuthMessage)."""
        # StoredKey and ClientSignature stay without a name: with the proof, which is sent, either
        # gives the key.
        return (
            int.from_bytes(base64.b64decode(self.client.reveal()))
            ^ int.from_bytes(hmac.digest(self._stored_key(), spoken, _HASH))
        ).to_bytes(_KEY_SIZE)

    def _stored_key(self) -> bytes:
        return hashlib.sha256(base64.b64decode(self.client.reveal())).digest()

    def signature(self, spoken: bytes) -> bytes:
        """Return ServerSignature for all that was said (AuthMessage)."""
        return hmac.digest(base64.b64decode(self.server.reveal()), spoken, _HASH)


def keys_of_password(password: Secret, salt: bytes, iterations: int) -> Keys:
    """Return the keys of a password. This is slow by design; see `conversation.Compute`.

    Raises `UsageError` for a password that is no text, `AuthenticationError` where Python's OpenSSL
    refuses to hash it.
    """
    try:
        salted = _salted_password(password, salt, iterations)
        return Keys(_key(salted, b"Client Key"), _key(salted, b"Server Key"))
    except ValueError as error:
        # In FIPS mode there are minima for password, salt and iteration count.
        reason = str(error)
    except BaseException as error:
        # Ctrl-C, above all: where it came, a key was perhaps just being hidden.
        raise error.with_traceback(None) from None
    raise AuthenticationError(
        f"the password could not be hashed for SCRAM with {len(salt)} bytes of salt and "
        f"{iterations} iterations; Python's OpenSSL says: {reason}"
    )


def given_keys(client: Secret, server: Secret) -> Keys:
    """Return keys that were given in place of a password, checked.

    Raises `UsageError`.
    """
    for name, key in (("scram_client_key", client), ("scram_server_key", server)):
        if not _is_key(key):
            raise UsageError(f"expected {_KEY_SIZE} bytes in base64 as {name}, got something else")
    return Keys(client, server)


def _is_key(key: Secret) -> bool:
    try:
        return len(base64.b64decode(key.reveal(), validate=True)) == _KEY_SIZE
    except ValueError:
        return False


def _salted_password(password: Secret, salt: bytes, iterations: int) -> Secret:
    return _hidden(hashlib.pbkdf2_hmac(_HASH, prepared(password), salt, iterations))


def _key(salted: Secret, name: bytes) -> Secret:
    return _hidden(hmac.digest(base64.b64decode(salted.reveal()), name, _HASH))


def _hidden(key: bytes) -> Secret:
    return Secret(base64.b64encode(key).decode("ascii"))


class ScramExchange:
    """One exchange: `first`, `take_server_first`, `final`, `take_server_final`, in this order.

    Whatever the server's messages lack or have too much raises `AuthenticationError`.
    """

    def __init__(self, binding: ChannelBinding, nonce: str | None = None) -> None:
        self.binding: Final = binding
        self.salt = b""
        self.iterations = 0
        self._nonce = nonce or base64.b64encode(secrets.token_bytes(_NONCE_SIZE)).decode("ascii")
        self._server_first = ""
        self._full_nonce = ""
        self._spoken = b""
        self._keys: Keys | None = None

    @property
    def _first_bare(self) -> str:
        # The server takes the user from the startup message, and libpq gives no name here.
        return f"n=,r={self._nonce}"

    def first(self) -> bytes:
        """Return the client's first message."""
        return self.binding.header + self._first_bare.encode("ascii")

    def take_server_first(self, message: bytes, max_iterations: int) -> None:
        """Read salt and iteration count; more iterations than this are refused."""
        self._server_first = _text(message)
        nonce, salt, count = _values(self._server_first, _SERVER_FIRST)
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise AuthenticationError(
                "expected a nonce of the server's in the SCRAM exchange that extends the client's, "
                "got another one: the answer is not to this connection's question"
            )
        self._full_nonce = nonce
        self.salt = _bytes("salt", salt)
        self.iterations = _iterations(count, max_iterations)

    def final(self, keys: Keys) -> bytes:
        """Return the client's final message, which proves that it has the keys."""
        binding = base64.b64encode(self.binding.header + self.binding.data).decode("ascii")
        without_proof = f"c={binding},r={self._full_nonce}"
        spoken = ",".join((self._first_bare, self._server_first, without_proof))
        self._spoken, self._keys = spoken.encode("ascii"), keys
        proof = base64.b64encode(keys.proof(self._spoken)).decode("ascii")
        return f"{without_proof},p={proof}".encode("ascii")

    def take_server_final(self, message: bytes) -> None:
        """Check that the server has the keys as well, without which anybody could claim to be
        it."""
        text = _text(message)
        if text.startswith("e="):
            (code,) = _values(text, _SERVER_ERROR)
            raise AuthenticationError(
                f"the server broke off the SCRAM exchange with the error {code[:_SHOWN]!r}"
            )
        (encoded,) = _values(text, _SERVER_FINAL)
        signature = _bytes("signature", encoded)
        if self._keys is None or not hmac.compare_digest(
            signature, self._keys.signature(self._spoken)
        ):
            raise AuthenticationError(
                "expected a signature in the SCRAM exchange that proves that the server knows the "
                "password, got another one: this is not the server that the password was set on, "
                "or somebody in between changes what is said"
            )


def _text(message: bytes) -> str:
    if not message.isascii():
        raise AuthenticationError("expected a SCRAM message in ASCII, got other bytes")
    return message.decode("ascii")


def _values(message: str, attributes: Sequence[_Attribute]) -> list[str]:
    """Return the values of a message that has these attributes and no others."""
    fields = message.split(",")
    for number, (letter, name, form) in enumerate(attributes):
        field = fields[number] if number < len(fields) else ""
        if not field.startswith(f"{letter}=") or form.fullmatch(field, 2) is None:
            raise AuthenticationError(
                f"expected the {name}, {letter}=, as number {number + 1} of the attributes of a "
                f"SCRAM message of the server's, got {field[:_SHOWN]!r}"
            )
    if len(fields) > len(attributes):
        raise AuthenticationError(
            f"expected the end of a SCRAM message of the server's behind the {attributes[-1].name}"
            f", got {fields[len(attributes)][:_SHOWN]!r}"
        )
    return [field[2:] for field in fields]


def _bytes(name: str, encoded: str) -> bytes:
    # Python takes bits that are set behind the end of the data; the one right form has none.
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except ValueError:
        decoded = b""
    if base64.b64encode(decoded).decode("ascii") != encoded:
        raise AuthenticationError(
            f"expected base64 as the {name} of the SCRAM exchange, got {encoded[:_SHOWN]!r}"
        )
    return decoded


def _iterations(count: str, limit: int) -> int:
    # SCRAM's cost is set by the server before it has proved anything. Digits alone, and few of
    # them: int() would take signs and spaces, and a hostile length.
    if re.fullmatch(_NUMBER, count) is None or int(count) > limit:
        raise AuthenticationError(
            f"expected a SCRAM iteration count between 1 and {limit}, got {count[:20]!r}; where "
            "the server is to be trusted with more work, raise scram_max_iterations"
        )
    return int(count)
