"""The settings of a server that logical replication depends on, and how one is changed.

Source: PostgreSQL documentation, "Replication" (Server Configuration), "pg_settings".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..amounts import bytes_text, duration_text
from ..errors import ProtocolError
from .finding import Finding, Level
from .questions import Questions, ask
from .server import Server
from .shown_sql import identifier, literal

__all__ = ["check_settings"]

_NAMES: Final = (
    "hot_standby_feedback",
    "idle_replication_slot_timeout",
    "logical_decoding_work_mem",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "max_wal_size",
    "wal_level",
    "wal_sender_timeout",
)
_UNITS: Final = {"B": 1, "kB": 1 << 10, "8kB": 8 << 10, "MB": 1 << 20, "ms": 0.001, "s": 1.0}
_SECONDS_PER_MINUTE: Final = 60.0
_STANDBY_DECODING: Final = 160000

_GB: Final = 1 << 30
_SHORT_TIMEOUT: Final = 5.0
_LONG_TIMEOUT: Final = 600.0
_SHORT_IDLE_TIME: Final = 86400.0
_SMALL_WORK_MEM: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of pg_settings. `amount`: the value of one that has a unit, in bytes or seconds."""

    name: str
    value: str
    unit: str | None
    source: str
    context: str
    pending_restart: bool

    @property
    def amount(self) -> float:
        factor = _SECONDS_PER_MINUTE if self.unit == "min" else _UNITS.get(self.unit or "B", 1)
        return self.number * factor

    @property
    def number(self) -> int:
        try:
            return int(self.value)
        except ValueError:
            raise ProtocolError(
                f"expected the setting {self.name} as a number, got {self.value!r:.40}"
            ) from None


def check_settings(server: Server) -> Questions[list[Finding]]:
    """Look at every setting that the server's version has."""
    settings = yield from _read()
    return list(_findings(_Settings(server, settings), server, settings))


def _findings(
    check: _Settings, server: Server, settings: Mapping[str, Setting]
) -> Iterator[Finding]:
    yield check.wal_level()
    yield check.free_slots()
    yield check.free_senders()
    yield check.wal_sender_timeout()
    if "max_slot_wal_keep_size" in settings:
        yield check.max_slot_wal_keep_size()
    if "idle_replication_slot_timeout" in settings:
        yield check.idle_replication_slot_timeout()
    if "logical_decoding_work_mem" in settings:
        yield check.logical_decoding_work_mem()
    if server.in_recovery:
        yield check.standby()
        yield check.hot_standby_feedback()


def _read() -> Questions[dict[str, Setting]]:
    names = ", ".join(map(literal, _NAMES))
    rows = yield from ask(
        "SELECT name, setting, unit, source, context, pending_restart FROM pg_settings"
        f" WHERE name IN ({names})",
    )
    return {
        row.get("name", str): Setting(
            row.get("name", str),
            row.get("setting", str),
            row.find("unit", str),
            row.get("source", str),
            row.get("context", str),
            row.get("pending_restart", bool),
        )
        for row in rows
    }


