"""What the doctor finds: how bad it is, why it matters, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Finding", "Level"]


class Level(enum.IntEnum):
    """How bad a finding is. Only a `PROBLEM` stands in the way of a stream, or of writers."""

    OK = 0
    HINT = 1
    WARNING = 2
    PROBLEM = 3

    @property
    def word(self) -> str:
        """The level as it is shown, and written in JSON."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `id` says what, and stays the same from version to version; `subject` says of which object, by
    its kinds and names: ``{"publication": ..., "schema": ..., "table": ...}``. `sql`: statements
    that mend it, in this order, each of its own; `then`: what has to be done besides.
    """

    id: str
    level: Level
    found: str
    why: str = ""
    sql: tuple[str, ...] = ()
    then: str = ""
    subject: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the members of its JSON object."""
        return {
            "id": self.id,
            "level": self.level.word,
            "subject": dict(self.subject),
            "found": self.found,
            "why": self.why,
            "sql": list(self.sql),
            "then": self.then,
        }
