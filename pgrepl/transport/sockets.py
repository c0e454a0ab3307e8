"""Sockets as libpq makes them: addresses, options, and who is at the other end.

Source: PostgreSQL documentation, "Parameter Key Words" (libpq).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from ..conninfo.parameters import TCPSettings
from ..errors import AuthenticationError, TLSError, UsageError

__all__ = [
    "Address",
    "check_peer_user",
    "distinct",
    "expect_silence",
    "is_local",
    "is_loopback",
    "new_socket",
    "numeric_addresses",
    "unix_address",
]

Address: TypeAlias = tuple[int, Any]
"""A family, and what `socket.connect` takes in it."""

# sun_path, without its last zero byte.
_LONGEST_PATH: Final = 107 if sys.platform.startswith("linux") else 103

# The keyword, and the names that the option has: macOS calls the first one otherwise. What a
# platform does not have is passed over, as libpq does.
_TCP_OPTIONS: Final = (
    ("keepalives_idle", ("TCP_KEEPIDLE", "TCP_KEEPALIVE")),
    ("keepalives_interval", ("TCP_KEEPINTVL",)),
    ("keepalives_count", ("TCP_KEEPCNT",)),
)
_SOL_LOCAL: Final = 0
_XUCRED: Final = struct.Struct("=II")


def distinct(found: Iterable[tuple[Any, ...]]) -> list[Address]:
    """Return the addresses of what getaddrinfo found, each once, in its order."""
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def numeric_addresses(name: str, port: int) -> list[Address] | None:
    """Return the address that `name` says itself, without looking anything up; None: it is a
    name."""
    try:
        return distinct(
            socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        )
    except (OSError, UnicodeError):
        return None


def unix_address(path: str) -> Address:
    """Return the address of a Unix socket. Raises `UsageError` for a path that none can have."""
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise UsageError(
            f"expected a host name, since Python has no Unix sockets here, got {path!r}"
        )
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH:
        raise UsageError(
            f"expected the path of a Unix socket in at most {_LONGEST_PATH} bytes, got {length}: "
            f"{path!r}; give the server a folder with a shorter name in unix_socket_directories"
        )
    return int(family), path


def new_socket(family: int, settings: TCPSettings) -> socket.socket:
    """Return a socket that is not connected yet, with the options of TCP where that is meant.

    Raises `UsageError` for a value that the operating system refuses.
    """
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != getattr(socket, "AF_UNIX", None):
            # Small messages go at once.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _set_tcp_options(made, settings)
    except BaseException:
        made.close()
        raise
    return made


def _set_tcp_options(made: socket.socket, settings: TCPSettings) -> None:
    if settings.keepalives:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for keyword, names in _TCP_OPTIONS:
            _set_option(made, keyword, getattr(settings, keyword), names)
    _set_option(made, "tcp_user_timeout", settings.tcp_user_timeout, ("TCP_USER_TIMEOUT",))


def _set_option(
    made: socket.socket, keyword: str, value: int | None, names: tuple[str, ...]
) -> None:
    option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
    if option is None or value is None or value <= 0:
        return
    try:
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        raise UsageError(
            f"expected a {keyword} that the operating system takes, got {value}: {error}"
        ) from error


def expect_silence(connected: socket.socket) -> None:
    """Check, right before a TLS handshake, that nothing has come yet.

    Bytes that came before it would be taken as if they had come inside TLS. Raises `TLSError`, or
    `OSError` where the connection has ended. The socket must not block.
    """
    with contextlib.suppress(BlockingIOError):
        if connected.recv(1, socket.MSG_PEEK):
            raise TLSError(
                "expected nothing before the TLS handshake, got data: somebody on the way may be "
                "trying to slip in unprotected answers"
            )


def is_local(connected: socket.socket) -> bool:
    """Whether the other end is on this machine: a Unix socket, or the loopback interface."""
    if connected.family == getattr(socket, "AF_UNIX", None):
        return True
    # By the address that was connected to: a name says nothing about where it leads.
    with contextlib.suppress(OSError):
        return is_loopback(connected.getpeername()[0])
    return False


def is_loopback(text: str) -> bool:
    """Whether an address is one of this machine's loopback interface."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text.partition("%")[0])
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return False


def check_peer_user(connected: socket.socket, expected: str | None) -> None:
    """Check that the server at the other end of a Unix socket runs as this user.

    None expects nothing; on a connection by TCP there is nothing to check, as in libpq. Raises
    `AuthenticationError`.
    """
    if expected is None or connected.family != getattr(socket, "AF_UNIX", None):
        return
    found = _peer_user(connected)
    if found != expected:
        raise AuthenticationError(
            f"expected a server that runs as the user {expected!r}, which requirepeer asks for, "
            f"got one that runs as {found}"
        )


def _peer_user(connected: socket.socket) -> str:
    uid = _peer_uid(connected)
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}, which has no name here"


def _peer_uid(connected: socket.socket) -> int:
    # Linux tells the process, the user and the group; macOS and FreeBSD a structure that begins
    # with its version and the user.
    try:
        if sys.platform.startswith("linux"):
            told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("3i", told)[1])
        if hasattr(socket, "LOCAL_PEERCRED"):
            told = connected.getsockopt(_SOL_LOCAL, socket.LOCAL_PEERCRED, 76)
            return int(_XUCRED.unpack_from(told)[1])
    except (OSError, struct.error) as error:
        raise AuthenticationError(
            f"could not find out which user the server runs as, which requirepeer asks for: {error}"
        ) from error
    raise AuthenticationError(
        "expected a platform that tells which user the server runs as, since requirepeer asks for "
        "it, got one that does not; take requirepeer out"
    )
