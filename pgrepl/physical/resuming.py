"""Where to go on, by what is in the directory.

Law: what is taken for complete is complete. A segment of another size than the server's is an
error, never passed over: WAL behind it is of no use without it. A compressed one says nothing by
its size, so the newest of them is read to its end.

The newest timeline counts, and of that the newest segment; one that is complete goes before one
that is not. Receiving goes on behind the first, or at the beginning of the second.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import WalStorageError
from .abc import Directory, Entry
from .compression import Damaged, Unreadable, measure
from .segments import (
    PARTIAL,
    FileKind,
    SegmentSize,
    WalFileName,
    history_timeline,
)

__all__ = ["Found", "survey", "system_of"]

# The beginning of a segment: magic, flags, timeline, position, length of what is left of a record;
# then, at its first page alone, the system's identifier and the sizes of segment and page. In the
# byte order of the server's machine. Source: PostgreSQL's access/xlog_internal.h.
_FIRST_PAGE: Final = "HHIQI4xQII"


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the directory.

    `name`: the newest file, and `position` where to go on; None where there is none. `histories`:
    the timelines whose histories are there. `system`: the identifier that the newest file has,
    where it tells.
    """

    name: WalFileName | None
    position: int | None
    histories: frozenset[int]
    system: int | None

    @property
    def timeline(self) -> int:
        """The timeline to go on with."""
        assert self.name is not None
        return self.name.segment.timeline


def survey(directory: Directory, size: SegmentSize) -> Found:
    """Look what is there, remove what was left half done, and make sure of the rest.

    Raises `OSError`, and `WalStorageError` for files that are not as they should be.
    """
    entries = directory.entries()
    files = {
        entry.name: name
        for entry in entries
        if (name := WalFileName.parse(entry.name, size)) is not None
    }
    _check(directory, entries, files)
    for text, name in files.items():
        if name.kind is FileKind.UNFINISHED:
            directory.remove(text)
    newest = _newest(files)
    histories = frozenset(
        timeline
        for entry in entries
        if entry.regular and (timeline := history_timeline(entry.name)) is not None
    )
    if newest is None:
        return Found(None, None, histories, None)
    text, name = newest
    complete = name.kind is FileKind.COMPLETE
    beginning = _beginning(directory, text, name) if complete else b""
    if complete:
        # Its own run may have been cut off before that.
        directory.sync_file(text)
        partial = name.segment.name + PARTIAL
        if name.compressed and partial in files:
            directory.remove(partial)
    elif not name.compressed:
        beginning = _first_bytes(directory, text)
    directory.sync()
    position = name.segment.end if complete else name.segment.start
    return Found(name, int(position), histories, system_of(beginning, size))


def _check(directory: Directory, entries: Iterable[Entry], files: dict[str, WalFileName]) -> None:
    for entry in entries:
        name = files.get(entry.name)
        if name is None:
            continue
        if not entry.regular:
            raise _wrong(directory, entry.name, "a regular file", "a link or something else")
        plain = name.kind is FileKind.COMPLETE and not name.compressed
        if plain and entry.size != name.segment.size.size:
            raise _wrong(
                directory, entry.name, f"{name.segment.size.size} bytes", f"{entry.size} bytes"
            )


def _wrong(directory: Directory, name: str, expected: str, got: str) -> WalStorageError:
    return WalStorageError(
        f"expected {name} in {directory.path} to be a segment of this server: {expected}, got "
        f"{got}. Nothing was received; move it away, and the WAL from there on is asked for "
        "again, or use another directory"
    )


def _newest(files: dict[str, WalFileName]) -> tuple[str, WalFileName] | None:
    useful = [item for item in files.items() if item[1].kind is not FileKind.UNFINISHED]
    return max(useful, key=lambda item: _rank(item[1]), default=None)


def _rank(name: WalFileName) -> tuple[int, int, bool, bool]:
    return (
        name.segment.timeline,
        name.segment.number,
        name.kind is FileKind.COMPLETE,
        not name.compressed,
    )


def _beginning(directory: Directory, text: str, name: WalFileName) -> bytes:
    """Return the first bytes of a complete segment; a compressed one is read to its end."""
    if not name.compressed:
        return _first_bytes(directory, text)
    wanted = name.segment.size.size
    try:
        with directory.read(text) as file:
            size, beginning = measure(name.compressed, file, wanted)
    except Damaged as error:
        raise _wrong(directory, text, "whole", f"one that cannot be read ({error})") from error
    except Unreadable as error:
        raise WalStorageError(
            f"expected to see whether {text} in {directory.path} is whole, but {error}"
        ) from None
    if size != wanted:
        got = f"more than {wanted}" if size > wanted else f"{size}"
        raise _wrong(directory, text, f"{wanted} bytes, decompressed", got)
    return beginning


def _first_bytes(directory: Directory, text: str) -> bytes:
    with directory.read(text) as file:
        return file.read(struct.calcsize(f"<{_FIRST_PAGE}"))


def system_of(beginning: bytes, size: SegmentSize) -> int | None:
    """Return the identifier of the system that a segment is of; None where it does not tell.

    `beginning`: its first bytes. A segment that was not begun yet holds zeros.
    """
    for order in "<>":
        layout = struct.Struct(order + _FIRST_PAGE)
        if len(beginning) >= layout.size:
            *_, system, segment_size, _ = layout.unpack_from(beginning)
            if segment_size == size.size:
                return int(system)
    return None
