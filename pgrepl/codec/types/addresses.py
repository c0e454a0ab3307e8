"""Network addresses; how the functions behave is told in scalars.py.

An ``inet`` is an address, or with a netmask an interface of `ipaddress`; a ``cidr`` is a network.
Hardware addresses are their text.

Source: PostgreSQL documentation, "Network Address Types".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, Final, TypeAlias

from .fields import Fields, size_error

Inet: TypeAlias = IPv4Address | IPv6Address | IPv4Interface | IPv6Interface
Cidr: TypeAlias = IPv4Network | IPv6Network

# ipaddress takes masks in place of lengths, and zones, which PostgreSQL does not write.
_FORM = re.compile(rb"[0-9a-f:.]+(/[0-9]{1,3})?")


def inet_text(data: bytes) -> Any:
    text = data.decode()
    form = _FORM.fullmatch(data)
    if form is None:
        return text
    try:
        return ip_interface(text) if form[1] else ip_address(text)
    except ValueError:
        return text


def cidr_text(data: bytes) -> Any:
    text = data.decode()
    form = _FORM.fullmatch(data)
    if form is None or not form[1]:
        return text
    try:
        return ip_network(text)
    except ValueError:
        return text


_V4, _V6 = 2, 3
_SIZES: Final = {_V4: 4, _V6: 16}


def _parts(name: str, data: bytes) -> tuple[int, bytes, int]:
    """Return the family, the address and the length of the netmask."""
    fields = Fields(name, data)
    family, bits, is_cidr, size = fields.raw(4)
    if family not in _SIZES:
        raise fields.error(f"family {_V4} or {_V6}", family)
    if size != _SIZES[family]:
        raise fields.error(f"an address of {_SIZES[family]} bytes", size)
    if bits > 8 * size:
        raise fields.error(f"a netmask of at most {8 * size} bits", bits)
    if is_cidr not in (0, 1):
        raise fields.error("a mark of 0 or 1 for cidr", is_cidr)
    address = fields.raw(size)
    fields.finish()
    return family, address, bits


def inet_binary(data: bytes) -> Inet:
    family, address, bits = _parts("inet", data)
    if bits == 8 * len(address):
        return IPv4Address(address) if family == _V4 else IPv6Address(address)
    return IPv4Interface((address, bits)) if family == _V4 else IPv6Interface((address, bits))


def cidr_binary(data: bytes) -> Cidr:
    family, address, bits = _parts("cidr", data)
    return IPv4Network((address, bits)) if family == _V4 else IPv6Network((address, bits))


def _hardware(name: str, size: int) -> Callable[[bytes], str]:
    def binary(data: bytes) -> str:
        if len(data) != size:
            raise size_error(name, size, data)
        return data.hex(":")

    return binary


macaddr_binary = _hardware("macaddr", 6)
macaddr8_binary = _hardware("macaddr8", 8)
