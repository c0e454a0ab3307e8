"""The codec alone, fed from memory: ``python -m benchmarks.fed WORK MESSAGES SIZE CAPTURE``.

No socket and no session: what is left is what a twin of the codec costs. PGREPL_IMPL chooses it.
The capture's file is read into the reader's own buffer, as a driver does it with a socket, so that
no copy of the bytes is counted as the codec's. MESSAGES are SIZE bytes, for which the file is read
over and over.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Final, cast

from pgrepl.codec import Decoder, FrameReader, next_batch
from pgrepl.codec.abc import WalBatch, XLogData

from . import loops
from .capture import CYCLE_MESSAGES, load

_Work = Callable[[Iterable[WalBatch]], None]


def _batches(path: Path, size: int) -> Iterator[WalBatch]:
    reader = FrameReader()
    with path.open("rb", buffering=0) as file:
        while size:
            room = reader.get_buffer()
            count = file.readinto(room[:size]) or 0
            # The buffer must not be seen when it is given back, or it could not be used again.
            room.release()
            if not count:
                file.seek(0, io.SEEK_SET)
                continue
            size -= count
            reader.buffer_updated(count)
            while (batch := next_batch(reader)) is not None:
                yield batch


def columns(batches: Iterable[WalBatch]) -> None:
    """Look at the columns of each batch."""
    for batch in batches:
        _ = batch.wal_start
        _ = batch.wal_end
        _ = batch.server_time


def _each(work: Callable[[Iterable[XLogData]], None]) -> _Work:
    """Return what does this work with the messages of each batch."""

    def of_batches(batches: Iterable[WalBatch]) -> None:
        for batch in batches:
            work(cast(Iterable[XLogData], batch))  # a capture has no keepalives

    return of_batches


def decode(path: Path, messages: int) -> None:
    """Decode the payloads of one cycle of the workload, over and over; no frames are read."""
    payloads = load(path).payloads(CYCLE_MESSAGES)
    feed = Decoder(typed=False).feed
    for data in islice(chain.from_iterable(repeat(payloads)), messages):
        feed(data)


WORKS: Final[dict[str, _Work]] = {
    "columns": columns,
    "iterate": _each(loops.iterate),
    "headers": _each(loops.read_headers),
    "payload": _each(loops.read_payload),
}


def main() -> None:
    work, messages, size, path = sys.argv[1:]
    if work == "decode":
        decode(Path(path), int(messages))
    else:
        WORKS[work](_batches(Path(path), int(size)))


if __name__ == "__main__":
    main()
