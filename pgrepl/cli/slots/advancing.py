"""A slot that is moved forward: from where, and how far."""

from __future__ import annotations

from collections.abc import Sequence

from ...blocking.connection import Connection
from ...lsn import Lsn
from ...protocol.slot_listing import ReplicationSlot
from ...protocol.sql import literal
from ..connections import ask_one
from ..failure import CommandFailed

__all__ = ["advance", "from_and_to"]


def from_and_to(name: str, slots: Sequence[ReplicationSlot], target: Lsn | None) -> tuple[Lsn, Lsn]:
    """Return where a slot is and where it is to go; `slots` has the one of that name.

    `target` None: the end of the server's WAL. Raises `CommandFailed` where it cannot go there.
    """
    if not slots:
        raise CommandFailed(f"the slot {name!r} does not exist;  pgrepl slots list  shows them")
    slot = slots[0]
    before = slot.restart_lsn if slot.confirmed_flush_lsn is None else slot.confirmed_flush_lsn
    if before is None:
        raise CommandFailed(
            f"the slot {name!r} has no position to move on from: it was never used, or is "
            "invalidated; drop it and create it again"
        )
    end = Lsn(before + (slot.lag_bytes or 0))
    wanted = end if target is None else target
    if wanted < before:
        raise CommandFailed(
            f"the slot {name!r} is at {before} and cannot go back to {wanted}: what it had before "
            "is gone for it"
        )
    if wanted > end:
        raise CommandFailed(
            f"the server's WAL ends at {end}, before {wanted}: give a position up to there, or "
            "--to current"
        )
    return before, wanted


def advance(connection: Connection, name: str, wanted: Lsn) -> Lsn:
    """Move a slot; return how far it got."""
    row = ask_one(
        connection,
        "SELECT end_lsn FROM pg_catalog.pg_replication_slot_advance"
        f"({literal(name)}, {literal(str(wanted))})",
    )
    return row.lsn("end_lsn") or wanted
