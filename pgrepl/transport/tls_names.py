"""For which hosts a certificate is, by the rules of libpq.

By `ssl` itself only where a name is sent to the server (SNI), which sslsni=0 and addresses do not
do; it knows no address in the common name; and it wants three labels in a wildcard, so that
``*.internal`` of an authority of one's own is for nobody. One rule for all is easier to rely upon.
The certificate has been verified before: what is compared here is what an authority has signed.

Source: PostgreSQL documentation, "Client Verification of Server Certificates" (libpq); RFC 6125,
6.4 and 7.2.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

__all__ = ["is_for_host", "name_to_send", "names_of"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME: Final = "DNS"
_ADDRESS: Final = "IP Address"


def name_to_send(host: str) -> str | None:
    """Return what a server is told of the host in the handshake; None for an address, and for what
    cannot be a name."""
    if ":" in host or not host.strip("0123456789."):
        return None
    return _encoded(host)


def is_for_host(certificate: Mapping[str, Any], host: str) -> bool:
    """Whether a certificate, in the form of `SSLSocket.getpeercert`, is for this host.

    Its alternative names decide; the common name does where there is none of the host's kind, name
    or address. A name with a zero byte in it makes the whole certificate worthless.
    """
    address, encoded = _address(host), _encoded(host)
    alternatives = list(_alternatives(certificate))
    names = [name for kind, name in alternatives if kind == _NAME]
    if not any(kind == (_NAME if address is None else _ADDRESS) for kind, _ in alternatives):
        names.extend(_common_name(certificate))
    if not encoded or any("\0" in name for name in names):
        return False
    wanted = encoded.lower()
    if address is not None:
        found = (_address(text) for kind, text in alternatives if kind == _ADDRESS)
        # A wildcard stands for no part of an address.
        return address in found or wanted in map(_folded, names)
    return any(_matches(_folded(name), wanted) for name in names)


def names_of(certificate: Mapping[str, Any]) -> list[str]:
    """Return whom a certificate is for, as it says itself, to be shown."""
    names = [name for _, name in _alternatives(certificate)]
    return names or list(_common_name(certificate))


def _alternatives(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in (_NAME, _ADDRESS):
            yield kind, name


def _common_name(certificate: Mapping[str, Any]) -> Iterator[str]:
    """Yield the first one, if there is any."""
    for part in certificate.get("subject", ()):
        for kind, name in part:
            if kind == "commonName":
                yield name
                return


def _matches(name: str, wanted: str) -> bool:
    """Whether a name is the wanted one, or is a wildcard for the first of its labels."""
    if name.startswith("*.") and len(name) > 2:
        label, dot, rest = wanted.partition(".")
        return bool(label and dot) and rest == name[2:]
    return name == wanted


def _folded(name: str) -> str:
    # Beyond ASCII, letters of other scripts would become the ones of a name that they only look
    # like.
    return name.lower() if name.isascii() else ""


def _encoded(host: str) -> str | None:
    """Return a host as it goes over the wire; None for one with labels that are empty or too
    long."""
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return None


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
