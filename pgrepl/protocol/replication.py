"""Commands about the system, and those that start a stream.

Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError
from ..lsn import Lsn, encode_lsn
from ..public import imported_from
from .answers import lsn, number, single_row, text
from .backend import BodyReader, ServerState
from .conversation import Conversation, Frame
from .query import Answer, Result
from .quoting import identifier, literal, timeline_id
from .session_settings import command

__all__ = [
    "SystemIdentity",
    "identify_system",
    "is_logical",
    "show",
    "start_logical_command",
    "start_physical_command",
    "start_streaming",
    "wal_end",
]

_WAL_END: Final = (
    "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
    " ELSE pg_catalog.pg_current_wal_flush_lsn() END"
)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Which system this is and where it stands: the answer to IDENTIFY_SYSTEM.

    `xlogpos` is the end of its WAL on disk; `dbname` None on a physical connection.
    """

    systemid: str
    timeline: int
    xlogpos: Lsn
    dbname: str | None


def start_logical_command(slot: str, start: int, options: Mapping[str, str | None]) -> str:
    """Return START_REPLICATION for a logical slot; a start of 0 goes on after the last
    confirmed. An option whose value is None is named without one."""
    listed = ", ".join(
        identifier(name) if value is None else f"{identifier(name)} {literal(value)}"
        for name, value in options.items()
    )
    command = f"START_REPLICATION SLOT {identifier(slot)} LOGICAL {encode_lsn(start)}"
    return f"{command} ({listed})" if listed else command


def start_physical_command(slot: str | None, start: int, timeline: int | None) -> str:
    """Return START_REPLICATION for raw WAL, with a slot or without; the server's own timeline
    where none is given."""
    words = ["START_REPLICATION"]
    if slot is not None:
        words += ["SLOT", identifier(slot)]
    words += ["PHYSICAL", encode_lsn(start)]
    if timeline is not None:
        words += ["TIMELINE", timeline_id(timeline)]
    return " ".join(words)


def is_logical(command: str) -> bool:
    """Whether a START_REPLICATION command streams decoded changes, not raw WAL."""
    return "LOGICAL" in command.replace('"', " ").split()


def identify_system(state: ServerState) -> Conversation[SystemIdentity]:
    """Run IDENTIFY_SYSTEM."""
    row = yield from single_row(state, "IDENTIFY_SYSTEM", 4)
    systemid, timeline, xlogpos, dbname = row
    return SystemIdentity(text(systemid), number(timeline), lsn(xlogpos), dbname)


def wal_end(state: ServerState) -> Conversation[Lsn]:
    """Ask how far the server's WAL goes that can be decoded: on disk, on a standby replayed."""
    row = yield from single_row(state, _WAL_END, 1)
    return lsn(row[0])


def show(state: ServerState, name: str) -> Conversation[str]:
    """Run SHOW for one setting, ``wal_sender_timeout`` for instance."""
    parts = name.split(".")
    row = yield from single_row(state, "SHOW " + ".".join(identifier(part) for part in parts), 1)
    return text(row[0])


def start_streaming(state: ServerState, sql: str) -> Conversation[list[Result] | None]:
    """Run START_REPLICATION; None: the stream has begun.

    A physical stream asked to start where its timeline ends has nothing to send; the results that
    say so, with the next timeline, are returned. Raises `ServerError`.
    """
    if not sql.lstrip().startswith("START_REPLICATION"):
        raise UsageError(
            f"expected a START_REPLICATION command, in upper case, got {sql.split()[:1]}; "
            "other commands go through query()"
        )
    yield from command(state, sql)
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
