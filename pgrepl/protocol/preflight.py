"""What is checked before a logical stream begins, while it is still a conversation.

Law: nothing is skipped silently. START_REPLICATION moves a start that lies before the slot's
confirmed position forward without a word, believes one that lies beyond its WAL, and looks a
publication up at the first change; so all of that is asked before, and is an error that says what
to do, or a warning where nothing is lost for certain. What the server would refuse by itself is
told here in the same words for every version.

Two round trips: IDENTIFY_SYSTEM, and one text of three SELECTs. A token of an earlier timeline
takes a third one, TIMELINE_HISTORY.

Source: PostgreSQL documentation, "Streaming Replication Protocol", "pg_replication_slots",
"pg_publication", "pg_settings".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import (
    ProtocolError,
    PublicationNotFound,
    ServerError,
    SlotInUse,
    SlotInvalidated,
    SlotNotFound,
    UsageError,
    server_error,
)
from ..lsn import Lsn
from ..resume import ResumeToken
from .backend import ServerState
from .conversation import Conversation
from .query import Result, simple_query
from .quoting import identifier, publication_list
from .replication import SystemIdentity, identify_system
from .slot_state import COLUMNS, SlotState, flag, misread, number, present, report, slot_state
from .sql import literal
from .start_position import check_history, start_position

__all__ = ["OnMissing", "Preflight", "SlotState", "preflight"]

OnMissing: TypeAlias = Literal["raise", "warn"]
"""What becomes of a publication that does not exist when a stream begins."""

_log = logging.getLogger("pgrepl.stream")

_Row: TypeAlias = tuple[str | None, ...]

_PLUGIN: Final = "pgoutput"
# Up to 17 a missing publication ends the stream; from 18 on there is a notice, and no changes.
_MISSING_IS_SKIPPED: Final = 180000

_REMEDIES: Final = {
    "wal_removed": "raise max_slot_wal_keep_size, or read faster than WAL is written",
    "rows_removed": "set hot_standby_feedback = on on the standby",
    "wal_level_insufficient": "set wal_level = logical on the primary",
    "idle_timeout": "raise idle_replication_slot_timeout, or stay connected",
}


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a stream begins with, all of it checked.

    `wal_sender_timeout` in seconds, 0.0 where the server has none; `start`: the position for
    START_REPLICATION, never before what the slot still has.
    """

    system: SystemIdentity
    slot: SlotState
    wal_sender_timeout: float
    start: Lsn


def preflight(
    state: ServerState,
    slot: str,
    publications: Sequence[str],
    start: Lsn | ResumeToken | None = None,
    *,
    plugin: str | None = _PLUGIN,
    on_missing: OnMissing = "raise",
) -> Conversation[Preflight]:
    """Check that a stream of `slot` can begin at `start` and lacks nothing.

    `plugin` None: whatever plugin the slot has, and publications are not looked at, which only
    pgoutput knows.

    None, and position 0 for that matter, go on behind what the slot has confirmed. So does an `Lsn`
    that lies before that, and logger ``pgrepl.stream`` warns of it. `on_missing` "warn": likewise
    of a publication that is missing, which the slot may have changes of all the same.

    Raises, in this order of checks: `UsageError` (no publication named, a name that cannot be, a
    physical connection), `SlotNotFound`, `UsageError` (the slot is physical, of another database or
    of another plugin), `SlotInvalidated`, `SlotInUse` (try again after a while), `SystemMismatch`,
    `SlotGap`, `PublicationNotFound`. That a publication exists now does not say that it existed at
    every change that the slot still has, which cannot be asked; the server reports that one later.
    """
    # Before anything is sent: names that cannot be.
    if plugin is not None:
        publication_list(publications)
    identifier(slot)
    question = _question(state.version, slot, publications)
    system = yield from identify_system(state)
    if system.dbname is None:
        raise UsageError(
            "expected a connection to a database, this one is for physical replication; connect "
            "with replication='database'"
        )
    slots, published, settings = _rows((yield from _ask(state, question)))
    found, ours = _slot(slots, slot, system)
    timeout = _wal_sender_timeout(settings)
    _check_kind(found, system, plugin)
    _check_usable(found, ours)
    begin = start_position(found, system, start)
    if isinstance(start, ResumeToken) and start.timeline != system.timeline:
        yield from check_history(state, system, start)
    if plugin is not None:
        missing = _missing(state.version, publications, published, system, begin)
        if missing is not None and on_missing == "raise":
            raise missing
        if missing is not None:
            _log.warning("slot %r: %s", slot, " ".join(str(missing).split("\n")))
    if isinstance(start, int) and 0 < start < begin:
        _log.warning(
            "slot %r: the stream begins at %s, up to which the slot has confirmed, and not at %s "
            "as asked for: while a stream has nothing to deliver its slot follows the server, and "
            "then nothing is missing; a slot that was advanced, or created again, looks the same. "
            "With a ResumeToken as start it is checked",
            *(slot, begin, Lsn(start)),
        )
    return Preflight(system, found, timeout, begin)


