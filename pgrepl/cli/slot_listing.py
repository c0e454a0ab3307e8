"""The replication slots of a server, as ``pgrepl slots list`` shows them and others ask for them.

Source: PostgreSQL documentation, "pg_replication_slots", "pg_stat_replication".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ..connection import Connection
from ..lsn import Lsn
from .printing import bytes_text, duration_text, printable
from .sql import Record, ask, literal

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["WAL_POSITION", "ListedSlot", "listed_slots", "slot_json", "slot_remarks", "slot_table"]

WAL_POSITION: Final = (
    "CASE WHEN pg_is_in_recovery()"
    " THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
    " ELSE pg_current_wal_lsn() END"
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
_ISO: Final = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""
_NARROW_STATES: Final = ("unreserved", "lost")


@dataclass(frozen=True, slots=True)
class ListedSlot:
    """A slot, who uses it and what it costs; None also for what the server's version lacks.

    `wal_held_bytes`: the WAL that the server keeps for it; `lag_bytes`: how far what the client has
    confirmed is behind the end of the WAL; `lag_seconds`: how long ago the server had flushed what
    the client confirmed last, while one is connected that reports; `inactive_seconds`: how long
    nobody has used it. `application_name` and `client_addr` are of the client that does, and are
    missing for a role that may not see other sessions.
    """

    slot: str
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
    inactive_since: str | None
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


def listed_slots(connection: Connection, name: str | None = None) -> list[ListedSlot]:
    """Return all slots of the server in the order of their names, or the one of a name."""
    query = _query(connection.server_version)
    if name is not None:
        # As text, since a cast to the type name would cut off what is too long.
        query += f" WHERE s.slot_name::text = {literal(name)}"
    return [_slot(record) for record in ask(connection, f"{query} ORDER BY s.slot_name")]


def _query(version: int) -> str:
    columns = {name: f"s.{name}" if version >= since else "NULL" for name, since in _SINCE.items()}
    if version >= _SINCE["inactive_since"]:
        columns["inactive_since"] = f"to_char(s.inactive_since AT TIME ZONE 'UTC', {_ISO})"
        columns["inactive_ms"] = _milliseconds("clock_timestamp() - s.inactive_since")
    listed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    return f"""
        SELECT s.slot_name AS slot, s.slot_type, s.plugin, s.database, s.temporary, s.active_pid,
            a.application_name, host(a.client_addr) AS client_addr, s.restart_lsn,
            s.confirmed_flush_lsn, {_behind("s.restart_lsn")} AS wal_held_bytes,
            {_behind("COALESCE(s.confirmed_flush_lsn, s.restart_lsn)")} AS lag_bytes,
            {_milliseconds("r.flush_lag")} AS lag_ms, {listed}
        FROM (SELECT {WAL_POSITION} AS wal) AS p CROSS JOIN pg_replication_slots AS s
        LEFT JOIN pg_stat_activity AS a ON a.pid = s.active_pid
        LEFT JOIN pg_stat_replication AS r ON r.pid = s.active_pid
    """


def _behind(position: str) -> str:
    """SQL for how far a position is behind the end of the WAL; NULL where there is none."""
    # A slot that is synchronized from a primary may be ahead of what its standby has.
    return f"CASE WHEN {position} IS NOT NULL THEN GREATEST(p.wal - {position}, 0)::int8 END"


def _milliseconds(interval: str) -> str:
    return f"round(extract(epoch FROM {interval}) * 1000)::int8"


def _slot(record: Record) -> ListedSlot:
    return ListedSlot(
        slot=record.get("slot", str),
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
        inactive_since=record.find("inactive_since", str),
        inactive_seconds=_seconds(record, "inactive_ms"),
    )


def _seconds(record: Record, name: str) -> float | None:
    milliseconds = record.find(name, int)
    return None if milliseconds is None else milliseconds / 1000


def slot_json(slot: ListedSlot) -> dict[str, Any]:
    """Return the members of the slot's JSON object: the fields, positions as text."""
    return {
        name: str(value) if isinstance(value, Lsn) else value
        for name, value in asdict(slot).items()
    }


def slot_table(slots: Sequence[ListedSlot]) -> Table:
    """Return a table for people, one line a slot and another for what is out of the ordinary."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, justify in (
        ("slot", "left"),
        ("kind", "left"),
        ("database", "left"),
        ("used by", "left"),
        ("lag", "right"),
        ("WAL held", "right"),
        ("WAL status", "left"),
        ("remarks", "left"),
    ):
        table.add_column(title, justify="right" if justify == "right" else "left", overflow="fold")
    for slot in slots:
        narrow = slot.invalidation or slot.wal_status in _NARROW_STATES
        cells = (
            slot.slot,
            slot.plugin or slot.slot_type,
            slot.database or "-",
            _user(slot),
            _lag(slot),
            _size(slot.wal_held_bytes),
            slot.wal_status or "-",
            ", ".join(slot_remarks(slot)),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells), style="red" if narrow else None)
    return table


def _size(count: int | None) -> str:
    return "-" if count is None else bytes_text(count)


def _lag(slot: ListedSlot) -> str:
    size = _size(slot.lag_bytes)
    return size if slot.lag_seconds is None else f"{size}, {duration_text(slot.lag_seconds)}"


def _user(slot: ListedSlot) -> str:
    if slot.active_pid is None:
        if slot.inactive_seconds is None:
            return "nobody"
        return f"nobody for {duration_text(slot.inactive_seconds)}"
    words = [f"pid {slot.active_pid}", slot.application_name or "", slot.client_addr or ""]
    return " ".join(word for word in words if word)


def slot_remarks(slot: ListedSlot) -> list[str]:
    """Return what is out of the ordinary with a slot, each in a few words."""
    remarks = []
    if slot.invalidation is not None:
        remarks.append(f"invalidated: {slot.invalidation}")
    if slot.safe_wal_size is not None:
        remarks.append(f"{bytes_text(max(slot.safe_wal_size, 0))} of WAL until it may be lost")
    for name in ("temporary", "two_phase", "failover", "synced"):
        if getattr(slot, name):
            remarks.append(name)
    return remarks
