"""Replication slots: made, read, altered and dropped, in the grammar of the server's version.

Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import ProtocolError, UsageError
from ..lsn import Lsn
from .answers import lsn, single_row, text, timeline
from .backend import ServerState
from .conversation import Conversation
from .grammar import boolean, has_option_lists, identifier, literal, option_list, require
from .query import simple_query

__all__ = [
    "PhysicalSlot",
    "Slot",
    "SnapshotAction",
    "alter_slot",
    "create_logical_slot",
    "create_physical_slot",
    "drop_slot",
    "read_slot",
]

SnapshotAction: TypeAlias = Literal["nothing", "export", "use"]

_READ: Final = 150000
_TWO_PHASE: Final = 150000
_FAILOVER: Final = 170000
_ALTER: Final = 170000
_ALTER_TWO_PHASE: Final = 180000
_OLD_SNAPSHOT: Final = {
    "nothing": "NOEXPORT_SNAPSHOT",
    "export": "EXPORT_SNAPSHOT",
    "use": "USE_SNAPSHOT",
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot just made.

    `consistent_point`: where a stream from it begins, 0 of a physical slot; `snapshot_name`: of the
    snapshot that fits it, where it was exported; `plugin`: of a logical slot.
    """

    name: str
    consistent_point: Lsn
    snapshot_name: str | None
    plugin: str | None


@dataclass(frozen=True, slots=True)
class PhysicalSlot:
    """A physical slot: where the WAL that it keeps begins, and on which timeline.

    Both None while it keeps none, since nobody has used it yet.
    """

    restart_lsn: Lsn | None
    restart_tli: int | None


def create_logical_slot(
    state: ServerState,
    name: str,
    plugin: str,
    *,
    temporary: bool,
    snapshot: SnapshotAction,
    two_phase: bool,
    failover: bool,
) -> Conversation[Slot]:
    """Run CREATE_REPLICATION_SLOT for a logical slot."""
    if snapshot not in _OLD_SNAPSHOT:
        raise UsageError(f"expected snapshot 'nothing', 'export' or 'use', got {snapshot!r}")
    if two_phase:
        require(state, _TWO_PHASE, "two-phase slots need")
    if failover:
        require(state, _FAILOVER, "failover slots need")
    words = [*_create(name, temporary), "LOGICAL", identifier(plugin)]
    if has_option_lists(state):
        options = [f"SNAPSHOT {literal(snapshot)}"]
        if two_phase:
            options.append("TWO_PHASE")
        if failover:
            options.append("FAILOVER")
        words += option_list(options)
    else:
        words.append(_OLD_SNAPSHOT[snapshot])
    return (yield from _created(state, words))


def create_physical_slot(
    state: ServerState, name: str, *, temporary: bool, reserve_wal: bool
) -> Conversation[Slot]:
    """Run CREATE_REPLICATION_SLOT for a physical slot."""
    words = [*_create(name, temporary), "PHYSICAL"]
    if reserve_wal:
        words += option_list(["RESERVE_WAL"]) if has_option_lists(state) else ["RESERVE_WAL"]
    return (yield from _created(state, words))


def _create(name: str, temporary: bool) -> list[str]:
    words = ["CREATE_REPLICATION_SLOT", identifier(name)]
    return [*words, "TEMPORARY"] if temporary else words


def _created(state: ServerState, words: list[str]) -> Conversation[Slot]:
    name, consistent_point, snapshot_name, plugin = yield from single_row(state, " ".join(words), 4)
    return Slot(text(name), lsn(consistent_point), snapshot_name, plugin)


def read_slot(state: ServerState, name: str) -> Conversation[PhysicalSlot | None]:
    """Run READ_REPLICATION_SLOT, which PostgreSQL 15 brought; None: there is no such slot."""
    require(state, _READ, "READ_REPLICATION_SLOT needs")
    kind, restart_lsn, restart_tli = yield from single_row(
        state, f"READ_REPLICATION_SLOT {identifier(name)}", 3
    )
    if kind is None:
        return None
    if kind != "physical":
        raise ProtocolError(f"expected a slot of type 'physical', got {kind[:40]!r}")
    return PhysicalSlot(
        None if restart_lsn is None else lsn(restart_lsn),
        None if restart_tli is None else timeline(restart_tli),
    )


def alter_slot(
    state: ServerState, name: str, *, failover: bool | None, two_phase: bool | None
) -> Conversation[None]:
    """Run ALTER_REPLICATION_SLOT, which PostgreSQL 17 brought; None leaves a property as it is."""
    require(state, _ALTER, "ALTER_REPLICATION_SLOT needs")
    options = []
    if failover is not None:
        options.append(f"FAILOVER {boolean(failover)}")
    if two_phase is not None:
        require(state, _ALTER_TWO_PHASE, "slots whose two_phase is altered need")
        options.append(f"TWO_PHASE {boolean(two_phase)}")
    if not options:
        raise UsageError("expected failover, two_phase or both to alter, got neither")
    words = ["ALTER_REPLICATION_SLOT", identifier(name), *option_list(options)]
    yield from simple_query(state, " ".join(words))


def drop_slot(state: ServerState, name: str, wait: bool) -> Conversation[None]:
    """Run DROP_REPLICATION_SLOT; `wait` until nobody uses the slot any more."""
    yield from simple_query(
        state, f"DROP_REPLICATION_SLOT {identifier(name)}{' WAIT' if wait else ''}"
    )
