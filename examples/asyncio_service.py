"""A service that applies a database's changes, by several workers, until SIGTERM or Ctrl-C.

    python examples/asyncio_service.py "host=... dbname=..." SLOT PUBLICATION LEDGER

One task reads transactions that own their changes and puts them on a queue. Workers take them from
there, finish in any order, and say so; what is done is acknowledged as soon as everything before it
is. After an end in order nothing comes twice. After a crash what was not acknowledged comes again,
so a worker must bear to see a transaction twice.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pgrepl

WORKERS = 4
WAITING = 100
"""Transactions on the queue at most; beyond that the reader waits, and so does the server."""
IDLE = 10.0
"""Seconds without a transaction after which the service shows that it is alive."""

Queue = asyncio.Queue[pgrepl.AsyncTransaction]
Acks = pgrepl.AckInOrder[pgrepl.AsyncTransaction]


async def read(stream: pgrepl.AsyncStream, queue: Queue, acks: Acks) -> None:
    """Put transactions on the queue; return when a signal has asked for the end."""
    async for each in stream.transactions(whole=True, idle=IDLE):
        if isinstance(each, pgrepl.Idle):
            print("idle at", each.token, flush=True)
            stream.ack(each)  # nothing else is left to acknowledge
        else:
            acks.take(each)  # in the order of the stream, before a worker has it
            await queue.put(each)


async def work(queue: Queue, acks: Acks, ledger: Path) -> None:
    """Apply transactions, for ever. An error ends the service; what it was about comes again."""
    while True:
        transaction = await queue.get()
        await apply(transaction, ledger)
        acks.done(transaction)  # only when it is durable
        queue.task_done()


async def apply(transaction: pgrepl.AsyncTransaction, ledger: Path) -> None:
    """Do what is to be done with a transaction: here, note the keys of its rows in a file."""
    keys = [str(change.new[0]) for change in transaction if isinstance(change, pgrepl.Insert)]
    await asyncio.sleep(random.random() / 100)  # a call of another service, say
    await asyncio.to_thread(note, ledger, keys)


def note(ledger: Path, keys: list[str]) -> None:
    """Append a line for a transaction, in one piece."""
    with ledger.open("a") as file:
        file.write(" ".join(keys) + "\n")


async def serve(conninfo: str, slot: str, publication: str, ledger: Path) -> None:
    """Read and work until a signal comes, or something fails."""
    async with (
        pgrepl.AsyncConnection.connect(conninfo) as connection,
        connection.stream(slot, publications=[publication]) as stream,
    ):
        stream.stop_on(signal.SIGTERM, signal.SIGINT)
        queue: Queue = asyncio.Queue(WAITING)
        acks: Acks = pgrepl.AckInOrder(stream)
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(work(queue, acks, ledger)) for _ in range(WORKERS)]
            await read(stream, queue, acks)
            await queue.join()  # what is on its way is finished, and acknowledged
            for worker in workers:
                worker.cancel()
        print("ended by", stream.stopped_by, "with", len(acks), "pending", flush=True)
    # Leaving the block has told the server what was acknowledged.


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
