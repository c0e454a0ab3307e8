"""The whole examination of a server, over one connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ...blocking.connection import Connection
from .finding import Finding, Level
from .publications import check_publications
from .server import Server, connected
from .settings import check_settings
from .slots import check_slots

__all__ = ["examine"]

# How Python has bytes that are no UTF-8.
_NO_TEXT: Final = re.compile("[\udc80-\udcff]")
# Both take a restart.
_SETTINGS_OF_SLOTS: Final = ("wal_level", "max_replication_slots")
_BY_HAND: Final = (
    "no SQL is shown, since a name in it is not UTF-8; write it in a session with the encoding of "
    "that name"
)


def examine(
    connection: Connection, publications: Sequence[str] = (), slot: str | None = None
) -> list[Finding]:
    """Return the findings for a connection to a database, made by `pgrepl.cli.sql.session`."""
    server = Server.read(connection, slot)
    settings = list(check_settings(connection, server))
    needs_restart = any(
        each.id in _SETTINGS_OF_SLOTS and each.level is Level.PROBLEM for each in settings
    )
    findings = (
        connected(server),
        *settings,
        *check_publications(connection, publications),
        *check_slots(connection, server, needs_restart=needs_restart),
    )
    return [_writable(finding) for finding in findings]


def _writable(finding: Finding) -> Finding:
    """Leave out SQL that nobody could type: names of bytes that are no text."""
    if any(_NO_TEXT.search(text) for text in (*finding.sql, finding.then)):
        return replace(finding, sql=(), then=_BY_HAND)
    return finding
