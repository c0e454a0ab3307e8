"""A slot that was there already, held against what was asked for."""

from __future__ import annotations

from typing import Final

from ...blocking.connection import Connection
from ..failure import CommandFailed

__all__ = ["require_as_asked"]

_ALTERS_FAILOVER: Final = 170000
_ALTERS_TWO_PHASE: Final = 180000


def require_as_asked(connection: Connection, name: str, *, two_phase: bool, failover: bool) -> None:
    """Raise `CommandFailed` where a slot that was there already lacks what was asked for."""
    if not (two_phase or failover):
        return
    for slot in connection.slots(name):
        lacks = [
            option
            for option, asked, has in (
                ("--two-phase", two_phase, slot.two_phase),
                ("--failover", failover, slot.failover),
            )
            if asked and not has
        ]
        if not lacks:
            continue
        options = " ".join(lacks)
        first = _ALTERS_FAILOVER if lacks == ["--failover"] else _ALTERS_TWO_PHASE
        if connection.server_version >= first:
            remedy = f"add it with  pgrepl slots alter --slot NAME {options}"
        else:
            remedy = "drop it and create it again"
        raise CommandFailed(
            f"the slot {name!r} was there already, without {' and '.join(lacks)}: {remedy},  or "
            "leave that out here"
        )
