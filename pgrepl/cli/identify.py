"""``pgrepl identify``: which system this is, and where it stands."""

from __future__ import annotations

from typing import Any

import click

from ..blocking.connection import Connection
from ..escapes import printable
from .connections import Replication, ask_one, opened
from .options import as_json, conninfo_argument, replication_option
from .printing import print_json, print_text

__all__ = ["identify_command"]


@click.command("identify", short_help="Show which system a server is, and where it stands.")
@conninfo_argument
@replication_option
@as_json
def identify_command(conninfo: str, replication: Replication, as_json: bool) -> int:
    """Show the system identifier, timeline, WAL position, database and version of a server.

    CONNINFO is a URI (postgresql://user@host:port/dbname) or keywords (host=... dbname=...); what
    it leaves out comes from the PG* variables and ~/.pgpass, as with psql.

    Two servers with the same system identifier are copies of one; the timeline tells which of them
    was promoted. The position is the end of the WAL on disk, on a standby of what it has received
    or replayed.

    \b
    Example:
      pgrepl identify postgresql://replicator@db.example.org/shop
      pgrepl identify "host=db user=replicator" --replication physical --json

    The status is 0, 1 after an error, 2 for a mistake on the command line.
    """
    with opened(conninfo, replication) as connection:
        identity = identify(connection, replication)
    if as_json:
        print_json(identity)
    else:
        print_text("\n".join(_lines(identity)))
    return 0


def identify(connection: Connection, replication: Replication) -> dict[str, Any]:
    """Return the members of the JSON object."""
    system = connection.identify_system()
    return {
        "system_identifier": system.systemid,
        "timeline": system.timeline,
        "wal_position": str(system.xlogpos),
        "database": system.dbname,
        "server_version": connection.parameters.get("server_version"),
        "server_version_num": connection.server_version,
        "in_recovery": _is_in_recovery(connection, replication),
    }


def _is_in_recovery(connection: Connection, replication: Replication) -> bool | None:
    """Whether the server is a standby; None: it did not tell."""
    if replication == "database":
        row = ask_one(connection, "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery")
        return row.get("in_recovery", bool)
    # From 14 on, every server reports it when a session begins.
    return {"on": True, "off": False}.get(connection.parameters.get("in_hot_standby", ""))


def _lines(identity: dict[str, Any]) -> list[str]:
    shown = {
        "system identifier": identity["system_identifier"],
        "timeline": identity["timeline"],
        "WAL position": identity["wal_position"],
        "database": identity["database"] or "none: a physical connection",
        "server version": identity["server_version"] or "not told",
        "in recovery": {True: "yes, a standby", False: "no", None: "not told before version 14"}[
            identity["in_recovery"]
        ],
    }
    return [f"{label:20}{printable(str(value))}" for label, value in shown.items()]
