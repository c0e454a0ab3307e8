"""What a server that turns the program away is in want of."""

from __future__ import annotations

import re
from typing import Final

from ...conninfo import resolve
from ...doctor import Finding, Level
from ...doctor.shown_sql import identifier
from ...errors import Error, ServerError

__all__ = ["turned_away"]

_MORE_SENDERS: Final = 10


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
