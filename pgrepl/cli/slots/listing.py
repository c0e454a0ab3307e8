"""The replication slots of a server, as ``pgrepl slots list`` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ...amounts import bytes_text, duration_text
from ...escapes import printable
from ...lsn import Lsn
from ...protocol.slot_listing import ReplicationSlot

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["slot_json", "slot_remarks", "slot_table"]

_NARROW_STATES: Final = ("unreserved", "lost")


def slot_json(slot: ReplicationSlot) -> dict[str, Any]:
    """Return the members of the slot's JSON object: the fields, positions and times as text."""
    name, *rest = asdict(slot).items()
    return {"slot": name[1], **{key: _json_value(value) for key, value in rest}}


def _json_value(value: Any) -> Any:
    if isinstance(value, Lsn):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


def slot_table(slots: Sequence[ReplicationSlot]) -> Table:
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
            slot.name,
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


def _lag(slot: ReplicationSlot) -> str:
    size = _size(slot.lag_bytes)
    return size if slot.lag_seconds is None else f"{size}, {duration_text(slot.lag_seconds)}"


def _user(slot: ReplicationSlot) -> str:
    if slot.active_pid is None:
        if slot.inactive_seconds is None:
            return "nobody"
        return f"nobody for {duration_text(slot.inactive_seconds)}"
    words = [f"pid {slot.active_pid}", slot.application_name or "", slot.client_addr or ""]
    return " ".join(word for word in words if word)


def slot_remarks(slot: ReplicationSlot) -> list[str]:
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
