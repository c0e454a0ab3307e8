"""A process that consumes a stream until a signal asks it to end:

    python -m tests.live.consumer_process <conninfo> <slot> <way>

It writes the ids that it was given and has acknowledged on standard output, a line for each
transaction or batch, and at its end the signal that asked for it. `way`: transactions, batches,
messages or raw, with "async " before it for asyncio; "stuck" never comes to its end.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import Any

import pgrepl
from pgrepl.aio.connection import connect as connect_async

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def say(*what: object) -> None:
    print(*what, flush=True)


def ids(changes: Any) -> list[int]:
    return [change.new["id"] for change in changes if isinstance(change, pgrepl.Insert)]


def by_messages(stream: pgrepl.Stream) -> None:
    given: list[int] = []
    for message in stream:
        given += ids([message])
        if isinstance(message, pgrepl.Commit):
            stream.ack(message)
            say(*given)
            given = []
    assert given == [], "it ended inside a transaction"


def consume(stream: pgrepl.Stream, way: str) -> None:
    if way == "messages":
        by_messages(stream)
    elif way == "batches":
        for batch in stream.batches(max_rows=7, max_wait=0.05):
            stream.ack(batch)
            say(*ids(batch))
    else:
        for transaction in stream.transactions():
            say(*ids(transaction))
            if way == "stuck":
                threading.Event().wait()
            stream.ack(transaction)


def main(conninfo: str, slot: str, way: str) -> None:
    with pgrepl.connect(conninfo) as connection:
        handlers = [signal.getsignal(number) for number in SIGNALS]
        if way == "raw":
            raw = connection.stream_raw(
                slot, options={"proto_version": "1", "publication_names": "p"}
            )
            raw.stop_on(*SIGNALS)
            say("ready")
            for message in raw:
                raw.ack(message)
                say(len(message))
            raw.stop()
            say(raw.stopped_by)
            return
        with connection.stream(slot, publications=["p"]) as stream:
            stream.stop_on(*SIGNALS)
            say("ready")
            consume(stream, way)
            # A second signal, or one from here on, is not for the stream.
            assert [signal.getsignal(number) for number in SIGNALS] == handlers
        say(repr(stream.stopped_by))


async def main_async(conninfo: str, slot: str, way: str) -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    async with (
        connect_async(conninfo) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        stream.stop_on(*SIGNALS)
        say("ready")
        if way == "async batches":
            async for batch in stream.batches(max_rows=7, max_wait=0.05):
                stream.ack(batch)
                say(*ids(batch))
        else:
            async for transaction in stream.transactions():
                say(*ids([change async for change in transaction]))
                stream.ack(transaction)
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
    say(repr(stream.stopped_by))


if __name__ == "__main__":
    if sys.argv[3].startswith("async "):
        asyncio.run(main_async(*sys.argv[1:]))
    else:
        main(*sys.argv[1:])
