"""The whole examination of a server, over one connection."""

from __future__ import annotations

from collections.abc import Sequence

from ...connection import Connection
from .finding import Finding
from .publications import check_publications
from .server import Server, connected
from .settings import check_settings
from .slots import check_slots

__all__ = ["examine"]


def examine(
    connection: Connection, publications: Sequence[str] = (), slot: str | None = None
) -> list[Finding]:
    """Return the findings for a connection to a database, made by `pgrepl.cli.sql.session`."""
    server = Server.read(connection, slot)
    return [
        connected(server),
        *check_settings(connection, server),
        *check_publications(connection, publications),
        *check_slots(connection, server),
    ]
