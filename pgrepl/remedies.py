"""What to do about what a server says: its own hint where it has one, and ours where it has none or
one that leaves out the command.

Law: nothing goes by the words of a message, which are translated; SQLSTATE, routine and the names
of settings and files are not.

Source: PostgreSQL documentation, "Setting Up Logical Replication", "The pg_hba.conf File".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["POOLER_REFUSAL", "add_hint", "remedy", "remedy_at_start"]

POOLER_REFUSAL: Final = "unsupported startup parameter"
"""How PgBouncer's words begin where it does not let a parameter through. PostgreSQL itself has
others."""

_AS_STORED: Final = (
    "connect with client_encoding=SQL_ASCII, which has text sent as the database stores it: what "
    "cannot be decoded then is one column's DecodeError, and row.raw() gives its bytes"
)
_WAL_LEVEL: Final = (
    "ALTER SYSTEM SET wal_level = 'logical'; on the primary, where this server is a standby, and "
    "restart that server"
)

_NOT_YET: Final = (
    "the server looks a publication up as of each change, and at this one it did not exist yet, or "
    "not any more. Where it is new: stream with those that existed up to a position behind its "
    "creation, or give up what lies before with pg_replication_slot_advance(slot, "
    "pg_current_wal_lsn()); from there on stream with it too, and copy its tables. Where it was "
    "dropped: leave it out, all that it published has come"
)
_LEFT_OUT: Final = (
    "the server looks a publication up as of each change, and at this one it did not exist yet, or "
    "not any more: changes that only it publishes are left out until it does. Where it is new, "
    "copy its tables"
)

# SQLSTATE and routine, a word that the message has, and what to do.
_REMEDIES: Final = (
    ("55000", "CheckLogicalDecodingRequirements", "wal_level", _WAL_LEVEL),
    (
        "0A000",
        "CheckLogicalDecodingRequirements",
        "",
        "connect to the primary: a standby decodes from PostgreSQL 16 on",
    ),
    (
        "55000",
        "CheckSlotRequirements",
        "max_replication_slots",
        "ALTER SYSTEM SET max_replication_slots = '10'; and restart the server",
    ),
    (
        "55000",
        "CheckSlotRequirements",
        "wal_level",
        "ALTER SYSTEM SET wal_level = 'replica', or 'logical' for decoding; and restart the server",
    ),
    (
        "53400",
        "ReplicationSlotCreate",
        "",
        "SELECT slot_name FROM pg_replication_slots WHERE NOT active; shows which nobody uses now, "
        "pg_drop_replication_slot('...') drops one that nobody will use again; or ALTER SYSTEM SET "
        "max_replication_slots to a greater number, and restart the server",
    ),
    (
        "42710",
        "ReplicationSlotCreate",
        "",
        "if_not_exists=True takes a slot of the same kind that is there already as it is",
    ),
    (
        "42501",
        "CheckSlotPermissions",
        "",
        "only a superuser or a role with the attribute REPLICATION may: ALTER ROLE ... REPLICATION",
    ),
    (
        "0A000",
        "exec_replication_command",
        "",
        "a connection for physical replication has no SQL: connect with replication='database'",
    ),
    # With the position of a change as context: raised while it was decoded.
    ("42704", "GetPublicationByName", "", _NOT_YET),
    ("42704", "get_publication_oid", "", _NOT_YET),
    ("55000", "LoadPublications", "", _LEFT_OUT),  # a warning
    ("22021", "", "", _AS_STORED),
    ("22P05", "", "", _AS_STORED),
    ("0A000", "InitializeClientEncoding", "", _AS_STORED),
)

_NO_ENTRY: Final = {
    "database": "a line of pg_hba.conf must let this role in to this database by name or by "
    "'all'; the word 'replication' there is for physical connections alone",
    "true": "a line of pg_hba.conf must let this role in to the database 'replication'; "
    "'all' there does not stand for it",
}
_RELOAD: Final = "then SELECT pg_reload_conf();"
_SENDERS: Final = (
    "every stream, standby and base backup takes a WAL sender: end one that nobody needs, see "
    "pg_stat_replication, or ALTER SYSTEM SET max_wal_senders to a greater number (it is 0 where "
    "wal_level is 'minimal', which has to be 'logical' or 'replica'), and restart the server"
)
_POOLER: Final = (
    "not PostgreSQL but a connection pooler answers there, and does not let this parameter through"
)
_NO_REPLICATION: Final = (
    "PgBouncer passes replication on from version 1.23 on: connect to the server itself, or "
    "install a newer one"
)
_NOT_TRACKED: Final = (
    "leave it out, add it to ignore_startup_parameters there, or connect to the server itself; "
    "what pgrepl needs for itself it sets after start-up"
)


def remedy(fields: Mapping[str, str]) -> str | None:
    """Return what to do about an error of a command or a stream; None where nothing is known."""
    sqlstate, routine = fields.get("sqlstate"), fields.get("routine", "")
    for state, place, word, text in _REMEDIES:
        if text is _NOT_YET and "where" not in fields:
            continue  # a command that names a publication
        if state == sqlstate and place in ("", routine) and word in fields.get("message", ""):
            return text
    return None


def remedy_at_start(fields: Mapping[str, str], parameters: Mapping[str, str]) -> str | None:
    """Return what to do about a session that was turned away; `parameters` are those that it began
    with."""
    sqlstate, routine = fields.get("sqlstate"), fields.get("routine")
    message = fields.get("message", "")
    if message.startswith(POOLER_REFUSAL):
        # "unsupported startup parameter: replication", or "... in options: ..."
        is_all = message.rpartition(" ")[2] == "replication"
        return f"{_POOLER}; {_NO_REPLICATION if is_all else _NOT_TRACKED}"
    role = _quoted(parameters.get("user", ""))
    if sqlstate == "42501" and routine == "InitPostgres":
        return (
            "only a superuser or a role with the attribute REPLICATION may: "
            f"ALTER ROLE {role} REPLICATION;"
        )
    if sqlstate == "42501" and routine == "CheckMyDatabase":
        database = _quoted(parameters.get("database", ""))
        return f"GRANT CONNECT ON DATABASE {database} TO {role};"
    if sqlstate == "53300" and "max_wal_senders" in message:
        return _SENDERS
    if routine == "ClientAuthentication" and "pg_hba.conf" in message:
        entry = _NO_ENTRY.get(parameters.get("replication", ""))
        return None if entry is None else f"{entry}; {_RELOAD}"
    return None


def add_hint(fields: Mapping[str, str], hint: str | None) -> Mapping[str, str]:
    """Return the fields with a hint behind the server's own, if it is not in there yet."""
    own = fields.get("hint", "")
    if hint is None or hint in own:
        return fields
    return {**fields, "hint": f"{own}\n{hint}" if own else hint}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
