"""A slot as the server shows it before a stream begins, and how what it answers is read.

Source: PostgreSQL documentation, "pg_replication_slots".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import ProtocolError
from ..lsn import Lsn

__all__ = [
    "COLUMNS",
    "SlotState",
    "flag",
    "lsn",
    "misread",
    "number",
    "present",
    "report",
    "slot_state",
]

_Value = TypeVar("_Value")

COLUMNS: Final = (
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
"""Of pg_replication_slots, with the version that brought each."""


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


def slot_state(values: Sequence[str | None]) -> SlotState:
    columns = dict(zip((name for name, _ in COLUMNS), values, strict=True))

    def take(column: str, convert: Callable[[str, str], _Value]) -> _Value | None:
        value = columns[column]
        return None if value is None else convert(column, value)

    def need(column: str, convert: Callable[[str, str], _Value]) -> _Value:
        return present(column, take(column, convert))

    return SlotState(
        name=need("slot_name", _text),
        plugin=take("plugin", _text),
        slot_type=need("slot_type", _text),
        database=take("database", _text),
        temporary=need("temporary", flag),
        active_pid=take("active_pid", number),
        restart_lsn=take("restart_lsn", lsn),
        confirmed_flush_lsn=take("confirmed_flush_lsn", lsn),
        wal_status=take("wal_status", _text),
        two_phase=take("two_phase", flag),
        conflicting=take("conflicting", flag),
        invalidation_reason=take("invalidation_reason", _text),
        failover=take("failover", flag),
        synced=take("synced", flag),
    )


def present(what: str, value: _Value | None) -> _Value:
    if value is None:
        raise ProtocolError(f"expected {what} in the server's answer, got NULL")
    return value


def misread(what: str, kind: str, text: str) -> ProtocolError:
    return ProtocolError(f"expected {what} as {kind} in the server's answer, got {text[:40]!r}")


def _text(_what: str, text: str) -> str:
    return text


def number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise misread(what, "a number", text)
    return int(text)


def flag(what: str, text: str) -> bool:
    if text not in ("t", "f"):
        raise misread(what, "t or f", text)
    return text == "t"


def lsn(what: str, text: str) -> Lsn:
    try:
        return Lsn(text)
    except ValueError as error:
        raise misread(what, "an LSN", text) from error


def report(sqlstate: str, message: str, *, detail: str, hint: str) -> dict[str, str]:
    """The fields of an error that the server did not send, but would if it looked."""
    return {
        "severity": "ERROR",
        "sqlstate": sqlstate,
        "message": message,
        "detail": detail,
        "hint": hint,
    }
