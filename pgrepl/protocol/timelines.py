"""Timelines: their history files, and what a physical stream says at the end of one.

Source: PostgreSQL documentation, "Streaming Replication Protocol" and "Timelines".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import ProtocolError
from ..lsn import Lsn
from ..public import imported_from
from .answers import lsn, only_row, single_row, text, timeline
from .backend import ServerState
from .conversation import Conversation
from .query import Result
from .quoting import timeline_id

__all__ = [
    "EndOfTimeline",
    "TimelineHistory",
    "TimelineSwitch",
    "end_of_timeline",
    "parse_timeline_history",
    "timeline_history",
]

_LINE: Final = re.compile(
    rb"([0-9]{1,10})[ \t]+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:[ \t]+(.*))?", re.DOTALL
)
_SPACE: Final = b" \t\r\f\v"


@imported_from("pgrepl.physical")
@dataclass(frozen=True, slots=True)
class TimelineSwitch:
    """One line of a history: `timeline` was left at `lsn`; `reason` in words, as the file has it.

    What in it is not UTF-8 is kept as surrogates.
    """

    timeline: int
    lsn: Lsn
    reason: str


@imported_from("pgrepl.physical")
@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """The history of a timeline: the name of its file, ``00000002.history``, and what is in it."""

    filename: str
    content: bytes

    @property
    def timeline(self) -> int:
        """The timeline whose history it is."""
        return int(self.filename[:8], 16)

    def switches(self) -> tuple[TimelineSwitch, ...]:
        """Return the timelines before this one, the oldest first. Raises `ProtocolError`."""
        return parse_timeline_history(self.content, self.timeline)


@imported_from("pgrepl.physical")
@dataclass(frozen=True, slots=True)
class EndOfTimeline:
    """The timeline that was streamed has ended: `next_timeline` goes on from it at `start`."""

    next_timeline: int
    start: Lsn


def timeline_history(state: ServerState, timeline: int) -> Conversation[TimelineHistory]:
    """Run TIMELINE_HISTORY."""
    name, content = yield from single_row(state, f"TIMELINE_HISTORY {timeline_id(timeline)}", 2)
    filename, expected = text(name), f"{timeline:08X}.history"
    if filename != expected:
        # Whoever keeps histories makes a file of that name.
        raise ProtocolError(
            f"expected the history of timeline {timeline} by the name {expected!r}, "
            f"got {filename[:40]!r}"
        )
    # Raw bytes, whatever type the server says it is; as text they were decoded losslessly.
    return TimelineHistory(filename, text(content).encode("utf-8", "surrogateescape"))


@imported_from("pgrepl.physical")
def parse_timeline_history(content: bytes, timeline: int) -> tuple[TimelineSwitch, ...]:
    """Return what the history file of a timeline says, the oldest timeline first.

    A line has a timeline, the position at which it was left, and the reason, separated by tabs;
    empty lines and those that begin with ``#`` say nothing. Timelines go up, and so do positions.
    Raises `ProtocolError` for anything else.
    """
    switches: list[TimelineSwitch] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        line = line.strip(_SPACE)
        if line and not line.startswith(b"#"):
            switch = _switch(line, number)
            _check_order(switch, switches[-1:], timeline, number)
            switches.append(switch)
    return tuple(switches)


def _switch(line: bytes, number: int) -> TimelineSwitch:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProtocolError(
            "expected a timeline, an LSN and a reason, separated by tabs, in line "
            f"{number} of a timeline history, got {line[:80]!r}"
        )
    return TimelineSwitch(
        int(match[1]),
        Lsn(match[2].decode("ascii")),
        (match[3] or b"").decode("utf-8", "surrogateescape"),
    )


def _check_order(
    switch: TimelineSwitch, before: Iterable[TimelineSwitch], timeline: int, number: int
) -> None:
    if not 1 <= switch.timeline < timeline:
        raise ProtocolError(
            f"expected a timeline from 1 to {timeline - 1} in line {number} of the history of "
            f"timeline {timeline}, got {switch.timeline}"
        )
    for last in before:
        if switch.timeline <= last.timeline or switch.lsn < last.lsn:
            raise ProtocolError(
                f"expected what comes after timeline {last.timeline}, left at {last.lsn}, in line "
                f"{number} of a timeline history, got timeline {switch.timeline}, left at "
                f"{switch.lsn}"
            )


def end_of_timeline(results: list[Result], streamed: int | None) -> EndOfTimeline | None:
    """Return what the results that end a physical stream tell; None: its timeline goes on.

    `streamed`: the timeline that was asked for, where one was.
    """
    if not any(result.columns for result in results):
        return None
    next_timeline, start = only_row(results, 2, "START_REPLICATION")
    end = EndOfTimeline(timeline(next_timeline), lsn(start))
    if end.next_timeline <= (streamed or 1):
        raise ProtocolError(
            f"expected a timeline after {streamed or 1} at the end of a physical stream, "
            f"got {end.next_timeline}"
        )
    return end
