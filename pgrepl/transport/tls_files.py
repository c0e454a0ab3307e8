"""The files that TLS takes: where they are looked for, and what is asked of a private key.

Law: nobody is ever asked for a pass phrase at a terminal, and no key or pass phrase is in an error,
in a local variable of its traceback, or in a file that was not there before.

Source: PostgreSQL documentation, "Client Certificates" (libpq).
"""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import stat
from pathlib import Path
from typing import Final

from ..conninfo.locations import certificate_file
from ..conninfo.parameters import TLSSettings
from ..errors import UsageError
from ..secret import Secret

__all__ = ["given_file", "load_client_certificate"]

_SEQUENCE: Final = b"\x30"
# RFC 5958 has the kind of key next, RFC 8017 the modulus, RFC 5915 the key itself.
_KEY_LABELS: Final = {
    _SEQUENCE: "PRIVATE KEY",
    b"\x02": "RSA PRIVATE KEY",
    b"\x04": "EC PRIVATE KEY",
}

# Of the same kind, of another kind, and of a kind that OpenSSL keeps in another place.
_NOT_ITS_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def given_file(name: str) -> Path:
    """Return the path of a file that was named."""
    with contextlib.suppress(RuntimeError):
        return Path(name).expanduser()
    return Path(name)


def load_client_certificate(context: ssl.SSLContext, settings: TLSSettings) -> None:
    """Have the client's certificate shown to a server that asks for it.

    Without one there is nothing to show, which is no error. Raises `UsageError` for a certificate
    without its key, for a key that others can read, and for files of no use.
    """
    if settings.sslcertmode == "disable":
        return
    named = settings.sslcert
    certificate = given_file(named) if named else certificate_file("postgresql.crt")
    if certificate is None or _status(certificate, "certificate") is None:
        return
    key = given_file(settings.sslkey) if settings.sslkey else certificate_file("postgresql.key")
    if key is None:
        raise UsageError(
            f"expected the key of the client certificate {str(certificate)!r} in sslkey"
        )
    _check_key_file(key, certificate)
    passphrase = _Passphrase(settings.sslpassword, key)
    trouble = _load(context, certificate, key, passphrase)
    if trouble is not None:
        raise UsageError(trouble)


def _status(path: Path, what: str) -> os.stat_result | None:
    """Return what the system knows of a file; None where there is none."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"the client's {what} {str(path)!r} cannot be read: {error.strerror}"
        ) from error


def _check_key_file(key: Path, certificate: Path) -> None:
    status = _status(key, "private key")
    if status is None:
        raise UsageError(
            f"there is a client certificate, {str(certificate)!r}, but not its private key "
            f"{str(key)!r}; name the key in sslkey, or use sslcertmode=disable to go without both"
        )
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"expected a regular file as private key, {str(key)!r} is none")
    if os.name == "nt":
        return
    # Root's own may be read by a group, to share one certificate between the users of a system.
    forbidden = stat.S_IRWXO | (stat.S_IWGRP | stat.S_IXGRP if status.st_uid == 0 else stat.S_IRWXG)
    if status.st_mode & forbidden:
        raise UsageError(
            f"others can read or change the private key {str(key)!r}; expected permissions 0600 or "
            "less, or 0640 or less for a file of root's: chmod 0600 it"
        )


class _Passphrase:
    """Asked by OpenSSL for what opens a key; without it OpenSSL would ask at the terminal."""

    def __init__(self, secret: Secret | None, key: Path) -> None:
        self._secret = secret
        self._key = key
        self.was_asked = False

    def __call__(self) -> str:
        self.was_asked = True
        if self._secret is None:
            raise UsageError(
                f"the private key {str(self._key)!r} is encrypted; give its pass phrase as "
                "sslpassword"
            )
        return self._secret.reveal()


def _load(
    context: ssl.SSLContext, certificate: Path, key: Path, passphrase: _Passphrase
) -> str | None:
    """Load a certificate and its key; returns what is wrong with them, or None."""
    try:
        if _is_der(key):
            return _load_der(context, certificate, key)
        context.load_cert_chain(certificate, key, passphrase)
    except ValueError:
        return "expected an sslpassword of 1024 bytes or less"
    except ssl.SSLError as error:
        if error.reason in _NOT_ITS_KEY:
            return (
                f"the private key {str(key)!r} is not that of the certificate {str(certificate)!r}"
            )
        if passphrase.was_asked:
            return f"the sslpassword does not open the private key {str(key)!r}"
        return (
            f"expected PEM in the client certificate {str(certificate)!r} and in its private key "
            f"{str(key)!r}, could not load them: {error.reason or error}"
        )
    except OSError as error:
        return (
            f"the client certificate {str(certificate)!r} or its private key {str(key)!r} cannot "
            f"be read: {error.strerror}"
        )
    return None


def _is_der(key: Path) -> bool:
    """Whether a file begins as ASN.1 does, and not as text."""
    with key.open("rb") as file:
        return file.read(1) == _SEQUENCE


def _load_der(context: ssl.SSLContext, certificate: Path, key: Path) -> str | None:
    """Load a key in binary form, which `ssl` does not read: as text, by a pipe."""
    label = _key_label(key)
    if label is not None and Path("/dev/fd").exists():
        reading, writing = os.pipe()
        try:
            _write_as_text(writing, label, key)
            context.load_cert_chain(certificate, f"/dev/fd/{reading}", lambda: "")
            return None
        except OSError:
            pass  # in a pipe OpenSSL cannot go back, and that is all that it tells
        finally:
            os.close(reading)
    return (
        f"the private key {str(key)!r} looks like one in DER form; it cannot be read, or is not "
        f"that of the certificate {str(certificate)!r}; convert it to PEM to find out: "
        "openssl pkey -inform DER -in ... -out ..."
    )


def _key_label(key: Path) -> str | None:
    """Return what a key in binary form is called in text, by what follows its version number."""
    with key.open("rb") as file:
        length = file.read(2)[1:]
        if length > b"\x80":
            file.read(length[0] & 0x7F)
        file.read(3)
        return _KEY_LABELS.get(file.read(1))


def _write_as_text(pipe: int, label: str, key: Path) -> None:
    """Write a key into a pipe and close it. What a pipe of this system cannot hold is left out,
    and what has come through does not make a key."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError), os.fdopen(pipe, "wb", buffering=0) as end:
        # In one expression, so that no local variable has the key.
        end.write(
            f"-----BEGIN {label}-----\n".encode()
            + base64.encodebytes(key.read_bytes())
            + f"-----END {label}-----\n".encode()
        )
