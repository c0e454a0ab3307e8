"""The servers that a conninfo names: lists of hosts, addresses and ports, side by side.

Source: PostgreSQL documentation, "Specifying Multiple Hosts" (libpq).
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UsageError
from .locations import SOCKET_FOLDERS, is_there, password_file
from .parameters import Host
from .passfile import PasswordFile
from .values import Values

__all__ = ["hosts"]


def hosts(values: Values, databases: tuple[str, ...], user: str) -> tuple[Host, ...]:
    """Return the servers in the order of the list; an empty element is the default host.

    The password file is asked for `user` in any of `databases`, where no password was given.
    """
    named, addresses, ports = _lists(values)
    password = values.secret("password")
    path = values.optional("passfile")
    file = None
    if password is None and (found := Path(path) if path else password_file()) is not None:
        file = PasswordFile(found)
    result = []
    for host, address, port_text in zip(named, addresses, ports, strict=True):
        port_text = port_text or "5432"
        port = values.integer_of("port", port_text, 1, 65535)
        host = host or ("" if address else _default_host(port))
        own = (
            file.password(_names(host or address), port_text, databases, user) if file else password
        )
        result.append(Host(host, address or None, port, own))
    return tuple(result)


def _lists(values: Values) -> tuple[list[str], list[str], list[str]]:
    """Return names, addresses and ports, of the same length; empty texts for what is missing."""
    named, addresses, ports = (
        values.text(name).split(",") if values.text(name) else []
        for name in ("host", "hostaddr", "port")
    )
    count = len(addresses) or len(named) or 1
    if named and len(named) != count:
        raise UsageError(
            f"could not match {len(named)} host names to {count} hostaddr values; name a host for "
            "each address, empty ones where there is none, or none at all"
        )
    if len(ports) > 1 and len(ports) != count:
        raise UsageError(
            f"could not match {len(ports)} port numbers to {count} hosts; give one port for all, "
            "or one for each"
        )
    if len(ports) < 2:
        ports = (ports or [""]) * count
    return named or [""] * count, addresses or [""] * count, ports


def _default_host(port: int) -> str:
    if os.name == "nt":
        return "localhost"
    for folder in SOCKET_FOLDERS:
        if is_there(Path(folder) / f".s.PGSQL.{port}"):
            return folder
    return SOCKET_FOLDERS[0]


def _names(host: str) -> tuple[str, ...]:
    # Which folder is the default one depends on the libpq that the file was written for.
    return ("localhost", host) if host in SOCKET_FOLDERS else (host,)
