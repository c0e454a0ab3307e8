"""A process that reads one large transaction of a slot, for its memory to be watched:

    python -m tests.live.large_transaction <conninfo> <slot> <way of reading> <streaming>

It prints its peak of resident memory in bytes, before the first change and at last, and how many
rows it read. Little is imported, since memory that was given back before would hide what is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import pgrepl
from tests.support.spooling import peak_memory

#: Bytes of a row's text; its key and its framing come on top.
WIDTH: Final = 960


def by_transactions(stream: Any) -> Iterator[int]:
    for transaction in stream.transactions():
        for change in transaction:
            assert len(change.new["note"]) == WIDTH
            yield 1
        stream.ack(transaction)
        return


def by_batches(stream: Any) -> Iterator[int]:
    for batch in stream.batches(max_rows=1000):
        for change in batch:
            assert len(change.new["note"]) == WIDTH
        yield len(batch)
        stream.ack(batch)
        if not batch.index:
            return


def by_messages(stream: Any) -> Iterator[int]:
    for message in stream:
        if isinstance(message, pgrepl.Insert):
            assert len(message.new["note"]) == WIDTH
            yield 1
        elif isinstance(message, pgrepl.Commit):
            stream.ack(message)
            return


WAYS: Final = {"transactions": by_transactions, "batches": by_batches, "messages": by_messages}


def main(conninfo: str, slot: str, way: str, streaming: Any) -> None:
    # So little that the server streams what it is asked to stream.
    options = None if streaming == "off" else "-c logical_decoding_work_mem=64kB"
    with (
        pgrepl.connect(conninfo, options=options) as connection,
        connection.stream(slot, publications=["p"], streaming=streaming) as stream,
    ):
        at_first = peak_memory()
        read = sum(WAYS[way](stream))
    print(at_first, peak_memory(), read)


if __name__ == "__main__":
    main(*sys.argv[1:])
