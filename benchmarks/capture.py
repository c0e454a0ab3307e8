"""Captures: what a real server sent for a known workload, in memory.

The stream's workload goes through transactions of 10 000 rows, of 100 rows and of one row, over and
over. The row is the reference row: bigint, int, text, timestamptz, numeric(12,2) and uuid, 155
bytes as the text of a pgoutput Insert. Each table's own capture is one transaction.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .wire import FRAME_HEADER, XLOGDATA_HEADER, frame_ends

# (rows in a transaction, transactions). A Begin and a Commit come with each transaction.
CYCLE: Final = ((10_000, 1), (100, 50), (1, 500))
CYCLE_MESSAGES: Final = sum((rows + 2) * transactions for rows, transactions in CYCLE)
CYCLES: Final = 13

# Rows of each table's own capture: more than a branch predictor learns, few enough for the cache.
TABLE_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class CaptureInfo:
    """What is known of a capture. Sizes are bytes, `row_payload_size` an Insert's on average."""

    server_version: str
    messages: int
    rows: int
    size: int
    payload_size: int
    row_payload_size: float


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture in memory: whole CopyData messages, `ends` the offset behind each of them."""

    info: CaptureInfo
    stream: bytes
    ends: array[int]

    def size_of(self, messages: int) -> int:
        """Return how many bytes so many messages take when the capture is sent over and over."""
        times, rest = divmod(messages, len(self.ends))
        return times * len(self.stream) + (self.ends[rest - 1] if rest else 0)

    def pieces(self, messages: int, size: int) -> Iterator[memoryview]:
        """Give the bytes of so many messages, cut without regard for where messages end."""
        stream = memoryview(self.stream)
        left = self.size_of(messages)
        while left:
            whole = min(left, len(stream))
            for start in range(0, whole, size):
                yield stream[start : min(start + size, whole)]
            left -= whole

    def payloads(self, messages: int) -> list[bytes]:
        """Return copies of the first payloads."""
        starts = [0, *self.ends[: messages - 1]]
        spans = zip(starts, self.ends[:messages], strict=True)
        return [self.stream[a + FRAME_HEADER + XLOGDATA_HEADER : b] for a, b in spans]


def load(path: Path) -> Capture:
    """Read a capture from its file and the description beside it."""
    stream = path.read_bytes()
    info = CaptureInfo(**json.loads(path.with_suffix(".json").read_text()))
    return Capture(info, stream, frame_ends(stream))
