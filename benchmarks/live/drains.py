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

from .. import loops
from .gauge import Gauge, run_client
from .task import ClientFailed, DrainTask, check

if TYPE_CHECKING:
    from pgrepl import Connection, Stream
    from pgrepl.codec.abc import XLogData

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


# pgrepl


def _connection(task: DrainTask) -> Connection:
    import pgrepl

    return pgrepl.connect(**task.keywords)


def _stream(
    loop: Callable[[Stream, int, int], loops.Found], unit: str
) -> Callable[[DrainTask, Gauge], None]:
    """Return the client that drains a stream by a loop, which counts units; see `DrainTask`."""

    def client(task: DrainTask, gauge: Gauge) -> None:
        # PostgreSQL lets a connection stream a logical slot once.
        for _ in range(task.passes):
            with _connection(task) as connection:
                if not task.slot:
                    return
                with connection.stream(task.slot, publications=[task.publication]) as stream:
                    gauge.start()
                    count, row = loop(stream, task.rows, task.end_lsn)
                    gauge.stop()
            check(unit, getattr(task, unit), count)
            check("as the last id", task.last_id, row[0])

    return client


def _messages(
    work: Callable[[Iterable[XLogData]], None],
) -> Callable[[DrainTask, Gauge], None]:
    """Return the client that does this work with all WAL messages, batch by batch: level 1."""

    def client(task: DrainTask, gauge: Gauge) -> None:
        for _ in range(task.passes):
            with _connection(task) as connection:
                if not task.slot:
                    return
                connection.start_streaming(task.command)
                gauge.start()
                received = 0
                messages: Sequence[XLogData] = ()
                while received < task.messages:
                    messages = loops.xlogdata_of(connection.receive_wal_messages())
                    work(messages)
                    received += len(messages)
                gauge.stop()
                check("messages", task.messages, received)
                check("as the last commit", task.last_commit, bytes(messages[-1]).hex())

    return client


DRAINS: Final[dict[str, Callable[[DrainTask, Gauge], None]]] = {
    "bare": bare_recv,
    "psycopg2": psycopg2_payload,
    "psycopg2-acks": partial(psycopg2_payload, acknowledges=True),
    "pg_recvlogical": pg_recvlogical,
    "payloads": _messages(loops.read_payload),
    "headers": _messages(loops.read_headers),
    "unread": _stream(loops.by_transaction(loops.unread), "transactions"),
    "typed": _stream(loops.by_transaction(loops.typed), "transactions"),
    "batches": _stream(loops.batches, "rows"),
}


if __name__ == "__main__":
    run_client(DRAINS)
