"""What the doctor knows of a server before it looks closer, or instead of that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ...blocking.connection import Connection
from ...conninfo import resolve
from ...errors import Error, ServerError
from ...protocol.slot_listing import ReplicationSlot
from ..sql import ask_one, identifier
from .finding import Finding, Level

__all__ = ["Server", "connected", "turned_away"]

_MORE_SENDERS: Final = 10


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
    def read(cls, connection: Connection, slot_name: str | None) -> Server:
        """Ask the server. `slot_name`: the slot of a consumer, if one is to be looked at."""
        row = ask_one(
            connection,
            "SELECT current_database() AS database, current_user AS role,"
            " pg_is_in_recovery() AS in_recovery,"
            " (SELECT count(*) FROM pg_stat_get_wal_senders()) AS wal_senders",
        )
        return cls(
            version=connection.server_version,
            version_text=connection.parameters.get("server_version", "of unknown version"),
            database=row.get("database", str),
            role=row.get("role", str),
            in_recovery=row.get("in_recovery", bool),
            wal_senders=row.get("wal_senders", int),
            slots=tuple(connection.slots()),
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


def turned_away(error: Error, conninfo: str) -> Finding | None:
    """Return what is to be done about a server that ends a session as it begins; None: something
    else."""
    if not isinstance(error, ServerError) or error.severity != "FATAL":
        return None
    parameters = resolve(conninfo, {})
    role, database = parameters.user, parameters.dbname
    routine = error.fields.get("routine")
    if error.sqlstate == "42501" and routine == "InitPostgres":
        return Finding(
            "role_replication",
            Level.PROBLEM,
            f"the role {role!r} may not replicate",
            "Only a superuser or a role with the attribute REPLICATION may.",
            (f"ALTER ROLE {identifier(role)} REPLICATION;",),
            subject={"role": role},
        )
    if error.sqlstate == "42501" and routine == "CheckMyDatabase":
        return Finding(
            "database_connect",
            Level.PROBLEM,
            f"the role {role!r} may not connect to the database {database!r}",
            "Logical replication is of one database, and begins with a connection to it.",
            (f"GRANT CONNECT ON DATABASE {identifier(database)} TO {identifier(role)};",),
            subject={"database": database, "role": role},
        )
    if error.sqlstate == "53300" and "max_wal_senders" in error.message:
        return _no_sender(error.message)
    return None


def _no_sender(message: str) -> Finding:
    number = re.search(r"\d+", message)
    most = int(number[0][:6]) if number else 0
    sql = [f"ALTER SYSTEM SET max_wal_senders = '{most + _MORE_SENDERS}';"]
    if not most:  # perhaps since wal_level = minimal allows for none
        sql.append("ALTER SYSTEM SET wal_level = 'logical';")
    return Finding(
        "max_wal_senders",
        Level.PROBLEM,
        f"none of {most} WAL senders is free",
        "Every stream, standby and base backup takes a WAL sender; this one was turned away.",
        tuple(sql),
        "restart the server",
        {"setting": "max_wal_senders"},
    )
