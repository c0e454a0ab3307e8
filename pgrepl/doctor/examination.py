"""The whole examination of a server, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from .finding import Finding, Level
from .publications import check_publications
from .questions import Questions
from .server import Server, connected
from .settings import check_settings
from .shown_sql import NO_TEXT
from .slots import check_slots

__all__ = ["examination"]

# Both take a restart.
_SETTINGS_OF_SLOTS: Final = ("wal_level", "max_replication_slots")
_BY_HAND: Final = (
    "no SQL is shown, since a name in it is not UTF-8; write it in a session with the encoding of "
    "that name"
)


def examination(
    version: int, version_text: str, publications: Sequence[str], slot: str | None
) -> Questions[list[Finding]]:
    """Examine a server of a version, as it counts it and as it says it."""
    server = yield from Server.read(version, version_text, slot)
    settings = yield from check_settings(server)
    needs_restart = any(
        each.id in _SETTINGS_OF_SLOTS and each.level is Level.PROBLEM for each in settings
    )
    published = yield from check_publications(version, publications)
    slots = yield from check_slots(server, needs_restart=needs_restart)
    return [_writable(each) for each in (connected(server), *settings, *published, *slots)]


def _writable(finding: Finding) -> Finding:
    """Leave out SQL that nobody could type: names of bytes that are no text."""
    if any(NO_TEXT.search(text) for text in (*finding.sql, finding.then)):
        return replace(finding, sql=(), then=_BY_HAND)
    return finding
