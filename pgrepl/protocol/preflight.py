"""What is checked before a logical stream begins, while it is still a conversation.

Law: nothing is skipped silently. START_REPLICATION moves a start that lies before the slot's
confirmed position forward without a word, believes one that lies beyond its WAL, and looks a
publication up at the first change; so all of that is asked before, and is an error that says what
to do. What the server would refuse by itself is told here in the same words for every version.

Two round trips: IDENTIFY_SYSTEM, and one text of three SELECTs. A token of an earlier timeline
takes a third one, TIMELINE_HISTORY.

Source: PostgreSQL documentation, "Streaming Replication Protocol", "pg_replication_slots",
"pg_publication", "pg_settings".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias, TypeVar

from ..errors import (
    ProtocolError,
    PublicationNotFound,
    ServerError,
    SlotGap,
    SlotInUse,
    SlotInvalidated,
    SlotNotFound,
    SystemMismatch,
    UsageError,
    server_error,
)
from ..lsn import Lsn
from ..token import ResumeToken
from .backend import ServerState
from .conversation import Conversation
from .grammar import identifier, literal, publication_list
from .query import Result, simple_query
from .replication import SystemIdentity, identify_system

__all__ = ["Preflight", "SlotState", "preflight"]

_Value = TypeVar("_Value")
_Row: TypeAlias = tuple[str | None, ...]

_PLUGIN: Final = "pgoutput"
# Up to 17 a missing publication ends the stream; from 18 on there is a notice, and no changes.
_MISSING_IS_SKIPPED: Final = 180000

_COLUMNS: Final = (
    ("slot_name", 0),
    ("plugin", 0),
    ("slot_type", 0),
    ("database", 0),
    ("temporary", 0),
    ("active_pid", 0),
    ("restart_lsn", 0),
    ("confirmed_flush_lsn", 0),
    ("wal_status", 130000),
    ("two_phase", 140000),
    ("conflicting", 160000),
    ("invalidation_reason", 170000),
    ("failover", 170000),
    ("synced", 170000),
)

_REMEDIES: Final = {
    "wal_removed": "raise max_slot_wal_keep_size, or read faster than WAL is written",
    "rows_removed": "set hot_standby_feedback = on on the standby",
    "wal_level_insufficient": "set wal_level = logical on the primary",
    "idle_timeout": "raise idle_replication_slot_timeout, or stay connected",
}


@dataclass(frozen=True, slots=True)
class SlotState:
    """A slot as pg_replication_slots shows it; None also for what the server's version lacks.

    `wal_status` from 13 on, `two_phase` from 14, `conflicting` from 16, `invalidation_reason`,
    `failover` and `synced` from 17. `active_pid`: the server process that holds it, our own where
    it is a temporary one of this connection.
    """

    name: str
    plugin: str | None
    slot_type: str
    database: str | None
    temporary: bool
    active_pid: int | None
    restart_lsn: Lsn | None
    confirmed_flush_lsn: Lsn | None
    wal_status: str | None
    two_phase: bool | None
    conflicting: bool | None
    invalidation_reason: str | None
    failover: bool | None
    synced: bool | None


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
) -> Conversation[Preflight]:
    """Check that a stream of `slot` can begin at `start` and lacks nothing.

    `plugin` None: whatever plugin the slot has, and publications are not looked at, which only
    pgoutput knows.

    None, and position 0 for that matter, go on behind what the slot has confirmed.

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
    begin = _check_position(found, system, start)
    if isinstance(start, ResumeToken) and start.timeline != system.timeline:
        yield from _check_history(state, system, start)
    if plugin is not None:
        _check_publications(state.version, publications, published, system, begin)
    return Preflight(system, found, timeout, begin)


# What is asked


def _sql_literal(value: str) -> str:
    """Quote a value for SQL, where a setting says what a backslash means unless it is doubled."""
    quoted = literal(value)
    return "E" + quoted.replace("\\", "\\\\") if "\\" in value else quoted


