"""WAL, byte by byte into segments: what is written, what is durable, and what may be said of it.

Law: bytes are written in order and without a gap, and `flushed` is never beyond what survives a
loss of power: bytes that are synced, in a file whose name is synced. After any failure it stays
where it was for good. A file that could not be synced is never synced again: the system may have
forgotten what it could not write, and then says that all is well. The next run begins that segment
anew.

An open segment is ``NAME.partial``, as large as the segment and filled with zeros. One that is
there already is written over, not emptied: what an earlier run has reported from it stays on disk
at every moment. A complete one is renamed. Where it is compressed, a compressed copy grows beside
it and takes its place when that is durable.

Source: PostgreSQL documentation, `pg_receivewal`.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ProtocolError, WalStorageError
from ..lsn import Lsn, encode_lsn
from ..public import imported_from
from .abc import Directory, File
from .compression import Compression, Compressor
from .segments import PARTIAL, UNFINISHED, Segment, SegmentSize, history_name

__all__ = ["ReceivedSegment", "WalWriter", "storing"]

_ZEROS: Final = bytes(1 << 20)


@imported_from("pgrepl.physical")
@dataclass(frozen=True, slots=True)
class ReceivedSegment:
    """A segment that is complete and durable: its file's name, timeline, and positions."""

    name: str
    timeline: int
    start: Lsn
    end: Lsn


class _CompressedCopy:
    """The compressed file of a segment that is still open."""

    def __init__(self, directory: Directory, segment: Segment, how: Compression) -> None:
        self.name: Final = segment.name + how.suffix
        self._directory = directory
        self._compressor: Compressor = how.compressor(segment.size.size)
        self._unfinished = self.name + UNFINISHED
        self._size = 0
        # Of a run that was cut off.
        directory.remove(self._unfinished)
        self._file = directory.create(self._unfinished)

    def write(self, data: memoryview) -> None:
        self._append(self._compressor.compress(data))

    def finish(self) -> None:
        self._append(self._compressor.flush())
        self._file.sync()
        self._file.close()
        self._directory.rename(self._unfinished, self.name)

    def drop(self) -> None:
        self._file.close()
        self._directory.remove(self._unfinished)

    def close(self) -> None:
        self._file.close()

    def _append(self, data: bytes) -> None:
        self._file.write(data, self._size)
        self._size += len(data)


class _OpenSegment:
    """The segment that is being written."""

    def __init__(self, directory: Directory, segment: Segment, how: Compression | None) -> None:
        self.segment: Final = segment
        self._directory = directory
        self._partial = segment.name + PARTIAL
        self._file = self._open()
        try:
            # From here on the name is durable.
            directory.sync()
            self._copy = None if how is None else _CompressedCopy(directory, segment, how)
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> File:
        file = self._directory.open(self._partial)
        created = file is None
        if file is None:
            file = self._directory.create(self._partial)
        try:
            self._fill(file)
        except BaseException:
            file.close()
            if created:
                # It is of no use, and takes the room that may be what is missing.
                with contextlib.suppress(OSError):
                    self._directory.remove(self._partial)
            raise
        return file

    def _fill(self, file: File) -> None:
        """Let the file have its size, so that the room is taken before the bytes come.

        Not synced: whatever of the WAL is, is synced with all that is in the file.
        """
        wanted, size = self.segment.size.size, file.size
        if size > wanted:
            raise OSError(
                errno.EFBIG,
                f"it has {size} bytes, expected a segment of {wanted} or the beginning of one; "
                "if it is not of this server, move it away",
                self._partial,
            )
        if size < wanted:
            for offset in range(size, wanted, len(_ZEROS)):
                file.write(memoryview(_ZEROS)[: wanted - offset], offset)

    def write(self, data: memoryview, offset: int) -> None:
        self._file.write(data, offset)
        if self._copy is not None:
            self._copy.write(data)

    def sync(self) -> None:
        self._file.sync()

    def finish(self) -> str:
        """Make the whole segment durable by its own name, and return that."""
        if self._copy is None:
            name = self.segment.name
            self._file.sync()
            self._file.close()
            self._directory.rename(self._partial, name)
            self._directory.sync()
            return name
        # Of the file itself no more is needed than was reported from it; that goes last.
        self._copy.finish()
        self._directory.sync()
        self._file.close()
        self._directory.remove(self._partial)
        return self._copy.name

    def leave_segment(self) -> None:
        """Let the segment be as it is, incomplete; it is synced already."""
        self._file.close()
        if self._copy is not None:
            self._copy.drop()

    def close(self) -> None:
        self._file.close()
        if self._copy is not None:
            self._copy.close()


