"""Who keeps up with writers: ``python -m benchmarks.live.keepers WHO TASK``, TASK being JSON.

It streams the slot, starts the writers, and takes every row: pgrepl typed, psycopg2 its payload,
both acknowledging each commit, or batch. It prints what a `rate.Turn` has. Called with ``write`` it
is one of the writers.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from ..tables import FIRST_ID
from .task import ClientFailed, KeepTask

# 2000-01-01 00:00 UTC, from which PostgreSQL counts, on the clock of Unix, in microseconds.
_EPOCH: Final = 946_684_800 * 1_000_000
# Every so many commits it is looked how far behind they are.
_EACH: Final = 100
# Commits that a writer has the server make at a time.
_PORTION: Final = 50
_COMMIT: Final = ord("C")
_COMMIT_TIME: Final = slice(18, 26)


class _Watch:
    """How far behind somebody is, and what that took from the first commit to the last."""

    def __init__(self, task: KeepTask) -> None:
        self._commits = task.rows
        self._count = 0
        self._behind = self._last = 0.0
        self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def saw(self, count: int, commit_time: int) -> bool:
        """Take note of so many commits more, the last one at this time; True: these are all."""
        before, self._count = self._count, self._count + count
        is_all = self._count >= self._commits
        if before // _EACH != self._count // _EACH or is_all:
            self._last = (time.time_ns() // 1000 - _EPOCH - commit_time) / 1e3
            self._behind = max(self._behind, self._last)
        return is_all

    def print(self) -> None:
        wall, cpu = self._began
        turn = {
            "commits": self._count,
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "behind": self._behind,
            "behind_at_end": self._last,
        }
        print(json.dumps(turn))


@contextlib.contextmanager
def _writers(task: KeepTask, watch: _Watch) -> Iterator[None]:
    """Run the writers, for as long as the body does."""
    share = task.rows // task.writers
    running = []
    try:
        for number in range(task.writers):
            part = replace(task, slot=str(FIRST_ID + number * share), rows=share)
            command = [sys.executable, "-m", "benchmarks.live.keepers", "write", str(part)]
            running.append(subprocess.Popen(command))
        watch.start()
        yield
        if any(writer.wait() for writer in running):
            raise ClientFailed("expected the writers to write, one of them has failed")
    finally:
        for writer in running:
            writer.terminate()
            writer.wait()


def write(task: KeepTask) -> None:
    """Commit so many single rows, from the id on that stands in place of a slot, at a pace."""
    first, pace = int(task.slot), task.rate / task.writers
    with task.session() as session:
        begin = time.perf_counter()
        for written in range(0, task.rows, _PORTION):
            pause = begin + written / pace - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            count = min(_PORTION, task.rows - written)
            session.query(f"CALL write_rows({first + written}, 1, {count})")


def typed(task: KeepTask) -> None:
    """Transaction by transaction, all columns."""
    with _streaming(task) as stream:
        if stream is None:
            return
        watch = _Watch(task)
        with _writers(task, watch):
            for transaction in stream.transactions():
                for change in transaction:
                    change.new.astuple()
                stream.ack(transaction)
                if watch.saw(1, transaction.commit_time):
                    watch.print()
                    break


def batches(task: KeepTask) -> None:
    """Batch by batch, all columns."""
    with _streaming(task) as stream:
        if stream is None:
            return
        watch = _Watch(task)
        with _writers(task, watch):
            for batch in stream.batches(1000, 0.01):
                for change in batch.changes:
                    change.new.astuple()
                stream.ack(batch)
                if watch.saw(len(batch), batch.transactions[-1].commit_time):
                    watch.print()
                    break


@contextlib.contextmanager
def _streaming(task: KeepTask) -> Iterator[Any]:
    import pgrepl

    with pgrepl.connect(**task.keywords) as connection:
        if not task.slot:
            yield None
            return
        with connection.stream(task.slot, publications=[task.publication]) as stream:
            yield stream


def psycopg2(task: KeepTask) -> None:
    """psycopg2's consume_stream, the payload read, feedback for each commit."""
    from psycopg2 import connect
    from psycopg2.extras import LogicalReplicationConnection, StopReplication

    connection = connect(**task.keywords, connection_factory=LogicalReplicationConnection)
    if not task.slot:
        return
    watch = _Watch(task)

    def consume(message: Any) -> None:
        payload = message.payload
        if payload[0] == _COMMIT:
            message.cursor.send_feedback(flush_lsn=message.data_start)
            if watch.saw(1, int.from_bytes(payload[_COMMIT_TIME])):
                watch.print()
                raise StopReplication

    cursor = connection.cursor()
    cursor.start_replication_expert(task.command, decode=False)
    with _writers(task, watch), contextlib.suppress(StopReplication):
        cursor.consume_stream(consume)
    connection.close()


KEEPERS: Final[dict[str, Callable[[KeepTask], None]]] = {
    "typed": typed,
    "batches": batches,
    "psycopg2": psycopg2,
    "write": write,
}


def main() -> None:
    who, text = sys.argv[1:]
    KEEPERS[who](KeepTask.parse(text))


if __name__ == "__main__":
    main()