def _question(version: int, slot: str, publications: Sequence[str]) -> str:
    """Return the SQL; every name in it is qualified, whatever the session's search_path."""
    columns = ", ".join(name if version >= since else "NULL" for name, since in _COLUMNS)
    names = ", ".join(_sql_literal(name) for name in publications)
    # As text, since a cast to name would cut off what is too long, and find another.
    return (
        f"SELECT {columns}, active_pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
        " FROM pg_catalog.pg_replication_slots"
        f" WHERE slot_name::pg_catalog.text OPERATOR(pg_catalog.=) {_sql_literal(slot)}"
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
    widths = (len(_COLUMNS) + 1, 1, 1)
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
            _report(
                "42704",
                f'replication slot "{name}" does not exist',
                detail=f"This is system {system.systemid}, database {system.dbname!r}.",
                hint="create it; it will have what is committed from then on, so that what there "
                "is before has to be copied from the tables",
            )
        )
    if len(rows) > 1:
        raise ProtocolError(f"expected one slot {name!r} in the server's answer, got {len(rows)}")
    *columns, held = rows[0]
    found = _slot_state(columns)
    if found.name != name:
        raise _misread("the slot's name", repr(name), found.name)
    return found, held is not None and _flag("whether this session holds the slot", held)


def _slot_state(values: Sequence[str | None]) -> SlotState:
    columns = dict(zip((name for name, _ in _COLUMNS), values, strict=True))

    def take(column: str, convert: Callable[[str, str], _Value]) -> _Value | None:
        value = columns[column]
        return None if value is None else convert(column, value)

    def need(column: str, convert: Callable[[str, str], _Value]) -> _Value:
        return _present(column, take(column, convert))

    return SlotState(
        name=need("slot_name", _text),
        plugin=take("plugin", _text),
        slot_type=need("slot_type", _text),
        database=take("database", _text),
        temporary=need("temporary", _flag),
        active_pid=take("active_pid", _number),
        restart_lsn=take("restart_lsn", _lsn),
        confirmed_flush_lsn=take("confirmed_flush_lsn", _lsn),
        wal_status=take("wal_status", _text),
        two_phase=take("two_phase", _flag),
        conflicting=take("conflicting", _flag),
        invalidation_reason=take("invalidation_reason", _text),
        failover=take("failover", _flag),
        synced=take("synced", _flag),
    )


def _wal_sender_timeout(rows: Sequence[_Row]) -> float:
    """In seconds. pg_settings has the number alone, in the unit of the setting: milliseconds."""
    if len(rows) != 1:
        raise ProtocolError(f"expected one setting wal_sender_timeout, got {len(rows)}")
    setting = _present("wal_sender_timeout", rows[0][0])
    return _number("wal_sender_timeout", setting) / 1000


def _present(what: str, value: _Value | None) -> _Value:
    if value is None:
        raise ProtocolError(f"expected {what} in the server's answer, got NULL")
    return value


def _misread(what: str, kind: str, text: str) -> ProtocolError:
    return ProtocolError(f"expected {what} as {kind} in the server's answer, got {text[:40]!r}")


def _text(_what: str, text: str) -> str:
    return text


def _number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _misread(what, "a number", text)
    return int(text)


def _flag(what: str, text: str) -> bool:
    if text not in ("t", "f"):
        raise _misread(what, "t or f", text)
    return text == "t"


def _lsn(what: str, text: str) -> Lsn:
    try:
        return Lsn(text)
    except ValueError as error:
        raise _misread(what, "an LSN", text) from error


# What is checked


def _report(sqlstate: str, message: str, *, detail: str, hint: str) -> dict[str, str]:
    """The fields of an error that the server did not send, but would if it looked."""
    return {
        "severity": "ERROR",
        "sqlstate": sqlstate,
        "message": message,
        "detail": detail,
        "hint": hint,
    }


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
            _report(
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
            _report(
                "55006",
                f'replication slot "{slot.name}" is active for PID {slot.active_pid}',
                detail="A slot serves one connection at a time.",
                hint="wait for the other one to end; a server process whose client is gone ends "
                f"after wal_sender_timeout, or by pg_terminate_backend({slot.active_pid})",
            )
        )


def _check_position(
    slot: SlotState, system: SystemIdentity, start: Lsn | ResumeToken | None
) -> Lsn:
    """Return where to start; what is wanted must be neither lost nor yet to come."""
    confirmed = _present("confirmed_flush_lsn", slot.confirmed_flush_lsn)
    if isinstance(start, ResumeToken):
        if start.systemid != system.systemid:
            _raise_mismatch(system, start, "another system")
        if start.timeline > system.timeline:
            _raise_mismatch(system, start, "an earlier timeline of the same system")
        wanted = start.end_lsn
    elif not start:
        return confirmed
    else:
        wanted = Lsn(start)
    if confirmed > wanted:
        raise _gap(
            wanted,
            confirmed,
            f'expected replication slot "{slot.name}" to have the changes from {wanted} on, it has '
            f"those from {confirmed} on",
            detail=f"The server would begin at {confirmed} and tell nobody. The slot was advanced, "
            "acknowledged further (an idle stream does so too), or dropped and created again.",
            hint="copy the tables again and go on from the slot's position; if you know that "
            f"nothing was published in between, begin at {confirmed}",
        )
    if wanted > system.xlogpos:
        raise _gap(
            wanted,
            system.xlogpos,
            f"expected a server whose WAL reaches to {wanted}, this one's ends at {system.xlogpos}",
            detail="It is older than the position: restored from a backup, or a standby that lags "
            "behind. What it commits up to there would be left out.",
            hint="wait for the standby to catch up, or connect to the server that the position is "
            "from; if that one is gone, copy the tables again",
        )
    return wanted


