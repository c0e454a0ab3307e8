"""How a server on this machine is reached: its port, and the strings that clients connect by."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from .errors import TemporaryServerError

__all__ = ["HOST", "SUPERUSER", "conninfo_string", "conninfo_url", "free_port"]

HOST: Final = "127.0.0.1"
SUPERUSER: Final = "postgres"

# Below the ports that kernels hand out to outgoing connections: a client that keeps trying a port
# of that range while the server is down can end up connected to itself, and then holds the port.
_PORTS: Final = range(20000, 32000)


def free_port() -> int:
    """Return a port that nobody listens at, at this moment.

    Raises `TemporaryServerError` where none of many is free.
    """
    for port in random.SystemRandom().sample(_PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise TemporaryServerError(
        f"found no free port on {HOST}: tried 50 between {_PORTS.start} and {_PORTS.stop}"
    )


def conninfo_string(parameters: Mapping[str, str]) -> str:
    """`parameters` in libpq's keyword/value form, quoted where its syntax asks for it."""
    return " ".join(f"{name}={_conninfo_value(value)}" for name, value in parameters.items())


def _conninfo_value(value: str) -> str:
    if value and not re.search(r"[\s'\\]", value):
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def conninfo_url(parameters: Mapping[str, str]) -> str:
    """`parameters` as libpq's URI; those that have no place of their own in it become its query."""
    rest = dict(parameters)
    user, password = rest.pop("user", ""), rest.pop("password", "")
    host, port, database = rest.pop("host", ""), rest.pop("port", ""), rest.pop("dbname", "")
    account = _escaped(user) + (f":{_escaped(password)}" if password else "")
    where = _escaped(host) + (f":{port}" if port else "")
    query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return f"postgresql://{account + '@' if account else ''}{where}/{_escaped(database)}{query}"


def _escaped(text: str) -> str:
    return quote(text, safe="")
