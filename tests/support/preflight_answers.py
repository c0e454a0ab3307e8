"""The answers that a preflight gets, made by hand: those for a slot with nothing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.preflight import preflight
from tests.support import builders
from tests.support.dialogue import Dialogue

READY: Final = builders.ready_for_query()

SLOT: Final[dict[str, str | None]] = {
    "slot_name": "s",
    "plugin": "pgoutput",
    "slot_type": "logical",
    "database": "shop",
    "temporary": "f",
    "active_pid": None,
    "restart_lsn": "0/1000",
    "confirmed_flush_lsn": "0/1800",
    "wal_status": "reserved",
    "two_phase": "f",
    "conflicting": "f",
    "invalidation_reason": None,
    "failover": "f",
    "synced": "t",
    "ours": None,
}
IDENTITY: Final = ("7291", "3", "0/3000", "shop")


def result(columns: int, *rows: Sequence[str | None]) -> list[bytes]:
    """One statement's result, of so many columns."""
    return [
        builders.row_description(*(f"c{i}" for i in range(columns))),
        *(builders.data_row(*row) for row in rows),
        builders.command_complete("SELECT"),
    ]


def identity(*row: str | None) -> list[bytes]:
    """The answer to IDENTIFY_SYSTEM."""
    return [*result(4, row or IDENTITY), READY]


def answer(
    *slots: dict[str, str | None],
    publications: Sequence[str] = ("p",),
    timeout: Sequence[str | None] = ("60000",),
) -> list[bytes]:
    """The answer to the question: slots, publications that exist, rows of the setting."""
    return [
        *result(len(SLOT), *(list(slot.values()) for slot in slots)),
        *result(1, *([name] for name in publications)),
        *result(1, *([value] for value in timeout)),
        READY,
    ]


def of(**changes: str | None) -> list[bytes]:
    """The answer for the slot with these columns changed."""
    return answer(SLOT | changes)


def state_of(version: str) -> ServerState:
    """What is known of a server of this version."""
    state = ServerState()
    state.parameters["server_version"] = version
    return state


def asking(
    *,
    version: str = "18.4",
    slot: str = "s",
    publications: Any = ("p",),
    start: Any = None,
    **keywords: Any,
) -> Dialogue:
    """A preflight that has begun."""
    return Dialogue(preflight(state_of(version), slot, publications, start, **keywords))


def history(*rows: Sequence[str | None], columns: int = 2) -> list[bytes]:
    """The answer to TIMELINE_HISTORY."""
    return [*result(columns, *rows), READY]
