"""How far a base backup has come: counted as it is stored, told several times a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..protocol.backup_stream import Tablespace
from ..transport.clock import monotonic
from .settings import BackupProgress, Phase

__all__ = ["BEAT", "ProgressMeter"]

BEAT: Final = 0.2
"""Seconds between two calls of `progress`, whatever comes."""


class ProgressMeter:
    """Counts what has come, and tells it to the application.

    One thread counts while another may tell; each number is whole, and at worst a moment old.
    """

    def __init__(self, told_to: Callable[[BackupProgress], object] | None) -> None:
        self._told_to = told_to
        self._due = 0.0
        self._phase: Phase = "beginning"
        self._total: int | None = None
        self._before = 0  # of the archives that are over
        self._current = 0
        self.received = 0
        """Bytes of archives, as they came over the network."""

    def begin(self, tablespaces: tuple[Tablespace, ...]) -> None:
        """The server has estimated how much there is."""
        sizes = [each.size for each in tablespaces if each.size is not None]
        self._total = sum(sizes) if len(sizes) == len(tablespaces) else None

    def enter(self, phase: Phase) -> None:
        """Begin a phase, which is told at once."""
        self._phase = phase
        self._due = 0.0

    def next_archive(self) -> None:
        """Another archive begins."""
        self._before, self._current = self._before + self._current, 0

    def add(self, count: int) -> None:
        """Count bytes of an archive."""
        self.received += count
        self._current += count

    def told(self, done: int) -> None:
        """The server has said how far it is; of compressed archives it alone knows."""
        self._current = done

    def tell(self) -> None:
        """Tell it, if it is time for that. Raises what the application raises."""
        if self._told_to is not None and monotonic() >= self._due:
            self._due = monotonic() + BEAT
            done = self._before + self._current
            self._told_to(BackupProgress(self._phase, done, self._total))