# What is asked


def _question(version: int, slot: str, publications: Sequence[str]) -> str:
    """Return the SQL; every name in it is qualified, whatever the session's search_path."""
    columns = ", ".join(name if version >= since else "NULL" for name, since in COLUMNS)
    names = ", ".join(literal(name) for name in publications)
    # As text, since a cast to name would cut off what is too long, and find another.
    return (
        f"SELECT {columns}, active_pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
        " FROM pg_catalog.pg_replication_slots"
        f" WHERE slot_name::pg_catalog.text OPERATOR(pg_catalog.=) {literal(slot)}"
        "::pg_catalog.text;"
        " SELECT pubname FROM pg_catalog.pg_publication"
        " WHERE pubname::pg_catalog.text OPERATOR(pg_catalog.=)"
        f" ANY (ARRAY[{names}]::pg_catalog.text[]);"
        " SELECT setting FROM pg_catalog.pg_settings"
        " WHERE name OPERATOR(pg_catalog.=) 'wal_sender_timeout'::pg_catalog.text"
    )


def _ask(state: ServerState, sql: str) -> Conversation[list[Result]]:
    try:
        results = yield from simple_query(state, sql)
    except ServerError as error:
        if error.sqlstate != "42501":
            raise
        hint = (
            "before a stream begins, this role must be able to read pg_replication_slots, "
            "pg_publication and pg_settings of the schema pg_catalog, which is everybody's right "
            "unless it was revoked: GRANT SELECT ON them to the role"
        )
        raise server_error({**error.fields, "hint": hint}) from error
    return results


# What is answered


def _rows(results: Sequence[Result]) -> tuple[list[_Row], list[_Row], list[_Row]]:
    widths = (len(COLUMNS) + 1, 1, 1)
    got = tuple(len(result.columns) for result in results)
    if got != widths:
        raise ProtocolError(
            f"expected results of {widths} columns in answer to the question for the slot, "
            f"got {got[:5]}"
        )
    slots, published, settings = (result.rows for result in results)
    return slots, published, settings


def _slot(rows: Sequence[_Row], name: str, system: SystemIdentity) -> tuple[SlotState, bool]:
    """The slot, and whether this very session holds it."""
    if not rows:
        raise SlotNotFound(
            report(
                "42704",
                f'replication slot "{name}" does not exist',
                detail=f"This is system {system.systemid}, database {system.dbname!r}.",
                hint="create it; it will have what is committed from then on, so that what there "
                "is before has to be copied from the tables (a temporary one goes with its "
                "connection, and with the first command that fails there)",
            )
        )
    if len(rows) > 1:
        raise ProtocolError(f"expected one slot {name!r} in the server's answer, got {len(rows)}")
    *columns, held = rows[0]
    found = slot_state(columns)
    if found.name != name:
        raise misread("the slot's name", repr(name), found.name)
    return found, held is not None and flag("whether this session holds the slot", held)


