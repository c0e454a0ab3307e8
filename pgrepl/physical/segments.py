"""WAL segments: how they are numbered and what their files are called.

Law: a name is either exactly one that PostgreSQL and its tools give, or it is nobody's business
here. Names are made of numbers and never taken over from a server.

Source: PostgreSQL documentation, "WAL Internals", and `pg_receivewal`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from ..errors import ProtocolError
from ..lsn import Lsn

__all__ = ["FileKind", "Segment", "SegmentSize", "WalFileName", "history_name", "history_timeline"]

PARTIAL: Final = ".partial"
UNFINISHED: Final = ".tmp"

_NAME: Final = re.compile(
    r"(?P<timeline>[0-9A-F]{8})(?P<high>[0-9A-F]{8})(?P<low>[0-9A-F]{8})"
    r"(?P<compressed>\.gz|\.lz4|\.zst)?(?P<state>\.partial|\.tmp)?",
    re.ASCII,
)
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history", re.ASCII)
_SIZE: Final = re.compile(r"([1-9][0-9]{0,3})(MB|GB)", re.ASCII)
_MEBIBYTE: Final = 1 << 20
_GIBIBYTE: Final = 1 << 30
_TIMELINES: Final = 1 << 32


class FileKind(enum.Enum):
    """What a file of a segment is."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    UNFINISHED = "unfinished"
    """A compressed copy that is still being written: of no use to anybody else."""


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """The size in bytes of a server's segments, and the arithmetic of their positions.

    Raises `ValueError` for what is no power of two between 1 MiB and 1 GiB.
    """

    size: int

    def __post_init__(self) -> None:
        power_of_two = self.size & (self.size - 1) == 0
        if not (_MEBIBYTE <= self.size <= _GIBIBYTE and power_of_two):
            raise ValueError(
                f"expected a segment size of 1 MiB to 1 GiB, a power of two, got {self.size} bytes"
            )

    @classmethod
    def of_setting(cls, text: str) -> SegmentSize:
        """Read what SHOW wal_segment_size says: ``16MB``, ``1GB``. Raises `ProtocolError`."""
        match = _SIZE.fullmatch(text)
        try:
            if match is None:
                raise ValueError("expected a number and MB or GB")
            return cls(int(match[1]) * (_MEBIBYTE if match[2] == "MB" else _GIBIBYTE))
        except ValueError as error:
            raise ProtocolError(
                f"the server's wal_segment_size makes no sense: {error}; it says {text[:40]!r}"
            ) from error

    def start_of(self, position: int) -> int:
        """Return where the segment that holds a position begins."""
        return position - position % self.size

    def segment_at(self, timeline: int, position: int) -> Segment:
        """Return the segment that holds a position."""
        return Segment(timeline, position // self.size, self)

    @property
    def segments_of_4_gib(self) -> int:
        """How many segments have one first half of a number, which counts units of 4 GiB."""
        return (1 << 32) // self.size


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a timeline's WAL; `number` counts from the beginning of all WAL."""

    timeline: int
    number: int
    size: SegmentSize

    @property
    def name(self) -> str:
        """What its file is called: timeline and number, 24 upper-case hexadecimal digits."""
        high, low = divmod(self.number, self.size.segments_of_4_gib)
        return f"{self.timeline:08X}{high:08X}{low:08X}"

    @property
    def start(self) -> Lsn:
        """The position of its first byte."""
        return Lsn(self.number * self.size.size)

    @property
    def end(self) -> Lsn:
        """The position behind its last byte."""
        return Lsn((self.number + 1) * self.size.size)


@dataclass(frozen=True, slots=True)
class WalFileName:
    """What the name of a file says.

    `compressed`: ``.gz``, ``.lz4``, ``.zst``, or empty.
    """

    segment: Segment
    compressed: str
    kind: FileKind

    @classmethod
    def parse(cls, name: str, size: SegmentSize) -> WalFileName | None:
        """Read a name; None for one that is not of a segment of that size."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        timeline, high, low = (int(match[part], 16) for part in ("timeline", "high", "low"))
        if not timeline or low >= size.segments_of_4_gib:
            return None
        segment = Segment(timeline, high * size.segments_of_4_gib + low, size)
        compressed = match["compressed"] or ""
        if match["state"] == UNFINISHED:
            # Of a segment that is not compressed there is no such file.
            return cls(segment, compressed, FileKind.UNFINISHED) if compressed else None
        kind = FileKind.PARTIAL if match["state"] else FileKind.COMPLETE
        return cls(segment, compressed, kind)


def history_name(timeline: int) -> str:
    """Return what the file with the history of a timeline is called: ``00000002.history``."""
    if not 0 < timeline < _TIMELINES:
        raise ValueError(f"expected a timeline between 1 and 2**32-1, got {timeline}")
    return f"{timeline:08X}.history"


def history_timeline(name: str) -> int | None:
    """Return the timeline whose history a file has by its name, None of any other file."""
    match = _HISTORY.fullmatch(name)
    return int(match[1], 16) or None if match else None
