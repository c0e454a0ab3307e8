"""A program that streams, and forks in between as services do:

    python -m tests.live.forks <flavour> <conninfo> <slot>

Its children end in three ways: through all `with` blocks and the end of the interpreter, by a pool
of workers, and by a worker that drops what it has inherited. It prints the ids of the rows that it
was given, of which one is written before the children and one behind them.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pgrepl
from pgrepl import aio
from tests.live.streams import PATIENCE
from tests.support.inside import wire_of

inherited: list[Any] = []


def drop() -> None:
    """What a worker does that wants to be rid of it."""
    held = inherited.pop()
    inherited.clear()
    wire_of(held).__del__()
    gc.collect()


def fork() -> None:
    """Three children, one after the other."""
    pid = os.fork()
    if not pid:
        sys.exit()  # through everything that the parent has begun
    assert os.waitpid(pid, 0)[1] == 0
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    worker = context.Process(target=drop)
    worker.start()
    worker.join(PATIENCE)
    assert worker.exitcode == 0


def blocking(conninfo: str, slot: str) -> list[Any]:
    ids = []
    with pgrepl.connect(conninfo) as writer, pgrepl.connect(conninfo) as connection:
        inherited[:] = [writer, connection]
        with connection.stream(slot, publications=["p"]) as stream:
            for number, transaction in enumerate(stream.transactions()):
                ids += [change.new["id"] for change in transaction]
                stream.ack(transaction)
                if number:
                    break
                fork()
                writer.query("INSERT INTO item VALUES (2)", PATIENCE)
    return ids


async def asynchronous(conninfo: str, slot: str) -> list[Any]:
    ids = []
    async with aio.connect(conninfo) as writer, aio.connect(conninfo) as connection:
        inherited[:] = [writer, connection]
        async with connection.stream(slot, publications=["p"]) as stream:
            async for transaction in stream.transactions():
                ids += [change.new["id"] async for change in transaction]
                stream.ack(transaction)
                if len(ids) > 1:
                    break
                fork()
                await writer.query("INSERT INTO item VALUES (2)", PATIENCE)
    return ids


if __name__ == "__main__":
    # From 3.12 on, since the threads of the parent are not in a child. That is the point.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    flavour, *arguments = sys.argv[1:]
    if flavour == "asyncio":
        print(asyncio.run(asynchronous(*arguments)))
    else:
        print(blocking(*arguments))
