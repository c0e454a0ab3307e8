"""What making a connection is about, whoever waits for it: which attempts there are, when the next
one is made, and what is said where none succeeds."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import AuthenticationRejected, ConnectionFailed, Error
from .conninfo import ConnectionParameters

__all__ = [
    "STARTUP_LIMIT",
    "attempts",
    "is_final",
    "no_address",
    "not_connected",
    "not_in_time",
    "set_options",
    "socket_path",
]

STARTUP_LIMIT: Final = 65536
"""Bytes of a message before authentication. Nobody has proved anything yet, and no honest message
is longer."""


def attempts(parameters: ConnectionParameters) -> list[tuple[bool, str]]:
    """Return (is the last one, TLS: "no", "offered" or "required") in the order to be tried.

    Under sslmode=prefer a second attempt without TLS is made where TLS itself failed, or where the
    server turned the TLS connection away before a password was asked for.
    """
    if parameters.is_unix_socket or parameters.sslmode == "disable":
        return [(True, "no")]
    if parameters.sslmode == "prefer":
        return [(False, "offered"), (True, "no")]
    return [(True, "required")]


def is_final(error: Error, last: bool) -> bool:
    """Whether an attempt that ended in this error was the last one."""
    return last or (isinstance(error, AuthenticationRejected) and error.sqlstate != "28000")


def socket_path(parameters: ConnectionParameters) -> str:
    """Return where the server's Unix socket is."""
    return str(Path(parameters.host) / f".s.PGSQL.{parameters.port}")


def set_options(connected: socket.socket) -> None:
    """Have small messages sent at once, and a dead link noticed in the end."""
    if connected.family != getattr(socket, "AF_UNIX", None):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def no_address(parameters: ConnectionParameters, error: Exception) -> ConnectionFailed:
    """The error for a host that is not known."""
    return ConnectionFailed(f"could not find the address of host {parameters.host!r}: {error}")


def not_connected(parameters: ConnectionParameters, failures: Iterable[str]) -> ConnectionFailed:
    """The error for a host none of whose addresses can be reached."""
    return ConnectionFailed(
        f"could not connect to {parameters.where}: {'; '.join(dict.fromkeys(failures))}; is the "
        "server running there and listening?"
    )


def not_in_time(parameters: ConnectionParameters) -> ConnectionFailed:
    """The error for a time limit that ran out."""
    return ConnectionFailed(
        f"no connection to {parameters.where} within connect_timeout, "
        f"{parameters.connect_timeout} s"
    )
