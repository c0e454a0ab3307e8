"""The WAL that is written while a base backup is taken, received beside it by a connection of its
own.

A thread receives, or a task; whoever takes the backup looks in now and then, says where it ended,
and waits.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict, Unpack

from ..aio.connection import AsyncConnection
from ..blocking.connection import Connection
from ..physical import ReceivedWal, receive_wal
from ..physical.segments import history_timeline
from ..protocol.conversation import Steps
from .tree import Tree

__all__ = ["ARCHIVE_STATUS", "AsyncWalBeside", "WalBeside", "complete_wal"]

ARCHIVE_STATUS: Final = "archive_status"
_SEGMENT: Final = re.compile(r"(?P<name>[0-9A-F]{24})(?P<partial>\.partial)?", re.ASCII)
_LOOKED_IN: Final = 0.1  # seconds between two looks at a thread that is waited for


class _What(TypedDict):
    """The WAL that is wanted, and how it is kept."""

    slot: str | None
    start: int
    timeline: int
    fsync: bool


class _Until(NamedTuple):
    """Receive up to a position; None: until that is known."""

    end: int | None


class _Beside:
    """What is received, and until when: the same in both flavours."""

    def __init__(self, connection: Any, directory: Path, **what: Unpack[_What]) -> None:
        self._connection = connection
        self._directory = directory
        self._what = what
        self._end: int | None = None
        self._given_up = False
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise what has gone wrong there, if anything has."""
        if self._error is not None:
            raise self._error

    def _runs(self) -> Generator[_Until, ReceivedWal, None]:
        """Ask to receive as often as is needed."""
        position = (yield _Until(None)).position
        # It was told to stop when the end was known, which it may not have reached then.
        while self._end is not None and position < self._end and not self._given_up:
            position = (yield _Until(self._end - 1)).position

    def _receive(self, until: _Until) -> Any:
        """Receive WAL. What this returns is to be awaited where the connection is asyncio's."""
        end = until.end
        return receive_wal(
            self._connection,
            self._directory,
            end=end,
            stop=lambda: self._given_up or (end is None and self._end is not None),
            **self._what,
        )


class WalBeside(_Beside):
    """Receives WAL into a directory from `start` on, in a thread, until it is told where to end."""

    def __init__(self, connection: Connection, directory: Path, **what: Unpack[_What]) -> None:
        super().__init__(connection, directory, **what)
        self._thread = threading.Thread(target=self._run, name="pgrepl base backup's WAL")

    def begin(self) -> None:
        """Start the thread; from then on `finish` or `give_up` must be called."""
        self._thread.start()

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
            Steps(self._runs()).run(self._receive)
        except BaseException as error:
            self._error = error


class AsyncWalBeside(_Beside):
    """The same, in a task of the event loop."""

    def __init__(self, connection: AsyncConnection, directory: Path, **what: Unpack[_What]) -> None:
        super().__init__(connection, directory, **what)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start the task; from then on `finish` or `give_up` must be awaited."""
        self._task = asyncio.create_task(self._run(), name="pgrepl base backup's WAL")

    async def finish(self, end: int, beat: Callable[[], None]) -> None:
        """Return when all WAL up to `end` is there; `beat` is called meanwhile."""
        self._end = end
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=_LOOKED_IN)
            beat()
        self.check()

    async def give_up(self) -> None:
        """Stop, wherever it is. Safe to call again."""
        self._given_up = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await Steps(self._runs()).run_async(self._receive)
        except BaseException as error:
            # A cancellation as well: whoever looks in is told that there will be no more.
            self._error = error


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