def _wal_sender_timeout(rows: Sequence[_Row]) -> float:
    """In seconds. pg_settings has the number alone, in the unit of the setting: milliseconds."""
    if len(rows) != 1:
        raise ProtocolError(f"expected one setting wal_sender_timeout, got {len(rows)}")
    setting = present("wal_sender_timeout", rows[0][0])
    return number("wal_sender_timeout", setting) / 1000


# What is checked


def _check_kind(slot: SlotState, system: SystemIdentity, plugin: str | None) -> None:
    if slot.slot_type != "logical":
        wanted = "" if plugin is None else f" for {plugin}"
        raise UsageError(
            f"expected a logical slot{wanted}, {slot.name!r} is {slot.slot_type[:40]!r}; name "
            "another one, or stream its WAL over a connection with replication='physical'"
        )
    if slot.database != system.dbname:
        raise UsageError(
            f"expected a slot of database {system.dbname!r}, which this connection is for, "
            f"{slot.name!r} is of database {slot.database!r}; connect to that one, or name "
            "another slot"
        )
    if plugin is not None and slot.plugin != plugin:
        raise UsageError(
            f"expected a slot of plugin {plugin!r}, {slot.name!r} is of plugin {slot.plugin!r}; "
            "name another one, or read what that plugin writes with stream_raw()"
        )


def _check_usable(slot: SlotState, ours: bool) -> None:
    reason = slot.invalidation_reason
    if reason is not None or slot.conflicting or slot.wal_status == "lost":
        if reason is not None:
            cause = f'due to "{reason}"'
        elif slot.conflicting:
            # 16, which has no reasons yet, sets this flag for every invalidated slot.
            cause = (
                "since WAL that it needs was removed, or it conflicted with the recovery of this "
                "standby"
            )
        else:
            cause = "since WAL that it needs was removed"
        remedy = f"; then {_REMEDIES[reason]}" if reason in _REMEDIES else ""
        raise SlotInvalidated(
            report(
                "55000",
                f'can no longer access replication slot "{slot.name}"',
                detail=f"The slot has been invalidated {cause}.",
                hint="drop it, create a new one and copy the tables again: the changes that it "
                f"kept are gone{remedy}",
            ),
            reason=reason,
        )
    if slot.active_pid is not None and not ours:
        raise SlotInUse(
            report(
                "55006",
                f'replication slot "{slot.name}" is active for PID {slot.active_pid}',
                detail="A slot serves one connection at a time.",
                hint="wait for the other one to end; a server process whose client is gone ends "
                f"after wal_sender_timeout, or by pg_terminate_backend({slot.active_pid})",
            )
        )


def _missing(
    version: int,
    publications: Sequence[str],
    rows: Sequence[_Row],
    system: SystemIdentity,
    start: Lsn,
) -> PublicationNotFound | None:
    """Return the error for publications that do not exist now; None: all of them do."""
    existing = {row[0] for row in rows}
    missing = tuple(dict.fromkeys(name for name in publications if name not in existing))
    if not missing:
        return None
    quoted = ", ".join(f'"{name}"' for name in missing)
    plural = "s" if len(missing) > 1 else ""
    hint = "create with CREATE PUBLICATION what is missing, or leave it out"
    if start < system.xlogpos:
        then = "are left out" if version >= _MISSING_IS_SKIPPED else "end the stream"
        hint += (
            "; the server looks a publication up as of each change, so that changes between "
            f"{start} and its creation {then}, and so do those behind its removal, but not what "
            'the slot still has from before: on_missing_publication="warn" lets that come. For '
            "one that is new advance the slot behind its creation with "
            "pg_replication_slot_advance(), or create the slot again, and copy the tables"
        )
    return PublicationNotFound(
        report(
            "42704",
            f"expected publications that exist, found none of the name{plural} {quoted}",
            detail=f"This is database {system.dbname!r}.",
            hint=hint,
        ),
        names=missing,
    )
