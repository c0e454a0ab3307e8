"""A real server with the load in its WAL, and one slot for every drain, made before it.

Law: every slot of a shape begins at the same place and has the same transactions; what they are is
counted once, from the wire, before anybody is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pgrepl.testing import TemporaryServer

from ..loops import BATCH_ROWS
from ..record import WRITE_ROWS
from ..tables import FIRST_ID, REFERENCE
from ..wire import FRAME_HEADER, XLOGDATA_HEADER, WireError, frames
from .task import DrainTask, open_session

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


@dataclass(frozen=True, slots=True)
class Shape:
    """Transactions of so many rows. `share` is the part of --live-rows that they are given."""

    name: str
    size: int
    share: float

    def transactions(self, rows: int) -> int:
        """Return how many there are where --live-rows is that: whole batches."""
        unit = max(self.size, BATCH_ROWS)
        return max(1, round(rows * self.share / unit)) * unit // self.size


SHAPES: Final = {
    shape.name: shape
    for shape in (Shape("large", 10_000, 1), Shape("ten", 10, 1 / 4), Shape("single", 1, 1 / 8))
}


def prepare(host: str, port: int) -> None:
    """Make the table, what fills it, and its publication."""
    with open_session(host, port) as session:
        for statement in (
            WRITE_ROWS,
            REFERENCE.declaration,
            f"CREATE PUBLICATION {DrainTask.publication} FOR TABLE {REFERENCE.name}",
        ):
            session.query(statement)


def load(host: str, port: int, slots: list[str], shape: Shape, rows: int) -> DrainTask:
    """Make the slots, write the rows behind them; returns a task without a slot."""
    transactions = shape.transactions(rows)
    written = shape.size * transactions
    with open_session(host, port) as session:
        session.query(f"TRUNCATE {REFERENCE.name}")
        for slot in (_SURVEY, *slots):
            session.query(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
        session.query(f"CALL write_rows({FIRST_ID}, {shape.size}, {transactions})")
        task = _surveyed(DrainTask(host, port, _SURVEY, written, FIRST_ID + written - 1))
        session.query(f'DROP_REPLICATION_SLOT "{_SURVEY}" WAIT')
    return task


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
