"""The replication grammar: every command is quoted here, for old servers and new.

This grammar is not SQL: keywords are upper case, a quoted identifier has no escape for a quote
inside it, and a backslash in a literal stands for itself.

Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import ProtocolError, UsageError
from ..lsn import Lsn, encode_lsn
from . import frontend
from .backend import BodyReader, ServerState
from .conversation import Conversation, Frame, Send
from .query import Answer, Result, simple_query

__all__ = [
    "Slot",
    "SnapshotAction",
    "SystemIdentity",
    "create_logical_slot",
    "drop_slot",
    "identify_system",
    "is_logical",
    "publication_list",
    "show",
    "start_logical_command",
    "start_streaming",
]

SnapshotAction: TypeAlias = Literal["nothing", "export", "use"]

_PARENTHESISED: Final = 150000
_FAILOVER: Final = 170000
_OLD_SNAPSHOT: Final = {
    "nothing": "NOEXPORT_SNAPSHOT",
    "export": "EXPORT_SNAPSHOT",
    "use": "USE_SNAPSHOT",
}


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Which system this is and where it stands: the answer to IDENTIFY_SYSTEM.

    `xlogpos` is the end of its WAL on disk; `dbname` None on a physical connection.
    """

    systemid: str
    timeline: int
    xlogpos: Lsn
    dbname: str | None


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot just made.

    `consistent_point`: where a stream from it begins; `snapshot_name`: of the snapshot that fits
    it, where it was exported; `plugin`: of a logical slot.
    """

    name: str
    consistent_point: Lsn
    snapshot_name: str | None
    plugin: str | None


def identifier(name: str) -> str:
    """Quote a slot, plugin or option name."""
    if not name or '"' in name or "\0" in name:
        raise UsageError(
            "expected a name, without quotes and zero bytes, which this grammar cannot say, "
            f"got {name!r}"
        )
    return f'"{name}"'


def literal(value: str) -> str:
    """Quote a value."""
    if "\0" in value:
        raise UsageError(f"expected a value without zero bytes, got {value!r}")
    return "'" + value.replace("'", "''") + "'"


def publication_list(names: Iterable[str]) -> str:
    """Return publication names as pgoutput's option wants them: each an SQL identifier.

    The list stands in a literal of the command, which is quoted once more around it.
    """
    if isinstance(names, str):
        raise UsageError(
            f"expected several publication names, got the text {names!r}; use [{names!r}]"
        )
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    if not quoted or '""' in quoted:
        raise UsageError("expected one publication name or more, none of them empty")
    return ",".join(quoted)


def start_logical_command(slot: str, start: int, options: Mapping[str, str]) -> str:
    """Return START_REPLICATION for a logical slot; a start of 0 goes on after the last
    confirmed."""
    listed = ", ".join(f"{identifier(name)} {literal(value)}" for name, value in options.items())
    command = f"START_REPLICATION SLOT {identifier(slot)} LOGICAL {encode_lsn(start)}"
    return f"{command} ({listed})" if listed else command


def is_logical(command: str) -> bool:
    """Whether a START_REPLICATION command streams decoded changes, not raw WAL."""
    return "LOGICAL" in command.replace('"', " ").split()


def identify_system(state: ServerState) -> Conversation[SystemIdentity]:
    """Run IDENTIFY_SYSTEM."""
    row = yield from _single_row(state, "IDENTIFY_SYSTEM", 4)
    systemid, timeline, xlogpos, dbname = row
    return SystemIdentity(_text(systemid), _number(timeline), _lsn(xlogpos), dbname)


def show(state: ServerState, name: str) -> Conversation[str]:
    """Run SHOW for one setting, ``wal_sender_timeout`` for instance."""
    parts = name.split(".")
    row = yield from _single_row(state, "SHOW " + ".".join(identifier(part) for part in parts), 1)
    return _text(row[0])


def create_logical_slot(
    state: ServerState,
    name: str,
    plugin: str,
    *,
    temporary: bool,
    snapshot: SnapshotAction,
    two_phase: bool,
    failover: bool,
) -> Conversation[Slot]:
    """Run CREATE_REPLICATION_SLOT in the grammar of the server's version."""
    if snapshot not in _OLD_SNAPSHOT:
        raise UsageError(f"expected snapshot 'nothing', 'export' or 'use', got {snapshot!r}")
    words = ["CREATE_REPLICATION_SLOT", identifier(name)]
    if temporary:
        words.append("TEMPORARY")
    words += ["LOGICAL", identifier(plugin)]
    if state.version >= _PARENTHESISED:
        options = [f"SNAPSHOT {literal(snapshot)}"]
        if two_phase:
            options.append("TWO_PHASE")
        if failover:
            _require(state, _FAILOVER, "failover slots")
            options.append("FAILOVER")
        words.append(f"({', '.join(options)})")
    else:
        if two_phase:
            _require(state, _PARENTHESISED, "two-phase slots")
        if failover:
            _require(state, _FAILOVER, "failover slots")
        words.append(_OLD_SNAPSHOT[snapshot])
    slot_name, consistent_point, snapshot_name, output_plugin = yield from _single_row(
        state, " ".join(words), 4
    )
    return Slot(_text(slot_name), _lsn(consistent_point), snapshot_name, output_plugin)


