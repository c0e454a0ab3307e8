"""The readers of the latency race: ``python -m benchmarks.live.readers WHO TASK``.

TASK is a `WaitTask` as JSON. A reader streams the slot, starts the writer, and notes for each row
how long ago it was sent when the application has that value, decoded. It prints the nanoseconds of
each row beyond the warm-up, and what the writer says. Both read the same monotonic clock.

Whoever is no pgrepl decodes the one value by hand and nothing else, which favours the peers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any, Final

from ..wire import FRAME_HEADER, XLOGDATA_HEADER, frames
from .task import ClientFailed, WaitTask, check

# An Insert's payload: tag, relation, 'N', number of columns, then the id's kind and length.
_ID_LENGTH: Final = slice(9, 13)
_ID_START: Final = 13
_COLUMN_HEADER: Final = 5

# The same between payloads that nothing separates for certain; pg_recvlogical adds newlines.
_INSERT: Final = re.compile(rb"I....N\x00\x02t....(\d+)t....(\d+)\n", re.DOTALL)
_LONGEST: Final = 64

Latencies = list[int]


@contextlib.contextmanager
def _writer(task: WaitTask) -> Iterator[subprocess.Popen[str]]:
    """Run the writer, which waits by itself until the slot is streamed."""
    command = [sys.executable, "-m", "benchmarks.live.writer", str(task)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            yield writer
        except BaseException:
            writer.terminate()
            raise


def _sent(insert: bytes | bytearray) -> int:
    """Return the second column of an Insert's payload, which ends with it."""
    id_end = _ID_START + int.from_bytes(insert[_ID_LENGTH])
    return int(insert[id_end + _COLUMN_HEADER :])


def bare(task: WaitTask, latencies: Latencies) -> None:
    """A socket, the frames cut by hand: what the server and the kernel alone take."""
    with task.session() as session:
        if not task.slot:
            return
        connection = session.start_streaming(task.command)
        pending = bytearray()
        while len(latencies) < task.rows:
            piece = connection.recv(65536)
            if not piece:
                raise ClientFailed(f"expected {task.rows} rows, got {len(latencies)}")
            pending += piece
            taken = 0
            for start, taken in frames(pending):
                payload = start + FRAME_HEADER + XLOGDATA_HEADER
                if pending[start + FRAME_HEADER] == ord("w") and pending[payload] == ord("I"):
                    sent = _sent(pending[payload:taken])
                    latencies.append(monotonic_ns() - sent)
            del pending[:taken]


def _options(task: WaitTask) -> dict[str, Any]:
    return {} if task.max_delay is None else {"max_delay": task.max_delay}


def pgrepl_blocking(task: WaitTask, latencies: Latencies) -> None:
    """`Connection.stream`, transaction by transaction, each acknowledged."""
    import pgrepl

    with pgrepl.connect(**task.keywords) as connection:
        if not task.slot:
            return
        with connection.stream(
            task.slot, publications=[task.publication], **_options(task)
        ) as stream:
            change: Any
            for transaction in stream.transactions():
                for change in transaction:
                    sent = change.new["sent"]
                    latencies.append(monotonic_ns() - sent)
                stream.ack(transaction)
                if len(latencies) == task.rows:
                    break


async def _pgrepl_asyncio(task: WaitTask, latencies: Latencies) -> None:
    import pgrepl

    async with pgrepl.AsyncConnection.connect(**task.keywords) as connection:
        if not task.slot:
            return
        async with connection.stream(
            task.slot, publications=[task.publication], **_options(task)
        ) as stream:
            change: Any
            async for transaction in stream.transactions():
                async for change in transaction:
                    sent = change.new["sent"]
                    latencies.append(monotonic_ns() - sent)
                stream.ack(transaction)
                if len(latencies) == task.rows:
                    break


def pgrepl_asyncio(task: WaitTask, latencies: Latencies) -> None:
    asyncio.run(_pgrepl_asyncio(task, latencies))


def pgrepl_uvloop(task: WaitTask, latencies: Latencies) -> None:
    import uvloop

    uvloop.run(_pgrepl_asyncio(task, latencies))


def psycopg2(task: WaitTask, latencies: Latencies) -> None:
    """psycopg2's consume_stream, each transaction acknowledged."""
    from psycopg2 import connect
    from psycopg2.extras import LogicalReplicationConnection, StopReplication

    connection = connect(**task.keywords, connection_factory=LogicalReplicationConnection)
    if not task.slot:
        return

    def consume(message: Any) -> None:
        payload = message.payload
        if payload[0] == ord("I"):
            sent = _sent(payload)
            latencies.append(monotonic_ns() - sent)
        elif payload[0] == ord("C"):
            message.cursor.send_feedback(flush_lsn=message.data_start)
            if len(latencies) == task.rows:
                raise StopReplication

    cursor = connection.cursor()
    cursor.start_replication_expert(task.command, decode=False)
    with contextlib.suppress(StopReplication):
        cursor.consume_stream(consume)
    connection.close()


def pg_recvlogical(task: WaitTask, latencies: Latencies) -> None:
    """pg_recvlogical writing to a pipe, each message with a call of its own, never synced."""
    command = [
        *(task.pg_recvlogical, f"--host={task.host}", f"--port={task.port}"),
        *("--username=postgres", "--dbname=postgres", "--start", f"--slot={task.slot}"),
        *("--no-loop", "--file=-", "--fsync-interval=0", "--option=proto_version=1"),
        f"--option=publication_names={task.publication}",
    ]
    if not task.slot:
        subprocess.run([task.pg_recvlogical, "--version"], check=True, stdout=subprocess.DEVNULL)
        return
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as program:
        assert program.stdout is not None
        pipe = program.stdout.fileno()
        pending = b""
        while len(latencies) < task.rows:
            piece = os.read(pipe, 65536)
            if not piece:
                raise ClientFailed(f"expected {task.rows} rows, got {len(latencies)}")
            pending += piece
            end = 0
            for found in _INSERT.finditer(pending):
                latencies.append(monotonic_ns() - int(found[2]))
                end = found.end()
            # A row may be cut in two, but is never longer than this.
            pending = pending[end:][-_LONGEST:]
        program.terminate()


READERS: Final[dict[str, Callable[[WaitTask, Latencies], None]]] = {
    "bare": bare,
    "pgrepl": pgrepl_blocking,
    "asyncio": pgrepl_asyncio,
    "uvloop": pgrepl_uvloop,
    "psycopg2": psycopg2,
    "pg_recvlogical": pg_recvlogical,
}


def main() -> None:
    who, text = sys.argv[1:]
    task = WaitTask.parse(text)
    latencies: Latencies = []
    if not task.slot:
        READERS[who](task, latencies)
        return
    with _writer(task) as writer:
        READERS[who](task, latencies)
        written, _ = writer.communicate()
    check("rows", task.rows, len(latencies))
    print(json.dumps({"latencies": latencies[task.warm_up :], **json.loads(written)}))


if __name__ == "__main__":
    main()
