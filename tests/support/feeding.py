"""Ways of giving bytes to a codec's reader, and of taking everything out of it.

Law: nothing here uses pgrepl. A reader comes in as an argument, from whichever twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

LARGEST_READ = 1 << 30


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """`data` cut at these offsets, in any order and beyond its end too; no piece is empty."""
    at = 0
    for cut in sorted({min(abs(cut), len(data)) for cut in cuts} | {len(data)}):
        if cut > at:
            yield data[at:cut]
            at = cut


def fill(reader: Any, data: bytes | memoryview, largest: int = LARGEST_READ) -> None:
    """Write `data` into the reader's own buffer, as a driver does: `largest` bytes a read."""
    rest = memoryview(data)
    while rest:
        with reader.get_buffer() as room:
            size = min(len(room), len(rest), largest)
            room[:size] = rest[:size]
        reader.buffer_updated(size)
        rest = rest[size:]


def frames_of(reader: Any) -> list[tuple[bytes, bytes]]:
    """All frames that are whole."""
    frames = []
    while (frame := reader.next_frame()) is not None:
        frames.append(frame)
    return frames


def batches_of(codec: Any, reader: Any) -> Iterator[Any]:
    """All batches that are whole, up to what is not CopyData."""
    while (batch := codec.next_batch(reader)) is not None:
        yield batch


def rows_of(message: Any) -> list[Any]:
    """The rows of a pgoutput message, in the order of the wire."""
    rows = (getattr(message, name, None) for name in ("key", "old", "new"))
    return [row for row in rows if row is not None]


def read(message: Any) -> Any:
    """Read every value of a message's rows, which have none before; return the message."""
    for row in rows_of(message):
        row.astuple()
    return message