def drop_slot(state: ServerState, name: str, wait: bool) -> Conversation[None]:
    """Run DROP_REPLICATION_SLOT; `wait` until nobody uses the slot any more."""
    yield from simple_query(
        state, f"DROP_REPLICATION_SLOT {identifier(name)}{' WAIT' if wait else ''}"
    )


def start_streaming(state: ServerState, command: str) -> Conversation[list[Result] | None]:
    """Run START_REPLICATION; None: the stream has begun.

    A physical stream asked to start where its timeline ends has nothing to send; the results that
    say so, with the next timeline, are returned. Raises `ServerError`.
    """
    if not command.lstrip().startswith("START_REPLICATION"):
        raise UsageError(
            f"expected a START_REPLICATION command, in upper case, got {command.split()[:1]}; "
            "other commands go through query()"
        )
    yield Send(frontend.query(command))
    answer = Answer(state)
    while True:
        frame: Frame = yield from state.receive()
        if frame[0] == b"W":
            reader = BodyReader(frame)
            reader.take(1)  # the format of all columns, and of each one; replication has none
            reader.take(2 * reader.int16())
            reader.finish()
            return None
        if answer.take(frame):
            if answer.error is not None:
                raise answer.error
            return answer.results


def _require(state: ServerState, version: int, what: str) -> None:
    if state.version < version:
        raise UsageError(
            f"{what} need PostgreSQL {version // 10000} or later, the server is "
            f"{state.parameters.get('server_version', 'of unknown version')}"
        )


def _single_row(
    state: ServerState, command: str, columns: int
) -> Conversation[tuple[str | None, ...]]:
    results = yield from simple_query(state, command)
    rows = [row for result in results for row in result.rows]
    if len(rows) != 1 or len(rows[0]) != columns:
        shapes = [len(row) for row in rows]
        raise ProtocolError(
            f"expected one row of {columns} columns in answer to {command.split()[0]}, "
            f"got {len(rows)} rows of {shapes[:3]} columns"
        )
    return rows[0]


def _text(value: str | None) -> str:
    if value is None:
        raise ProtocolError("expected text in the server's answer, got NULL")
    return value


def _number(value: str | None) -> int:
    text = _text(value)
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ProtocolError(f"expected a number in the server's answer, got {text[:40]!r}")
    return int(text)


def _lsn(value: str | None) -> Lsn:
    text = _text(value)
    try:
        return Lsn(text)
    except ValueError as error:
        raise ProtocolError(f"expected an LSN in the server's answer, got {text[:40]!r}") from error
