"""Processes that consume a stream and are told to end: in order, so that nothing comes twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pgrepl
from tests.live.sampling import insert
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    confirmed,
    create_slot,
    eventually,
    meanwhile,
    wait_until_free,
)
from tests.support.clusters import Database

ROOT = Path(__file__).parents[2]
WAYS = ("transactions", "batches", "messages", "async transactions", "async batches")


class Consumer:
    """A consumer process, and what it wrote."""

    def __init__(self, database: Database, slot: str, way: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.live.consumer_process", database.dsn(), slot, way],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += iter(self.process.stdout.readline, "")

    def wait_for(self, count: int) -> None:
        eventually(
            lambda: len(self.lines) >= count or self.process.poll() is not None,
            f"{count} lines come from the process",
        )
        assert len(self.lines) >= count, self.errors()

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self, *signals: int) -> int:
        """Send signals; return the exit status."""
        for number in signals:
            os.kill(self.process.pid, number)
        status = self.process.wait(PATIENCE)
        self._reader.join()
        return status


@contextlib.contextmanager
def consuming(database: Database, slot: str, way: str) -> Iterator[Consumer]:
    wait_until_free(database, slot)
    consumer = Consumer(database, slot, way)
    try:
        yield consumer
    finally:
        consumer.process.kill()
        consumer.end()
        for pipe in (consumer.process.stdout, consumer.process.stderr):
            assert pipe is not None
            pipe.close()


def numbers(lines: list[str]) -> list[int]:
    return [int(number) for line in lines for number in line.split()]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_lost_and_nothing_comes_twice(database: Database, way: str) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    finished = threading.Event()
    written = [0]

    def write() -> None:
        with database.connect() as session:
            while not finished.is_set():
                # Transactions of several rows, so that most of the time one is on its way.
                session.execute(
                    "INSERT INTO item SELECT i, '' FROM generate_series(%s::int, %s::int) i",
                    [written[0], written[0] + 9],
                )
                written[0] += 10

    found: list[int] = []
    with meanwhile(write):
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                with consuming(database, slot, way) as consumer:
                    consumer.wait_for(30)
                    assert consumer.end(number) == 0, consumer.errors()
                    first, *lines, last = consumer.lines
                    assert (first, last) == ("ready\n", f"{signal.Signals(number)!r}\n")
                    found += numbers(lines)
        finally:
            finished.set()
    # While it waits and nothing comes; and before that all the rest has come.
    with consuming(database, slot, way) as consumer:
        eventually(
            lambda: len(found) + len(numbers(consumer.lines[1:])) >= written[0],
            "the rest has come",
        )
        assert consumer.end(signal.SIGTERM) == 0, consumer.errors()
        found += numbers(consumer.lines[1:-1])
    assert found == list(range(written[0]))


def test_a_raw_stream_ends_at_any_message(database: Database) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with consuming(database, slot, "raw") as consumer:
        insert(database, 1)
        consumer.wait_for(4)
        assert consumer.end(signal.SIGTERM) == 0, consumer.errors()
        assert consumer.lines[-1].strip() in (str(signal.SIGTERM), repr(signal.SIGTERM), "15")


def test_the_second_signal_is_not_for_the_stream(database: Database) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    before = confirmed(database, slot)
    with consuming(database, slot, "stuck") as consumer:
        insert(database, 1)
        consumer.wait_for(2)
        os.kill(consumer.process.pid, signal.SIGTERM)
        # The first one is noted, whenever its handler has run; nothing has ended.
        while consumer.process.poll() is None:
            os.kill(consumer.process.pid, signal.SIGTERM)
        assert consumer.process.returncode == -signal.SIGTERM
    wait_until_free(database, slot)
    assert confirmed(database, slot) == before


def test_handlers_are_put_back_by_the_end_of_the_stream(
    database: Database, connect: Connect
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    ours = signal.getsignal(signal.SIGTERM)
    try:
        with connect(database.dsn()) as connection:
            with connection.stream(slot, publications=["p"]) as stream:
                with pytest.raises(pgrepl.UsageError, match="expected signals"):
                    stream.stop_on()
                with (
                    pytest.raises(pgrepl.UsageError, match="in the main thread"),
                    meanwhile(lambda: stream.stop_on(signal.SIGTERM)),
                ):
                    pass
                stream.stop_on(signal.SIGTERM)
                assert signal.getsignal(signal.SIGTERM) != ours
                with pytest.raises(pgrepl.UsageError, match="a second one"):
                    stream.stop_on(signal.SIGINT)
            assert signal.getsignal(signal.SIGTERM) == ours
            assert signal.set_wakeup_fd(-1) == -1
            assert stream.stopped_by is None
            # The connection takes commands again.
            assert connection.query("SELECT 1")
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_forked_child_ends_by_what_was_there_before(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        stream.stop_on(signal.SIGTERM)
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            try:
                # What comes before that, the interpreter forgets.
                os.write(writable, b"forked")
                threading.Event().wait(PATIENCE)
            finally:
                os._exit(1)
        assert os.read(readable, 6) == b"forked"
        os.close(readable)
        os.close(writable)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        insert(database, 1)
        assert len(list(next(stream.transactions()))) == 1
