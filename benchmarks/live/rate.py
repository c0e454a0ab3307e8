"""Keeping up: single-row commits of several writers at a set rate, and who reads them live.

Law: each reader is alone with the writers, in turn, on one server, and counts every row. What is
said of it is the CPU that it took, and how far behind it was: from the commit, as the server's
clock has it, until the application was given the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..catalogue.live import Contender
from ..measure import by_turns, run
from ..report import Spread, number, print_table
from .course import Course
from .task import KeepTask, open_session
from .workload import place_of, prepare, server

RATE: Final = 20_000
"""Commits a second, of all writers together."""

_WRITERS: Final = 4
# What it takes is not measured for longer than this, whatever --live-seconds says.
_LONGEST: Final = 10.0

_HEADINGS: Final = ("", "commits/s", "of a core", "us/commit", "behind, most", "at the end")
_LEGEND: Final = """\
commits/s: what the writers came to while it read; of a core: its CPU over the wall time; us/commit:
microseconds of its CPU for each. behind: milliseconds from the commit until the application was
given it, the most of every hundredth one, and of the last one. Medians of the rounds."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn gave: seconds of wall time and CPU, and how many milliseconds it was behind."""

    commits: int
    wall: float
    cpu: float
    behind: float
    behind_at_end: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A contender's turns."""

    contender: Contender
    turns: Sequence[Turn]

    def spread(self, of: Callable[[Turn], float]) -> Spread:
        return Spread.of(map(of, self.turns))

    @property
    def figures(self) -> dict[str, Spread]:
        return {
            "commits_per_second": self.spread(lambda turn: turn.commits / turn.wall),
            "cpu_of_wall": self.spread(lambda turn: turn.cpu / turn.wall),
            "cpu_us_per_commit": self.spread(lambda turn: turn.cpu / turn.commits * 1e6),
            "behind_ms": self.spread(lambda turn: turn.behind),
            "behind_at_end_ms": self.spread(lambda turn: turn.behind_at_end),
        }

    def as_json(self) -> dict[str, Any]:
        about = {"name": self.contender.name, "group": self.contender.group}
        figures = {name: spread.as_json() for name, spread in self.figures.items()}
        return {**about, "label": self.contender.label, **figures}


def measure_rate(
    contenders: Sequence[Contender], course: Course, *, seconds: float
) -> tuple[list[Kept], dict[str, str]]:
    """Let everybody keep up for `seconds` in all, a part of them in each round.

    Returns who did, and why the others did not. Raises `RunFailed`, `TemporaryServerError`,
    `WireError`.
    """
    each_turn = min(max(seconds / course.rounds, 1.0), _LONGEST)
    course.report(f"starting PostgreSQL {course.programs.version}")
    with server(course.programs.bin_directory, 1) as cluster:
        host, port = place_of(cluster, course.tcp), cluster.port
        idle = KeepTask(host, port, "", round(RATE * each_turn), RATE, _WRITERS)
        prepare(host, port)
        with open_session(host, port) as session:
            taken, missing = by_turns(
                contenders,
                lambda each: run(each.command(idle), each.environment),
                lambda each: _turn(each, idle, session.query),
                course.rounds,
                course.report,
            )
    return [Kept(each, taken[each.name]) for each in contenders if each.name in taken], missing


def _turn(contender: Contender, idle: KeepTask, query: Callable[[str], None]) -> Turn:
    slot = contender.name.replace("-", "_")
    query(f"TRUNCATE {idle.publication}")
    query(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    output = run(contender.command(replace(idle, slot=slot)), contender.environment).output
    query(f'DROP_REPLICATION_SLOT "{slot}" WAIT')
    return Turn(**json.loads(output))


def print_rate(kept: Sequence[Kept], title: str) -> None:
    lines: list[tuple[str, ...]] = []
    group = ""
    for each in kept:
        if each.contender.group != group:
            group = each.contender.group
            lines.append((group, *[""] * (len(_HEADINGS) - 1)))
        commits, share, cpu, behind, at_end = each.figures.values()
        cells = (number(commits.median), f"{share.median:.0%}", str(cpu))
        behind_cells = number(behind.median), number(at_end.median)
        lines.append((f"  {each.contender.label}", *cells, *behind_cells))
    if lines:
        print_table(title, _HEADINGS, lines)
        print(_LEGEND)
