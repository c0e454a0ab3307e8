"""A slot under watch: what the server holds of it, sampled all the time, against a journal of what
the application acknowledged.

Law: at no moment does the server know more as flushed than the application had acknowledged by
then, or a position below which nothing is left to acknowledge. Which transactions there are, and
where they end, is asked of a second slot of the same server, by SQL.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import psycopg

import pgrepl
from tests.live.streams import create_slot, eventually
from tests.support.clusters import Database

_INTERVAL: Final = 0.05
_COMMIT: Final = ord("C")
_BEGIN: Final = ord("B")

_STATE: Final = """
    SELECT s.confirmed_flush_lsn - '0/0', coalesce(r.flush_lsn - '0/0', 0)
    FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
    WHERE s.slot_name = %s
"""


class Sample(NamedTuple):
    """What the server knew as flushed at a moment that was over at `by`, in monotonic seconds."""

    by: float
    flushed: int


class Ack(NamedTuple):
    """What the application was about to acknowledge at a time."""

    at: float
    upto: Any


class Committed(NamedTuple):
    """A transaction as the server's own decoding has it."""

    xid: int
    commit_lsn: int
    end_lsn: int


class Watch:
    """A new slot `slot`, watched while the context lasts; the end of the context judges.

    The publication `p` must be there before.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._witness = create_slot(database, "witness")
        self.slot = create_slot(database, "watched")
        self._acks: list[Ack] = []
        self._samples: list[Sample] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")
        with database.cluster.connect() as connection:
            self._sample(connection)
        self._floor = self._samples[0].flushed

    def ack(self, stream: pgrepl.Stream, upto: Any, **moved: bool) -> None:
        """Write it into the journal, then acknowledge it: a transaction, a batch, a position."""
        if moved.get("flushed", True):
            self._acks.append(Ack(time.monotonic(), upto))
        stream.ack(upto, **moved)

    @property
    def confirmed(self) -> int:
        """The slot's confirmed_flush_lsn at this moment."""
        with self._database.cluster.connect() as connection:
            return self._sample(connection)

    def committed(self) -> list[Committed]:
        """All transactions that were committed since the watch began, in commit order."""
        rows = self._database.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes("
            "%s, NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
            f" WHERE get_byte(data, 0) IN ({_BEGIN}, {_COMMIT})",
            [self._witness],
        )
        found, xid = [], 0
        for (data,) in rows:
            if data[0] == _BEGIN:
                xid = int.from_bytes(data[17:21], "big")
            else:
                numbers = (int.from_bytes(data[at : at + 8], "big") for at in (2, 10))
                found.append(Committed(xid, *numbers))
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if error is None:
            assert self.confirmed >= self._floor
            self._judge()

    def _judge(self) -> None:
        ends = [each.end_lsn for each in self.committed()]
        acks = [(ack.at, getattr(ack.upto, "end_lsn", ack.upto) or 0) for ack in self._acks]
        for sample in self._samples:
            acked = max((end for at, end in acks if at <= sample.by), default=self._floor)
            following = bisect.bisect_right(ends, acked)
            assert following == len(ends) or ends[following] > sample.flushed, (
                f"the server knew {pgrepl.Lsn(sample.flushed)} as flushed when only "
                f"{pgrepl.Lsn(acked)} was acknowledged, and a transaction ends in between, at "
                f"{pgrepl.Lsn(ends[following])}"
            )

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            # Tests may stop the server; it comes again.
            with (
                contextlib.suppress(psycopg.OperationalError),
                self._database.cluster.connect() as connection,
            ):
                while not self._stopped.wait(_INTERVAL):
                    self._sample(connection)

    def _sample(self, connection: psycopg.Connection[tuple[Any, ...]]) -> int:
        [(confirmed, reported)] = connection.execute(_STATE, [self.slot]).fetchall()
        self._samples.append(Sample(time.monotonic(), max(confirmed, reported)))
        return int(confirmed)


class Consumer:
    """A thread that reads a stream's transactions to their end, and acknowledges none by itself.

    `handle` is called with each, in that thread. `delivered`: the transactions with their rows'
    ids; `error`: what ended it, if something did.
    """

    def __init__(
        self, stream: pgrepl.Stream, handle: Callable[[pgrepl.Transaction], object] = id
    ) -> None:
        self.delivered: list[tuple[pgrepl.Transaction, list[int]]] = []
        self.error: BaseException | None = None
        self._stream = stream
        self._handle = handle
        self._thread = threading.Thread(target=self._run, name="consumer")

    def _run(self) -> None:
        try:
            for transaction in self._stream.transactions():
                self.delivered.append((transaction, ids(transaction)))
                self._handle(transaction)
        except pgrepl.Error as error:
            self.error = error

    @property
    def is_alive(self) -> bool:
        """Whether it still reads."""
        return self._thread.is_alive()

    def wait_for(self, count: int) -> list[pgrepl.Transaction]:
        """Return the transactions when there are so many."""
        eventually(
            lambda: len(self.delivered) >= count or not self.is_alive,
            f"{count} transactions are delivered",
        )
        assert len(self.delivered) >= count, f"the stream ended: {self.error!r}"
        return [transaction for transaction, _ in self.delivered]

    def join(self) -> BaseException | None:
        """Wait until it ends; returns the error in which it did."""
        eventually(lambda: not self.is_alive, "the consumer ends")
        return self.error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # By a stop of the stream, which belongs to the caller, it ends if nothing else ended it.
        self._stream.stop()
        self._thread.join()


def ids(transaction: pgrepl.Transaction) -> list[int]:
    """The ids of a transaction's inserted rows."""
    return [change.new["id"] for change in transaction if isinstance(change, pgrepl.Insert)]


def insert(database: Database, *numbers: int) -> None:
    """Commit a transaction for each number, with a row that has it as `id`."""
    with database.connect() as session:
        for number in numbers:
            session.execute("INSERT INTO item VALUES (%s, '')", [number])


def replies(database: Database, pid: int) -> Iterator[Any]:
    """The times of the statuses that the server has from a stream, each as it comes."""
    seen: set[Any] = set()
    while True:
        eventually(lambda: _reply_time(database, pid) not in seen, "the server gets a status")
        seen.add(moment := _reply_time(database, pid))
        yield moment


def _reply_time(database: Database, pid: int) -> Any:
    rows = database.cluster.execute(
        "SELECT reply_time FROM pg_stat_replication WHERE pid = %s", [pid]
    )
    assert rows, "the server ended the stream"
    return rows[0][0]
