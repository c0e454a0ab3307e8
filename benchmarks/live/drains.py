"""The clients that drain a slot: ``python -m benchmarks.live.drains WHO TASK``.

TASK is a `DrainTask` as JSON. A client connects, streams, does one kind of work with each row,
stops at the last commit and prints what the gauge says. Those of asyncio are in `async_drains`, so
that nobody else has to import that.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .gauge import Gauge, run_client
from .task import BATCH_ROWS, ClientFailed, DrainTask, check

if TYPE_CHECKING:
    from pgrepl import Connection, Stream, Transaction

_BUFFER_SIZE: Final = 65536
_COMMIT: Final = ord("C")


def bare_recv(task: DrainTask, gauge: Gauge) -> None:
    """Read into one buffer and look at nothing but the end."""
    with task.session() as frontend:
        if not task.slot:
            return
        connection = frontend.start_streaming(task.command)
        gauge.start()
        last_commit = bytes.fromhex(task.last_commit)
        buffer = bytearray(_BUFFER_SIZE)
        received = 0
        end = b""
        # Keepalives come on top of the size, so that the bytes alone do not tell the end.
        while last_commit not in end:
            count = connection.recv_into(buffer)
            if not count:
                raise ClientFailed(
                    f"expected the last commit, the server hung up after {received} bytes"
                )
            received += count
            if received > task.size - _BUFFER_SIZE:
                end += buffer[:count]
        gauge.stop()
    if received < task.size:
        raise ClientFailed(f"expected at least {task.size} bytes, got {received}")


def pg_recvlogical(task: DrainTask, gauge: Gauge) -> None:
    """PostgreSQL's own client, writing to /dev/null; its start and its connection are counted."""
    command = [
        *(task.pg_recvlogical, f"--host={task.host}", f"--port={task.port}"),
        *("--username=postgres", "--dbname=postgres", "--start", f"--slot={task.slot}"),
        *("--no-loop", "--file=/dev/null", "--fsync-interval=0", "--option=proto_version=1"),
        f"--option=publication_names={task.publication}",
        f"--endpos={task.end_lsn >> 32:X}/{task.end_lsn & 0xFFFFFFFF:X}",
    ]
    if not task.slot:
        subprocess.run([task.pg_recvlogical, "--version"], check=True, stdout=subprocess.DEVNULL)
        return
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    gauge.add(wall, cpu)


def psycopg2_payload(task: DrainTask, gauge: Gauge, acknowledges: bool = False) -> None:
    """psycopg2's consume_stream, the payload as it comes."""
    import psycopg2
    from psycopg2.extras import LogicalReplicationConnection, StopReplication

    connection = psycopg2.connect(**task.keywords, connection_factory=LogicalReplicationConnection)
    if not task.slot:
        return
    last_commit = bytes.fromhex(task.last_commit)

    def consume(message: Any) -> None:
        if message.payload == last_commit:
            raise StopReplication

    def consume_and_acknowledge(message: Any) -> None:
        payload = message.payload
        if payload[0] == _COMMIT:
            message.cursor.send_feedback(flush_lsn=message.data_start)
            if payload == last_commit:
                raise StopReplication

    cursor = connection.cursor()
    cursor.start_replication_expert(task.command, decode=False)
    gauge.start()
    try:
        cursor.consume_stream(consume_and_acknowledge if acknowledges else consume)
    except StopReplication:
        gauge.stop()
    connection.close()


# pgrepl. An application acknowledges, so each transaction or batch is acknowledged.


def _connection(task: DrainTask) -> Connection:
    import pgrepl

    return pgrepl.connect(**task.keywords)


def _stream(
    drain: Callable[[Stream, DrainTask], tuple[int, Any]], unit: str
) -> Callable[[DrainTask, Gauge], None]:
    """Return the client that drains a stream in this way, which counts units; see `DrainTask`."""

    def client(task: DrainTask, gauge: Gauge) -> None:
        # PostgreSQL lets a connection stream a logical slot once.
        for _ in range(task.passes):
            with _connection(task) as connection:
                if not task.slot:
                    return
                with connection.stream(task.slot, publications=[task.publication]) as stream:
                    gauge.start()
                    count, row = drain(stream, task)
                    gauge.stop()
            check(unit, getattr(task, unit), count)
            check("as the last id", task.last_id, row[0])

    return client


def _by_transaction(
    work: Callable[[Transaction], Any],
) -> Callable[[Stream, DrainTask], tuple[int, Any]]:
    def drain(stream: Stream, task: DrainTask) -> tuple[int, Any]:
        transactions = 0
        row = None
        for transaction in stream.transactions():
            row = work(transaction)
            transactions += 1
            stream.ack(transaction)
            if transaction.end_lsn == task.end_lsn:
                break
        return transactions, row

    return drain


def _unread(transaction: Iterable[Any]) -> Any:
    change = None
    for change in transaction:  # noqa: B007
        pass
    return change.new if change else None


def _typed(transaction: Iterable[Any]) -> Any:
    row = None
    for change in transaction:
        row = change.new.astuple()
    return row


def _batches(stream: Stream, task: DrainTask) -> tuple[int, Any]:
    rows = 0
    row: Any = None
    for batch in stream.batches(BATCH_ROWS):
        for change in batch.changes:
            row = change.new.astuple()  # type: ignore[union-attr]
        rows += len(batch)
        stream.ack(batch)
        if rows >= task.rows:
            break
    return rows, row


def headers(task: DrainTask, gauge: Gauge) -> None:
    """Level 1: batches of WAL messages, the headers of each read. For the replay server alone."""
    from pgrepl import XLogData

    for _ in range(task.passes):
        with _connection(task) as connection:
            if not task.slot:
                return
            connection.start_streaming(task.command)
            gauge.start()
            received = 0
            while batch := connection.receive_wal_messages():
                for message in batch:
                    if isinstance(message, XLogData):
                        _ = message.wal_start
                        _ = message.wal_end
                        _ = message.server_time
                received += len(batch.wal_start)
            gauge.stop()
        check("messages", task.messages, received)


def payloads(task: DrainTask, gauge: Gauge) -> None:
    """Level 1: batches of WAL messages, a view of each payload."""
    from pgrepl import XLogData

    with _connection(task) as connection:
        if not task.slot:
            return
        connection.start_streaming(task.command)
        gauge.start()
        received = 0
        while received < task.messages:
            batch = connection.receive_wal_messages()
            count = len(batch.wal_start)
            messages: Sequence[Any] = batch
            if count != len(batch):
                messages = [message for message in batch if isinstance(message, XLogData)]
            for message in messages:
                _ = message.data
            received += count
        gauge.stop()
        check("as the last commit", task.last_commit, bytes(messages[-1]).hex())


DRAINS: Final[dict[str, Callable[[DrainTask, Gauge], None]]] = {
    "bare": bare_recv,
    "psycopg2": psycopg2_payload,
    "psycopg2-acks": partial(psycopg2_payload, acknowledges=True),
    "pg_recvlogical": pg_recvlogical,
    "payloads": payloads,
    "unread": _stream(_by_transaction(_unread), "transactions"),
    "typed": _stream(_by_transaction(_typed), "transactions"),
    "batches": _stream(_batches, "rows"),
    "headers": headers,
}


if __name__ == "__main__":
    run_client(DRAINS)