def _gap(wanted: Lsn, available: Lsn, message: str, *, detail: str, hint: str) -> SlotGap:
    fields = _report("55000", message, detail=detail, hint=hint)
    return SlotGap(fields, wanted=wanted, available=available)


def _raise_mismatch(system: SystemIdentity, token: ResumeToken, what: str) -> NoReturn:
    raise SystemMismatch(
        _report(
            "55000",
            f"expected system {token.systemid} with timeline {token.timeline}, got system "
            f"{system.systemid} with timeline {system.timeline}",
            detail=f"The resume token {token} is not of this server's history: this is {what}.",
            hint="connect to the server that the token is from, or to one promoted from it; if "
            "there is none, copy the tables again and go on without the token",
        ),
        expected=(token.systemid, token.timeline),
        got=(system.systemid, system.timeline),
    )


def _check_history(
    state: ServerState, system: SystemIdentity, token: ResumeToken
) -> Conversation[None]:
    """Check that the server left the token's timeline not before the token's position.

    What a promoted standby had not received is missing there, and the same positions hold other
    transactions now.
    """
    try:
        results = yield from simple_query(state, f"TIMELINE_HISTORY {system.timeline}")
    except ServerError as error:
        if error.severity != "ERROR":
            raise
        hint = (
            f"without the history of timeline {system.timeline} nobody can tell whether timeline "
            f"{token.timeline} led here by way of {token.end_lsn}: put the file into pg_wal, or "
            "begin at that position without a token if you know that it did"
        )
        raise server_error({**error.fields, "hint": hint}) from error
    switch = _switch_point(results, token.timeline)
    if switch is None:
        _raise_mismatch(system, token, "another branch, without that timeline")
    if token.end_lsn > switch:
        raise _gap(
            token.end_lsn,
            switch,
            f"expected {token.end_lsn} of timeline {token.timeline} in this server's history, it "
            f"left that timeline at {switch}",
            detail="It was promoted, or restored, before it had all that was consumed, so that "
            f"timeline {system.timeline} has other transactions at that position.",
            hint="what was consumed beyond that point is not on this server: copy the tables again",
        )


def _switch_point(results: Sequence[Result], timeline: int) -> Lsn | None:
    """Where a history leaves a timeline; None: it never was on it."""
    rows = [row for result in results for row in result.rows]
    if len(rows) != 1 or len(rows[0]) != 2:
        raise ProtocolError(
            "expected one row of 2 columns in answer to TIMELINE_HISTORY, got "
            f"{len(rows)} rows of {[len(row) for row in rows][:3]} columns"
        )
    for line in _present("a timeline's history", rows[0][1]).splitlines():
        words = line.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise _misread("a timeline's history", "lines of timeline and LSN", line)
        position = _lsn("a timeline's end", words[1])
        if _number("a timeline", words[0]) == timeline:
            return position
    return None


def _check_publications(
    version: int,
    publications: Sequence[str],
    rows: Sequence[_Row],
    system: SystemIdentity,
    start: Lsn,
) -> None:
    existing = {row[0] for row in rows}
    missing = tuple(dict.fromkeys(name for name in publications if name not in existing))
    if not missing:
        return
    quoted = ", ".join(f'"{name}"' for name in missing)
    plural = "s" if len(missing) > 1 else ""
    hint = "create with CREATE PUBLICATION what is missing"
    if start < system.xlogpos:
        then = "are left out" if version >= _MISSING_IS_SKIPPED else "end the stream"
        hint += (
            "; the server looks a publication up as of each change, so that changes between "
            f"{start} and its creation {then}: advance the slot behind it with "
            "pg_replication_slot_advance(), or create the slot again, and copy the tables"
        )
    raise PublicationNotFound(
        _report(
            "42704",
            f"expected publications that exist, found none of the name{plural} {quoted}",
            detail=f"This is database {system.dbname!r}.",
            hint=hint,
        ),
        names=missing,
    )
