"""What both twins note of transactions whose changes are given in one list: a record for each.

Packed, so that nothing is made for a transaction that nobody looks at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["OUTLINE", "Outline", "outlines_of"]

OUTLINE: Final = struct.Struct("=QQqQII")
"""A record: what `Outline` has, and 4 bytes without a meaning; `at_hand.pxi` writes it too."""


class Outline(NamedTuple):
    """A transaction: what its Begin and its Commit say, and how many changes it has."""

    commit_lsn: int
    end_lsn: int
    commit_time: int
    changes: int
    xid: int


def outlines_of(packed: bytes | bytearray) -> Iterator[Outline]:
    """Give what was noted, in order."""
    for record in OUTLINE.iter_unpack(packed):
        yield Outline(*record[:5])
