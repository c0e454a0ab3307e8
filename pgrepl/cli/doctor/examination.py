"""The whole examination of a server, over one connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ...connection import Connection
from .finding import Finding
from .publications import check_publications
from .server import Server, connected
from .settings import check_settings
from .slots import check_slots

__all__ = ["examine"]

# How Python has bytes that are no UTF-8.
_NO_TEXT: Final = re.compile("[\udc80-\udcff]")
_BY_HAND: Final = (
    "no SQL is shown, since a name in it is not UTF-8; write it in a session with the encoding of "
    "that name"
)


def examine(
    connection: Connection, publications: Sequence[str] = (), slot: str | None = None
) -> list[Finding]:
    """Return the findings for a connection to a database, made by `pgrepl.cli.sql.session`."""
    server = Server.read(connection, slot)
    findings = (
        connected(server),
        *check_settings(connection, server),
        *check_publications(connection, publications),
        *check_slots(connection, server),
    )
    return [_writable(finding) for finding in findings]


def _writable(finding: Finding) -> Finding:
    """Leave out SQL that nobody could type: names of bytes that are no text."""
    if any(_NO_TEXT.search(text) for text in (*finding.sql, finding.then)):
        return replace(finding, sql=(), then=_BY_HAND)
    return finding
