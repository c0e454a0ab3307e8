"""What all races of the live part run under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..servers import Programs


@dataclass(frozen=True, slots=True)
class Course:
    """The real server's programs, how often everybody runs, the transport, and who is told."""

    programs: Programs
    rounds: int
    tcp: bool
    report: Callable[[str], None]

    @property
    def transport(self) -> str:
        return "tcp" if self.tcp else "unix"
