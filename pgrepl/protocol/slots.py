"""Replication slots: made, read, altered and dropped, in the grammar of the server's version.

Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import ProtocolError, ServerError, SlotExists, SlotInUse, UsageError
from ..lsn import Lsn
from ..public import imported_from
from .answers import lsn, single_row, text, timeline
from .backend import ServerState
from .conversation import Conversation
from .query import simple_query
from .quoting import boolean, has_option_lists, identifier, literal, option_list, require
from .replication import identify_system
from .slot_listing import ReplicationSlot, list_slots

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
_LOOKS: Final = 3
"""How often a slot is looked for that comes and goes while it is to be created."""
_NOT_PHYSICAL: Final = "0A000"
_OLD_SNAPSHOT: Final = {
    "nothing": "NOEXPORT_SNAPSHOT",
    "export": "EXPORT_SNAPSHOT",
    "use": "USE_SNAPSHOT",
}


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot just made, or one that was there and will do.

    `consistent_point`: where a stream from it begins, 0 of a physical slot; of one that was there,
    what its consumer has confirmed. `snapshot_name`: of the snapshot that fits it, where it was
    exported; `plugin`: of a logical slot. `created`: it was made just now.
    """

    name: str
    consistent_point: Lsn
    snapshot_name: str | None
    plugin: str | None
    created: bool = True


@imported_from("pgrepl.physical")
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
    if_not_exists: bool = False,
) -> Conversation[Slot]:
    """Run CREATE_REPLICATION_SLOT for a logical slot."""
    if snapshot not in _OLD_SNAPSHOT:
        raise UsageError(f"expected snapshot 'nothing', 'export' or 'use', got {snapshot!r}")
    if if_not_exists and snapshot == "use":
        raise UsageError(
            "expected snapshot 'nothing' or 'export' with if_not_exists: a slot that is there has "
            "none, and looking for it would be a query of the transaction that is to use it"
        )
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
    if if_not_exists:
        return (yield from _found_or_created(state, words, _Wanted(name, plugin, temporary)))
    return (yield from _created(state, words))


def create_physical_slot(
    state: ServerState,
    name: str,
    *,
    temporary: bool,
    reserve_wal: bool,
    if_not_exists: bool = False,
) -> Conversation[Slot]:
    """Run CREATE_REPLICATION_SLOT for a physical slot."""
    words = [*_create(name, temporary), "PHYSICAL"]
    if reserve_wal:
        words += option_list(["RESERVE_WAL"]) if has_option_lists(state) else ["RESERVE_WAL"]
    if if_not_exists:
        return (yield from _found_or_created(state, words, _Wanted(name, None, temporary)))
    return (yield from _created(state, words))


def _create(name: str, temporary: bool) -> list[str]:
    words = ["CREATE_REPLICATION_SLOT", identifier(name)]
    return [*words, "TEMPORARY"] if temporary else words


def _created(state: ServerState, words: list[str]) -> Conversation[Slot]:
    name, consistent_point, snapshot_name, plugin = yield from single_row(state, " ".join(words), 4)
    return Slot(text(name), lsn(consistent_point), snapshot_name, plugin)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a slot that is there must be; `plugin` None: physical."""

    name: str
    plugin: str | None
    temporary: bool


def _found_or_created(state: ServerState, words: list[str], wanted: _Wanted) -> Conversation[Slot]:
    """Return the slot that is there, or create it, whoever else does the same meanwhile.

    It is looked for first: a command that fails costs a session its temporary slots.
    """
    system = yield from identify_system(state)
    for _ in range(_LOOKS):
        if system.dbname is not None:
            found = yield from _found_by_sql(state, wanted, system.dbname)
        else:
            found = yield from _found_physical(state, wanted)
        if found is not None:
            return found
        try:
            return (yield from _created(state, words))
        except SlotExists as error:
            if system.dbname is None and state.version < _READ:
                # There is no way to ask. A stream from it tells if it is another kind of slot.
                return Slot(wanted.name, Lsn(0), None, None, created=False)
            exists = error
    raise exists


def _found_by_sql(state: ServerState, wanted: _Wanted, database: str) -> Conversation[Slot | None]:
    slots = yield from list_slots(state, wanted.name)
    if not slots:
        return None
    [found] = slots
    ours = _described(wanted.plugin, database, wanted.temporary)
    theirs = _described(found.plugin, found.database, found.temporary)
    if ours != theirs or (found.temporary and found.active_pid != state.pid):
        raise _other_slot(wanted.name, ours, theirs, found)
    if found.plugin is not None and found.confirmed_flush_lsn is None:
        raise SlotInUse(
            {
                "severity": "ERROR",
                "sqlstate": "55006",
                "message": f"the replication slot {found.name!r} is still being created by PID "
                f"{found.active_pid}",
            }
        )
    position = found.confirmed_flush_lsn or Lsn(0)
    return Slot(found.name, position, None, found.plugin, created=False)


def _found_physical(state: ServerState, wanted: _Wanted) -> Conversation[Slot | None]:
    """Look on a connection that has no SQL."""
    if wanted.plugin is not None or wanted.temporary or state.version < _READ:
        return None
    try:
        found = yield from read_slot(state, wanted.name)
    except ServerError as error:
        if error.sqlstate != _NOT_PHYSICAL:
            raise
        ours = _described(None, None, False)
        raise _other_slot(wanted.name, ours, "a logical slot") from error
    return None if found is None else Slot(wanted.name, Lsn(0), None, None, created=False)


def _described(plugin: str | None, database: str | None, temporary: bool) -> str:
    kind = "a temporary" if temporary else "a"
    if plugin is None:
        return f"{kind} physical slot"
    return f"{kind} logical slot of the plugin {plugin!r} and the database {database!r}"


def _other_slot(
    name: str, ours: str, theirs: str, found: ReplicationSlot | None = None
) -> SlotExists:
    owner = f", of PID {found.active_pid}" if found is not None and found.temporary else ""
    return SlotExists(
        {
            "severity": "ERROR",
            "sqlstate": "42710",
            "message": f"expected the replication slot {name!r} to be {ours}, it is "
            f"{theirs}{owner}",
            "hint": "drop it, or take another name",
        }
    )


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