class _Settings:
    """The checks, one a method."""

    def __init__(self, server: Server, settings: dict[str, Setting]) -> None:
        self._server = server
        self._settings = settings

    def _get(self, name: str) -> Setting:
        try:
            return self._settings[name]
        except KeyError:
            raise ProtocolError(f"expected the setting {name} in pg_settings, got none") from None

    def wal_level(self) -> Finding:
        setting = self._get("wal_level")
        if setting.value == "logical":
            return _ok(setting, "wal_level is logical")
        return self._finding(
            setting,
            Level.PROBLEM,
            f"wal_level is {setting.value}",
            "Rows can be decoded only from WAL that was written with wal_level = logical.",
            "logical",
        )

    def free_slots(self) -> Finding:
        setting = self._get("max_replication_slots")
        used, most = len(self._server.slots), setting.number
        if used < most:
            return _ok(setting, f"{most - used} of {most} replication slots are free")
        return self._finding(
            setting,
            Level.WARNING if self._server.slot_is_there else Level.PROBLEM,
            f"none of {most} replication slots is free",
            "A consumer needs a slot of its own, and the server has no room for another one.",
            str(most + 10),
        )

    def free_senders(self) -> Finding:
        setting = self._get("max_wal_senders")
        used, most = self._server.wal_senders, setting.number
        free = most - used + 1  # the one of this connection
        if free > 1:
            return _ok(setting, f"{free} of {most} WAL senders are free")
        return self._finding(
            setting,
            Level.WARNING,
            f"the last of {most} WAL senders is the one that looks",
            "Every stream, standby and base backup takes a WAL sender; one more is turned away.",
            str(most + 10),
        )

    def wal_sender_timeout(self) -> Finding:
        setting = self._get("wal_sender_timeout")
        seconds = setting.amount
        if not seconds:
            found = "wal_sender_timeout is off"
            why = "A client that vanishes without a word keeps its slot in use for hours, or ever."
        elif seconds < _SHORT_TIMEOUT:
            found = f"wal_sender_timeout is {duration_text(seconds)}"
            why = "A short pause of the network or of the client's machine ends its stream."
        elif seconds > _LONG_TIMEOUT:
            found = f"wal_sender_timeout is {duration_text(seconds)}"
            why = "A client that vanishes without a word keeps its slot in use for that long."
        else:
            return _ok(setting, f"wal_sender_timeout is {duration_text(seconds)}")
        return self._finding(setting, Level.WARNING, found, why, "1min")

    def max_slot_wal_keep_size(self) -> Finding:
        setting = self._get("max_slot_wal_keep_size")
        enough = int(max(10 * self._get("max_wal_size").amount, 10 * _GB))
        if setting.number < 0:
            found = "max_slot_wal_keep_size is not limited"
            why = (
                "A slot that nobody reads keeps WAL until the disk is full and the server stops; "
                "with a limit it is the slot that is lost. Choose what your disk can spare."
            )
        elif setting.amount < self._get("max_wal_size").amount:
            found = f"max_slot_wal_keep_size is {bytes_text(int(setting.amount))}"
            why = (
                "That is less than max_wal_size, so that a consumer which pauses for a checkpoint "
                "can lose its slot. Choose what your disk can spare."
            )
        else:
            return _ok(setting, f"max_slot_wal_keep_size is {bytes_text(int(setting.amount))}")
        return self._finding(setting, Level.WARNING, found, why, f"{enough >> 30}GB")

    def idle_replication_slot_timeout(self) -> Finding:
        setting = self._get("idle_replication_slot_timeout")
        if not setting.amount:
            return _ok(setting, "slots may be idle for any time")
        found = f"slots may be idle for {duration_text(setting.amount)}"
        if setting.amount >= _SHORT_IDLE_TIME:
            return _ok(setting, found)
        return self._finding(
            setting,
            Level.WARNING,
            found,
            "A consumer that is stopped for longer loses its slot, and has to copy the tables.",
            "3d",
        )

    def logical_decoding_work_mem(self) -> Finding:
        setting = self._get("logical_decoding_work_mem")
        found = f"logical_decoding_work_mem is {bytes_text(int(setting.amount))}"
        if setting.amount >= _SMALL_WORK_MEM:
            return _ok(setting, found)
        return self._finding(
            setting,
            Level.HINT,
            found,
            "A transaction that takes more is written to the server's disk before it is sent, or "
            "is streamed in pieces.",
            "64MB",
        )

    def standby(self) -> Finding:
        if self._server.version >= _STANDBY_DECODING:
            return Finding(
                "standby",
                Level.OK,
                "this is a standby, which can decode",
                "A new slot waits for the primary: run  SELECT pg_log_standby_snapshot()  there if "
                "it is quiet.",
            )
        return Finding(
            "standby",
            Level.PROBLEM,
            "this is a standby",
            "Before PostgreSQL 16 only a primary can decode.",
            then="connect to the primary",
        )

    def hot_standby_feedback(self) -> Finding:
        setting = self._get("hot_standby_feedback")
        if setting.value == "on":
            return _ok(setting, "hot_standby_feedback is on")
        return self._finding(
            setting,
            Level.WARNING,
            "hot_standby_feedback is off",
            "The primary removes rows of the catalogue that decoding on this standby still needs, "
            "which invalidates its slots.",
            "on",
        )

    def _finding(self, setting: Setting, level: Level, found: str, why: str, value: str) -> Finding:
        sql, then = self._remedy(setting, value)
        return Finding(setting.name, level, found, why, sql, then, {"setting": setting.name})

    def _remedy(self, setting: Setting, value: str) -> tuple[tuple[str, ...], str]:
        """Return statements that set a value where it is set now, and what is to be done then."""
        if setting.pending_restart:
            return (), "restart the server: another value is in its configuration already"
        change = f"SET {setting.name} = {literal(value)};"
        role, database = identifier(self._server.role), identifier(self._server.database)
        match setting.source:
            case "command line":
                return (), f"start the server without {setting.name} on its command line"
            case "client":
                return (), f"leave {setting.name} out of the options of the conninfo"
            case "user":
                return (f"ALTER ROLE {role} {change}",), "connect again"
            case "database":
                return (f"ALTER DATABASE {database} {change}",), "connect again"
            case "database user":
                return (f"ALTER ROLE {role} IN DATABASE {database} {change}",), "connect again"
        if setting.context == "postmaster":
            return (f"ALTER SYSTEM {change}",), "restart the server"
        return (f"ALTER SYSTEM {change}", "SELECT pg_reload_conf();"), ""


def _ok(setting: Setting, found: str) -> Finding:
    return Finding(setting.name, Level.OK, found, subject={"setting": setting.name})