class WalWriter:
    """Writes the WAL of one timeline after the other into a directory.

    `end`: a position; once WAL beyond it is written, what comes after that is not. `on_segment` is
    called for every segment that is complete, when it is durable and before that counts as flushed.

    Not safe for threads, except that `position` and `flushed` may be read from any. Raises
    `WalStorageError` for what the system says, from then on at every call, and `ProtocolError` for
    WAL that does not go on where the last ended.
    """

    def __init__(
        self,
        directory: Directory,
        size: SegmentSize,
        *,
        compression: Compression | None = None,
        end: int | None = None,
        on_segment: Callable[[ReceivedSegment], object] | None = None,
    ) -> None:
        self.timeline = 0
        self.position = 0
        """The end of what was written."""
        self.flushed = 0
        """The end of what is durable."""
        self.segments = 0
        """How many segments were completed."""
        self._directory = directory
        self._size = size
        self._compression = compression
        self._end = end
        self._on_segment = on_segment
        self._open: _OpenSegment | None = None
        self._fault: str | None = None

    @property
    def reached_end(self) -> bool:
        """Whether WAL beyond the end that was asked for has been written."""
        return self._end is not None and self.position > self._end

    def begin(self, timeline: int, position: int) -> None:
        """Go on with a timeline, at the beginning of a segment; all before it is durable."""
        self.timeline = timeline
        self.position = self.flushed = self._size.start_of(position)

    def add_history(self, timeline: int, content: bytes) -> None:
        """Write the history of a timeline, durable before its WAL is."""
        name = history_name(timeline)
        with self._storing(f"write {name}"):
            self._directory.remove(name + UNFINISHED)
            file = self._directory.create(name + UNFINISHED)
            try:
                file.write(content, 0)
                file.sync()
            finally:
                file.close()
            self._directory.rename(name + UNFINISHED, name)
            self._directory.sync()

    def write(self, start: int, data: memoryview) -> None:
        """Write WAL that begins at a position, which must be the end of what was written."""
        if start != self.position:
            raise ProtocolError(
                f"expected WAL from {encode_lsn(self.position)} on, got WAL from "
                f"{encode_lsn(start)}: the server left something out, or sent it again"
            )
        while data and not self.reached_end:
            name = None
            with self._storing("write WAL"):
                segment = self._segment()
                offset = self.position - segment.segment.start
                piece = data[: self._size.size - offset]
                segment.write(piece, offset)
                self.position += len(piece)
                data = data[len(piece) :]
                if self.position == segment.segment.end:
                    name = segment.finish()
                    self._open = None
            if name is not None:
                self._note_completed(name, segment.segment)

    def _segment(self) -> _OpenSegment:
        if self._open is None:
            segment = self._size.segment_at(self.timeline, self.position)
            self._open = _OpenSegment(self._directory, segment, self._compression)
        return self._open

    def _note_completed(self, name: str, segment: Segment) -> None:
        # By itself: what the system says there is not about our files.
        with self._failing_unless_whole():
            if self._on_segment is not None:
                self._on_segment(
                    ReceivedSegment(name, segment.timeline, segment.start, segment.end)
                )
        self.segments += 1
        self.flushed = self.position

    def flush(self) -> None:
        """Make durable what was written."""
        with self._storing("sync WAL"):
            if self._open is not None and self.flushed < self.position:
                self._open.sync()
                self.flushed = self.position

    def leave_segment(self) -> None:
        """Make durable what was written, and let the segment be, incomplete: no more will come."""
        self.flush()
        with self._storing("close a segment"):
            if self._open is not None:
                self._open.leave_segment()
                self._open = None

    def close(self) -> None:
        """Let go of everything as it is. Safe to call again."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self._directory.close()

    @contextlib.contextmanager
    def _failing_unless_whole(self) -> Iterator[None]:
        """Do it whole, or never go on: whatever cuts it off, half of it is a fault."""
        if self._fault is not None:
            raise WalStorageError(self._fault)
        self._fault = "expected to go on with the WAL, but what went before was cut off"
        yield
        self._fault = None

    @contextlib.contextmanager
    def _storing(self, what: str) -> Iterator[None]:
        """The same; raises `WalStorageError` for what the system says."""
        try:
            with storing(what, self._directory.path, self.flushed), self._failing_unless_whole():
                yield
        except WalStorageError as error:
            self._fault = str(error)
            raise


@contextlib.contextmanager
def storing(what: str, path: str, flushed: int = 0) -> Iterator[None]:
    """Raise `WalStorageError` for what the system says in the body."""
    try:
        yield
    except OSError as error:
        name: Any = error.filename
        where = f"{name} in {path}" if isinstance(name, str) else path
        known = f"; the WAL up to {encode_lsn(flushed)} is safe" if flushed else ""
        raise WalStorageError(
            f"expected to {what} in {where}, but the system says: "
            f"{error.strerror or type(error).__name__}{known}. Put that right and run again: it "
            "goes on from what is there"
        ) from error
