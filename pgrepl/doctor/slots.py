"""The slots of a server: the one of the consumer, and those that cost WAL for nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from ..amounts import bytes_text, duration_text
from ..protocol.slot_listing import ReplicationSlot
from .finding import Finding, Level
from .questions import Questions, ask_one
from .server import Server
from .shown_sql import literal

__all__ = ["check_slots"]

_PLUGIN: Final = "pgoutput"
_STANDBY_SLOTS: Final = 170000
_ONLY_THEN: Final = "drop it only if no consumer comes back for it"
_AFTER_RESTART: Final = "run it after the restart of the server: before, no slot can be made"
_NAME: Final = re.compile(r"[a-z0-9_]{1,63}")


def check_slots(server: Server, *, needs_restart: bool = False) -> Questions[list[Finding]]:
    """Look at the consumer's slot, if one is named, and at all others.

    `needs_restart`: no slot can be made before settings are in force that take one.
    """
    found: list[Finding] = []
    if server.slot_name is not None:
        found += _check_consumer_slot(server, server.slot_name, needs_restart)
    if server.version >= _STANDBY_SLOTS and not server.in_recovery:
        found += yield from _check_standby_slots(server)
    sizes = yield from ask_one(
        "SELECT pg_size_bytes(current_setting('max_wal_size')) AS much,"
        " pg_size_bytes(current_setting('wal_segment_size')) AS some",
    )
    some, much = sizes.get("some", int), sizes.get("much", int)
    troubles = [
        finding
        for slot in server.slots
        for finding in _check_any_slot(slot, slot.name == server.slot_name, some, much)
    ]
    if server.slots and not troubles:
        found.append(Finding("slots", Level.OK, f"no slot is in trouble, of {len(server.slots)}"))
    return found + troubles


def _check_consumer_slot(server: Server, name: str, needs_restart: bool) -> Iterator[Finding]:
    subject = {"slot": name}
    found = [slot for slot in server.slots if slot.name == name]
    if not found:
        can_be = _NAME.fullmatch(name) is not None
        then = _AFTER_RESTART if needs_restart else ""
        yield Finding(
            "slot_missing",
            Level.PROBLEM,
            f"the slot {name!r} does not exist",
            "A consumer has what is committed after its slot was made, and nothing before.",
            (_create(name),) if can_be else (),
            then if can_be else "take a name of at most 63 letters a-z, digits and _",
            subject,
        )
        return
    slot = found[0]
    wrong = _wrong_kind(slot, server.database)
    if wrong:
        yield Finding(
            "slot_kind",
            Level.PROBLEM,
            f"the slot {name!r} {wrong}",
            f"It takes a logical slot of this database, with the plugin {_PLUGIN}.",
            then="name another slot, or connect to its database",
            subject=subject,
        )
    elif slot.invalidation is None and slot.active_pid is not None:
        user = f"pid {slot.active_pid}"
        if slot.application_name:
            user += f", {slot.application_name!r}"
        yield Finding(
            "slot_active",
            Level.WARNING,
            f"the slot {name!r} is in use by {user}",
            "A slot serves one consumer at a time; if it is not yours, it takes your changes.",
            (f"SELECT pg_terminate_backend({slot.active_pid});",),
            subject=subject,
        )
    elif slot.invalidation is None:
        behind = "nothing" if slot.lag_bytes is None else bytes_text(slot.lag_bytes)
        yield Finding(
            "slot", Level.OK, f"the slot {name!r} is free, and {behind} behind", subject=subject
        )


def _check_standby_slots(server: Server) -> Questions[list[Finding]]:
    """Slots of standbys that those of failover wait for, and that do not move."""
    waiting = [
        slot.name
        for slot in server.slots
        if slot.failover
        and slot.database == server.database
        and server.slot_name in (None, slot.name)
    ]
    if not waiting:
        return []
    row = yield from ask_one("SELECT current_setting('synchronized_standby_slots') AS names")
    names = [each.strip(' "') for each in row.get("names", str).split(",") if each.strip()]
    by_name = {slot.name: slot for slot in server.slots}
    bad = {name: why for name in names if (why := _why_it_stands(by_name.get(name)))}
    left = ", ".join(each for each in names if each not in bad)
    return [_waits_in_vain(waiting, name, why, left) for name, why in bad.items()]


def _waits_in_vain(waiting: Sequence[str], name: str, why: str, left: str) -> Finding:
    return Finding(
        "synchronized_standby_slots",
        Level.PROBLEM,
        f"{', '.join(map(repr, waiting))} must wait for the slot {name!r} of a standby, which "
        f"{why}",
        "A consumer of a slot with failover is sent nothing that the standbys of "
        "synchronized_standby_slots do not have yet: its stream stands still without an error.",
        (
            f"ALTER SYSTEM SET synchronized_standby_slots = {literal(left)};",
            "SELECT pg_reload_conf();",
        ),
        "or have the standby of that slot connect again",
        {"slot": name},
    )


def _why_it_stands(slot: ReplicationSlot | None) -> str:
    if slot is None:
        return "does not exist"
    if slot.slot_type != "physical":
        return "is none: it is logical"
    if slot.invalidation is not None:
        return f"is invalidated: {slot.invalidation}"
    return "" if slot.active_pid is not None else "nobody uses"


def _wrong_kind(slot: ReplicationSlot, database: str) -> str:
    if slot.slot_type != "logical":
        return f"is {slot.slot_type}"
    if slot.plugin != _PLUGIN:
        return f"is of the plugin {slot.plugin!r}"
    if slot.database != database:
        return f"is of the database {slot.database!r}"
    return ""


def _check_any_slot(
    slot: ReplicationSlot, is_consumers: bool, some: int, much: int
) -> Iterator[Finding]:
    """`some`, `much`: bytes of WAL from which on an unused slot is worth a word, or two."""
    if slot.invalidation is not None:
        yield _invalidated(slot, is_consumers)
        return
    if slot.wal_status == "unreserved":
        yield _about_to_be_lost(slot)
    held = slot.wal_held_bytes or 0
    # A synchronized slot of a standby is for a time that has not come.
    if slot.active_pid is None and not slot.synced and held >= some:
        since = "" if slot.inactive_seconds is None else f" for {_duration(slot)}"
        yield Finding(
            "slot_inactive",
            Level.WARNING if held >= much else Level.HINT,
            f"nobody has used the slot {slot.name!r}{since}, and it holds {bytes_text(held)} of "
            "WAL",
            "The server keeps all WAL from its position on, until somebody reads it"
            + ("." if is_consumers else f" or drops it: {_ONLY_THEN}."),
            () if is_consumers else (_drop(slot.name),),
            "start its consumer" if is_consumers else "",
            {"slot": slot.name},
        )


def _duration(slot: ReplicationSlot) -> str:
    return duration_text(slot.inactive_seconds or 0.0)


def _invalidated(slot: ReplicationSlot, is_consumers: bool) -> Finding:
    sql = [_drop(slot.name)]
    then = ""
    if is_consumers and slot.plugin == _PLUGIN:
        sql.append(_create(slot.name))
        then = "copy the tables again: what the old slot had is gone"
    return Finding(
        "slot_invalidated",
        Level.PROBLEM if is_consumers else Level.WARNING,
        f"the slot {slot.name!r} is invalidated: {slot.invalidation}",
        "What it kept is gone, and it can never be read again.",
        tuple(sql),
        then,
        {"slot": slot.name},
    )


def _about_to_be_lost(slot: ReplicationSlot) -> Finding:
    held = slot.wal_held_bytes or 0
    enough = max(2 * held >> 20, 1 << 10)
    return Finding(
        "slot_wal_unreserved",
        Level.WARNING,
        f"the slot {slot.name!r} holds {bytes_text(held)} of WAL, more than max_slot_wal_keep_size",
        "The next checkpoint removes that WAL and invalidates the slot.",
        (
            f"ALTER SYSTEM SET max_slot_wal_keep_size = '{enough}MB';",
            "SELECT pg_reload_conf();",
        ),
        subject={"slot": slot.name},
    )


def _create(name: str) -> str:
    return f"SELECT pg_create_logical_replication_slot({literal(name)}, '{_PLUGIN}');"


def _drop(name: str) -> str:
    return f"SELECT pg_drop_replication_slot({literal(name)});"
