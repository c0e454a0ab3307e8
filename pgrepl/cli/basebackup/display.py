"""How far a base backup has come, on standard error: a bar on a terminal, else lines."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from ...amounts import bytes_text
from ...basebackup import BackupProgress
from ..failure import CommandFailed

__all__ = ["backup_display"]

_PHASES: Final = {
    "beginning": "waiting for the checkpoint",
    "receiving": "receiving",
    "wal": "waiting for the last WAL",
    "syncing": "syncing to disk",
}
_BETWEEN_LINES: Final = 5.0

Show = Callable[[BackupProgress], None]


@contextlib.contextmanager
def backup_display(shown: bool) -> Iterator[Show]:
    """What shows the progress, for as long as it is entered; nothing unless it is to be `shown`."""
    if not shown or sys.stderr is None:
        yield lambda _: None
    elif not sys.stderr.isatty():
        yield _Lines().show
    else:
        with _bar() as show:
            yield show


class _Lines:
    """A line for each phase, and one now and then while much is received."""

    def __init__(self) -> None:
        self._phase = ""
        self._due = 0.0

    def show(self, progress: BackupProgress) -> None:
        if progress.phase == self._phase and time.monotonic() < self._due:
            return
        self._phase, self._due = progress.phase, time.monotonic() + _BETWEEN_LINES
        print(f"{_PHASES[progress.phase]}{_amount(progress)}", file=sys.stderr, flush=True)


def _amount(progress: BackupProgress) -> str:
    if progress.total is None:
        return ""
    # An estimate, which what came may have left behind.
    total = max(progress.total, progress.done)
    share = progress.done * 100 // total if total else 100
    return f": {bytes_text(progress.done)} of about {bytes_text(total)} ({share} %)"


@contextlib.contextmanager
def _bar() -> Iterator[Show]:
    if importlib.util.find_spec("rich") is None:
        raise CommandFailed(
            "the program needs the package rich for --progress, which is not installed: "
            "install pgrepl with its extra [cli]",
            status=2,
        )
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(_PHASES["beginning"], total=None)

        def show(progress: BackupProgress) -> None:
            total = None if progress.total is None else max(progress.total, progress.done)
            bar.update(
                task,
                description=_PHASES[progress.phase],
                completed=progress.done,
                total=total,
            )

        yield show
