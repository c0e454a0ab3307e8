"""A real server with the load in its WAL, and one slot for every drain, made before it.

Law: every slot begins at the same place and has the same transactions; what they are is counted
once, from the wire, before anybody is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from pgrepl.testing import TemporaryServer

from ..capture import CYCLE
from ..record import WRITE_ROWS
from ..tables import FIRST_ID, REFERENCE
from ..wire import FRAME_HEADER, XLOGDATA_HEADER, WireError, frames
from .task import DrainTask, open_session

CYCLE_ROWS: Final = sum(rows * transactions for rows, transactions in CYCLE)

_SURVEY: Final = "survey"

# What the server does by itself, and would do while one of the contenders is measured.
_QUIET: Final[Mapping[str, str | int | bool]] = {
    "autovacuum": False,
    "checkpoint_timeout": "1h",
    "max_wal_size": "16GB",
    "bgwriter_lru_maxpages": 0,
    "timezone": "UTC",
}


@contextmanager
def server(bin_directory: Path, slots: int) -> Iterator[TemporaryServer]:
    """Run a server that has room for so many slots and does nothing unasked."""
    settings = {**_QUIET, "max_replication_slots": slots + 1}
    with TemporaryServer(bin_directory, settings=settings) as cluster:
        yield cluster


def place_of(cluster: TemporaryServer, tcp: bool) -> str:
    """Return where to reach the server: its address, or the folder of its Unix socket."""
    return cluster.host if tcp else str(cluster.socket_directory)


def load(host: str, port: int, slots: list[str], rows: int) -> DrainTask:
    """Make the table and the slots, write at least so many rows; returns a task without a slot."""
    cycles = -(-rows // CYCLE_ROWS)
    with open_session(host, port) as session:
        for statement in (
            WRITE_ROWS,
            REFERENCE.declaration,
            f"CREATE PUBLICATION {DrainTask.publication} FOR TABLE {REFERENCE.name}",
        ):
            session.query(statement)
        for slot in (_SURVEY, *slots):
            session.query(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
        written = 0
        for size, transactions in CYCLE * cycles:
            session.query(f"CALL write_rows({FIRST_ID + written}, {size}, {transactions})")
            written += size * transactions
    return _surveyed(DrainTask(host, port, _SURVEY, written, FIRST_ID + written - 1))


def _surveyed(task: DrainTask) -> DrainTask:
    """Drain a slot with no hurry, and count."""
    with task.session() as session:
        connection = session.start_streaming(task.command)
        pending = bytearray()
        size = messages = inserts = commits = 0
        while True:
            piece = connection.recv(1 << 20)
            if not piece:
                raise WireError(f"expected {task.rows} rows, got {inserts}: the server has hung up")
            pending += piece
            taken = 0
            for start, taken in frames(pending):
                body = start + FRAME_HEADER
                if pending[start] != ord("d") or pending[body] != ord("w"):
                    continue
                size += taken - start
                messages += 1
                payload = body + XLOGDATA_HEADER
                inserts += pending[payload] == ord("I")
                if pending[payload] != ord("C"):
                    continue
                commits += 1
                if inserts == task.rows:
                    commit = bytes(pending[payload:taken])
                    return replace(
                        task,
                        slot="",
                        size=size,
                        messages=messages,
                        transactions=commits,
                        last_commit=commit.hex(),
                        end_lsn=end_lsn_of(commit),
                    )
            del pending[:taken]


def end_lsn_of(commit: bytes) -> int:
    """Return the end that a Commit tells: behind its tag, its flags and its own position."""
    return int.from_bytes(commit[10:18])
