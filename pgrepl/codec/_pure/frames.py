"""Frames, pure Python: the twin of pgrepl/codec/_native/frames.pyx and src_c/pgr_frames.c.

Arrived bytes are kept as one immutable `bytes` object at a time, so that what a view sees cannot
change by construction: taking from it moves a position, and new bytes make a new object.
"""

from __future__ import annotations

import struct
from typing import Final

from .. import abc as contract
from ..abc import MAX_FRAME_LENGTH
from ..faults import Fault, fault_error
from ..unpicklable import Unpicklable

__all__ = ["HEADER", "FrameReader", "parse_header"]

HEADER: Final = struct.Struct(">Bi")
_SHORT_LENGTH: Final = 30000
# The longest length word by tag: some messages carry data, the others never do.
_LONGEST: Final = dict.fromkeys(b"dDTENAV", MAX_FRAME_LENGTH) | dict.fromkeys(
    b"RKSZCcWHGIv123nst", _SHORT_LENGTH
)


def parse_header(data: bytes, at: int, limit: int) -> tuple[int, int] | None:
    """Return (tag, position behind the frame) of the frame at `at`; None before its header is
    whole.

    Raises `ProtocolError` for an unknown tag or a length out of range.
    """
    if at >= len(data):
        return None
    tag = data[at]
    longest = _LONGEST.get(tag)
    if longest is None:
        raise fault_error(Fault.FRAME_TAG, tag, 0, 0, tag)
    if len(data) - at < HEADER.size:
        return None
    length = HEADER.unpack_from(data, at)[1]
    longest = min(longest, limit)
    if not 4 <= length <= longest:
        raise fault_error(Fault.FRAME_LENGTH, tag, 1, longest, length)
    return tag, at + 1 + length


class FrameReader(Unpicklable):
    __doc__ = contract.FrameReader.__doc__

    def __init__(self, chunk_size: int = 131072) -> None:
        if chunk_size < 64:
            raise ValueError(f"expected a chunk size of at least 64 bytes, got {chunk_size}")
        self._limit = MAX_FRAME_LENGTH
        self._buffer = bytearray(chunk_size)
        # Pieces that arrived behind `data` and are not joined to it yet: joining at every piece
        # would copy a large frame again and again.
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self.data = b""
        self.start = 0

    @property
    def limit(self) -> int:
        """Largest length word to accept, 4..`MAX_FRAME_LENGTH`."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        if not 4 <= value <= MAX_FRAME_LENGTH:
            raise ValueError(f"expected a limit between 4 and {MAX_FRAME_LENGTH}, got {value}")
        self._limit = value

    @property
    def pending(self) -> int:
        """Bytes that arrived and were not taken yet."""
        return len(self.data) - self.start + self._pieces_size

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return room for at least one byte, to be filled from its start."""
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        """Tell how much of the room was filled; `ValueError` if there was not that much."""
        room = len(self._buffer)
        if not 0 <= nbytes <= room:
            raise ValueError(f"expected 0 to {room} filled bytes, got {nbytes}")
        self._arrived(bytes(memoryview(self._buffer)[:nbytes]))

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that are in memory already."""
        self._arrived(bytes(memoryview(data)))

    def _arrived(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._pieces_size += len(piece)

    def join(self, limit: int) -> bool:
        """Make `data` hold all that arrived; False if the frame at `start` is known to need
        more."""
        if self._pieces:
            ahead = len(self.data) - self.start
            if ahead >= HEADER.size:
                header = parse_header(self.data, self.start, limit)
                if header and header[1] - self.start > ahead + self._pieces_size:
                    return False
            self.data = b"".join((self.data[self.start :], *self._pieces))
            self.start = 0
            self._pieces.clear()
            self._pieces_size = 0
        return True

    def next_frame(self) -> tuple[bytes, bytes] | None:
        """Take the next frame as (tag, body), or return None if none is whole yet."""
        if not self.join(self._limit):
            return None
        header = parse_header(self.data, self.start, self._limit)
        if header is None or header[1] > len(self.data):
            return None
        tag, end = header
        body = self.data[self.start + HEADER.size : end]
        self.start = end
        return bytes((tag,)), body
