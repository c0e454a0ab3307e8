"""What the doctor knows of a server before it looks closer."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.slot_listing import ReplicationSlot, slot_of_record, slots_query
from .finding import Finding, Level
from .questions import Questions, ask, ask_one

__all__ = ["Server", "connected"]


@dataclass(frozen=True, slots=True)
class Server:
    """A server and the session that looks. `wal_senders`: how many are in use, ours included."""

    version: int
    version_text: str
    database: str
    role: str
    in_recovery: bool
    wal_senders: int
    slots: tuple[ReplicationSlot, ...]
    slot_name: str | None

    @property
    def slot_is_there(self) -> bool:
        """Whether the slot that was asked for exists."""
        return any(slot.name == self.slot_name for slot in self.slots)

    @classmethod
    def read(cls, version: int, version_text: str, slot_name: str | None) -> Questions[Server]:
        """Ask the server. `slot_name`: the slot of a consumer, if one is to be looked at."""
        row = yield from ask_one(
            "SELECT current_database() AS database, current_user AS role,"
            " pg_is_in_recovery() AS in_recovery,"
            " (SELECT count(*) FROM pg_stat_get_wal_senders()) AS wal_senders",
        )
        slots = yield from ask(slots_query(version))
        return cls(
            version=version,
            version_text=version_text,
            database=row.get("database", str),
            role=row.get("role", str),
            in_recovery=row.get("in_recovery", bool),
            wal_senders=row.get("wal_senders", int),
            slots=tuple(map(slot_of_record, slots)),
            slot_name=slot_name,
        )


def connected(server: Server) -> Finding:
    """The finding that there is a connection, which says much: pg_hba.conf, role, WAL sender."""
    return Finding(
        "connection",
        Level.OK,
        f"PostgreSQL {server.version_text} lets the role {server.role!r} replicate the database "
        f"{server.database!r}",
        subject={"database": server.database, "role": server.role},
    )
