"""What the doctor finds: how bad it is, why it matters, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..public import imported_from

__all__ = ["Finding", "Level"]


@imported_from("pgrepl.doctor")
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


@imported_from("pgrepl.doctor")
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `id`: what was looked at; docs/doctor.md has them all, and they stay the same from version to
    version. `level`: how bad it is. `found`: what there is, in a sentence without a full stop, and
    `why` it matters, in whole sentences.

    `sql`: statements that mend it, in this order, each of its own; some drop what nobody seems to
    use, so read them before they are run. `then`: what has to be done besides, or instead where
    there is no SQL.

    `subject`: the object by its kinds and names, some of ``publication``, ``schema`` and ``table``,
    ``slot``, ``setting``, ``database``, ``role``; empty for what is said of the server.

    Names are as the server has them, which may be anything: in `sql` what does not print is
    escaped, everywhere else it has to be before it is shown on a terminal.
    """

    id: str
    level: Level
    found: str
    why: str = ""
    sql: tuple[str, ...] = ()
    then: str = ""
    subject: Mapping[str, str] = field(default_factory=dict, hash=False)

    def asdict(self) -> dict[str, Any]:
        """Return its fields as JSON can have them: the level as a word, `sql` as a list."""
        return {
            "id": self.id,
            "level": self.level.word,
            "subject": dict(self.subject),
            "found": self.found,
            "why": self.why,
            "sql": list(self.sql),
            "then": self.then,
        }
