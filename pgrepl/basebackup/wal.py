"""The WAL that is written while a base backup is taken, received beside it by a connection of its
own.

A thread receives; whoever takes the backup looks in now and then, says where it ended, and waits.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..blocking.connection import Connection
from ..physical import receive_wal
from ..physical.segments import history_timeline
from .tree import Tree

__all__ = ["ARCHIVE_STATUS", "WalBeside", "complete_wal"]

ARCHIVE_STATUS: Final = "archive_status"
_SEGMENT: Final = re.compile(r"(?P<name>[0-9A-F]{24})(?P<partial>\.partial)?", re.ASCII)
_LOOKED_IN: Final = 0.1  # seconds between two looks at a thread that is waited for


class WalBeside:
    """Receives WAL into a directory from `start` on, in a thread, until it is told where to end."""

    def __init__(
        self,
        connection: Connection,
        directory: Path,
        *,
        slot: str | None,
        start: int,
        timeline: int,
        fsync: bool,
    ) -> None:
        self._connection = connection
        self._directory = directory
        self._slot = slot
        self._start = start
        self._timeline = timeline
        self._fsync = fsync
        self._end: int | None = None
        self._given_up = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pgrepl base backup's WAL")

    def begin(self) -> None:
        """Start the thread; from then on `finish` or `give_up` must be called."""
        self._thread.start()

    def check(self) -> None:
        """Raise what has gone wrong there, if anything has."""
        if self._error is not None:
            raise self._error

    def finish(self, end: int, beat: Callable[[], None]) -> None:
        """Return when all WAL up to `end` is there; `beat` is called meanwhile."""
        self._end = end
        while self._thread.is_alive():
            self._thread.join(_LOOKED_IN)
            beat()
        self.check()

    def give_up(self) -> None:
        """Stop, wherever it is. Safe to call again."""
        self._given_up = True
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            position = self._receive(None)
            # It was told to stop when the end was known, which it may not have reached then.
            while self._end is not None and position < self._end and not self._given_up:
                position = self._receive(self._end - 1)
        except BaseException as error:
            self._error = error

    def _receive(self, end: int | None) -> int:
        received = receive_wal(
            self._connection,
            self._directory,
            slot=self._slot,
            start=self._start,
            timeline=self._timeline,
            end=end,
            fsync=self._fsync,
            stop=lambda: self._given_up or (end is None and self._end is not None),
        )
        return received.position


def complete_wal(tree: Tree, folder: str) -> None:
    """Make of what was received what a server expects in its directory of WAL.

    The last segment gets the name that it would have had; what it lacks is zeros. None of them is
    archived by a server that starts from the backup: the one that wrote them has done that.
    """
    for name in tree.names([folder]):
        match = _SEGMENT.fullmatch(name)
        if match is not None and match["partial"]:
            tree.rename([folder, name], match["name"])
        if match is not None or history_timeline(name) is not None:
            done = match["name"] if match is not None else name
            tree.create([folder, ARCHIVE_STATUS, f"{done}.done"]).close()
