"""The replication slots of a server: who uses them, how far behind they are, what they hold.

Source: PostgreSQL documentation, "pg_replication_slots", "pg_stat_replication".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ..errors import ProtocolError, ServerError, UsageError
from ..lsn import Lsn
from ..public import imported_from
from .backend import ServerState
from .conversation import Conversation
from .sql import Record, ask, literal

__all__ = ["ReplicationSlot", "list_slots", "slot_of_record", "slots_query"]

_WAL_POSITION: Final = (
    "CASE WHEN pg_catalog.pg_is_in_recovery()"
    " THEN GREATEST(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())"
    " ELSE pg_catalog.pg_current_wal_lsn() END"
)
"""SQL for the end of the WAL; of a standby, of what it has."""

# Columns that came with a version; before it, the value is NULL.
_SINCE: Final = {
    "wal_status": 130000,
    "safe_wal_size": 130000,
    "two_phase": 140000,
    "conflicting": 160000,
    "failover": 170000,
    "synced": 170000,
    "invalidation_reason": 170000,
    "inactive_since": 170000,
}
_NO_SQL: Final = "0A000"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class ReplicationSlot:
    """A slot, who uses it and what it costs; None also for what the server's version lacks.

    `name`, `slot_type` (``logical`` or ``physical``), `plugin`, `database` and `temporary` say what
    it is. `active_pid`: the server process that uses it, with `application_name` and `client_addr`
    of its client, which are missing for a role that may not see other sessions.

    `restart_lsn`: from where on the server keeps WAL for it, and `wal_held_bytes` how much that is;
    `confirmed_flush_lsn`: what the consumer of a logical slot has confirmed, and `lag_bytes` how
    far behind the end of the WAL that is; of a physical one, how far its restart_lsn is.
    `lag_seconds`: how long ago the server had flushed what was confirmed last, while a consumer is
    connected that reports.

    `wal_status` and `safe_wal_size` (13): whether its WAL is safe, and how many bytes more may be
    written until it is not. `two_phase` (14), `failover` and `synced` (17): what it does.
    `conflicting` (16), `invalidation_reason` (17): why it is of no use any more; `invalidation` has
    both. `inactive_since`, `inactive_seconds` (17): how long nobody has used it.
    """

    name: str
    slot_type: str
    plugin: str | None
    database: str | None
    temporary: bool
    active_pid: int | None
    application_name: str | None
    client_addr: str | None
    restart_lsn: Lsn | None
    confirmed_flush_lsn: Lsn | None
    wal_held_bytes: int | None
    lag_bytes: int | None
    lag_seconds: float | None
    wal_status: str | None
    safe_wal_size: int | None
    two_phase: bool | None
    failover: bool | None
    synced: bool | None
    conflicting: bool | None
    invalidation_reason: str | None
    inactive_since: datetime | None
    inactive_seconds: float | None

    @property
    def invalidation(self) -> str | None:
        """Why the slot is of no use any more; None: it is good, as far as the server tells."""
        if self.invalidation_reason is not None:
            return self.invalidation_reason
        if self.conflicting:
            # So 16 shows every logical slot that is invalidated, whatever the cause.
            return "wal_removed, or a conflict with recovery"
        return "wal_removed" if self.wal_status == "lost" else None


def list_slots(state: ServerState, name: str | None = None) -> Conversation[list[ReplicationSlot]]:
    """Ask for all slots of the server in the order of their names, or for the one of a name.

    Raises `UsageError` on a connection that has no SQL, and `ServerError`.
    """
    try:
        found = yield from ask(state, slots_query(state.version, name))
    except ServerError as error:
        if error.sqlstate != _NO_SQL:
            raise
        raise UsageError(
            "expected a connection to a database: slots are listed by SQL, which one with "
            'replication="physical" does not have; read_slot() tells of one physical slot there'
        ) from error
    return [slot_of_record(record) for record in found]


def slots_query(version: int, name: str | None = None) -> str:
    """Return the SELECT of the slots that `slot_of_record` reads, in the order of their names."""
    columns = {name: f"s.{name}" if version >= since else "NULL" for name, since in _SINCE.items()}
    if version >= _SINCE["inactive_since"]:
        columns["inactive_since"] = _whole("s.inactive_since", 1_000_000)
        now = "pg_catalog.clock_timestamp()"
        columns["inactive_ms"] = _whole(f"{now} OPERATOR(pg_catalog.-) s.inactive_since", 1000)
    listed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    # As text, since a cast to the type name would cut off what is too long.
    condition = (
        ""
        if name is None
        else "WHERE s.slot_name::pg_catalog.text OPERATOR(pg_catalog.=)"
        f" {literal(name)}::pg_catalog.text"
    )
    return f"""
        SELECT s.slot_name AS name, s.slot_type, s.plugin, s.database, s.temporary, s.active_pid,
            a.application_name, pg_catalog.host(a.client_addr) AS client_addr, s.restart_lsn,
            s.confirmed_flush_lsn, {_behind("s.restart_lsn")} AS wal_held_bytes,
            {_behind("COALESCE(s.confirmed_flush_lsn, s.restart_lsn)")} AS lag_bytes,
            {_whole("r.flush_lag", 1000)} AS lag_ms, {listed}
        FROM (SELECT {_WAL_POSITION} AS wal) AS p CROSS JOIN pg_catalog.pg_replication_slots AS s
        LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) s.active_pid
        LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid OPERATOR(pg_catalog.=) s.active_pid
        {condition} ORDER BY s.slot_name
    """


def _behind(position: str) -> str:
    """SQL for how far a position is behind the end of the WAL; NULL where there is none."""
    # A slot that is synchronized from a primary may be ahead of what its standby has.
    distance = f"GREATEST(p.wal OPERATOR(pg_catalog.-) {position}, 0)::pg_catalog.int8"
    return f"CASE WHEN {position} IS NOT NULL THEN {distance} END"


def _whole(time: str, units: int) -> str:
    """SQL for a time or an interval as a whole number of units of a second."""
    seconds = f"extract(epoch FROM {time})"
    return f"pg_catalog.round({seconds} OPERATOR(pg_catalog.*) {units})::pg_catalog.int8"


def slot_of_record(record: Record) -> ReplicationSlot:
    """Read a row of the answer to `slots_query`."""
    return ReplicationSlot(
        name=record.get("name", str),
        slot_type=record.get("slot_type", str),
        plugin=record.find("plugin", str),
        database=record.find("database", str),
        temporary=record.get("temporary", bool),
        active_pid=record.find("active_pid", int),
        application_name=record.find("application_name", str),
        client_addr=record.find("client_addr", str),
        restart_lsn=record.lsn("restart_lsn"),
        confirmed_flush_lsn=record.lsn("confirmed_flush_lsn"),
        wal_held_bytes=record.find("wal_held_bytes", int),
        lag_bytes=record.find("lag_bytes", int),
        lag_seconds=_seconds(record, "lag_ms"),
        wal_status=record.find("wal_status", str),
        safe_wal_size=record.find("safe_wal_size", int),
        two_phase=record.find("two_phase", bool),
        failover=record.find("failover", bool),
        synced=record.find("synced", bool),
        conflicting=record.find("conflicting", bool),
        invalidation_reason=record.find("invalidation_reason", str),
        inactive_since=_moment(record, "inactive_since"),
        inactive_seconds=_seconds(record, "inactive_ms"),
    )


def _seconds(record: Record, name: str) -> float | None:
    milliseconds = record.find(name, int)
    return None if milliseconds is None else milliseconds / 1000


def _moment(record: Record, name: str) -> datetime | None:
    microseconds = record.find(name, int)
    try:
        return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise ProtocolError(
            f"expected {name} in the years 1 to 9999 in the server's answer, got {microseconds} "
            "microseconds since 1970"
        ) from None
