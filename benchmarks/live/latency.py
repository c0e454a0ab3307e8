"""Latency: how long after a row was sent to the server the application holds its value.

Law: each reader is alone with the writer, in turn, on one server. The clock starts before the
INSERT is sent, so that the commit itself is in every figure, and in the same way in each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any, Final

from ..catalogue.live import Contender
from ..measure import by_turns, run
from ..report import Spread, number, print_table
from .course import Course
from .task import WaitTask, open_session
from .workload import place_of, server

RATE: Final = 1000
"""Commits a second."""

_WARM_UP_SECONDS: Final = 0.5

_DECLARATION: Final = f"CREATE TABLE {WaitTask.publication} (id bigint PRIMARY KEY, sent bigint)"

_HEADINGS: Final = ("", "p50", "p99", "max", "commit p50", "rows/s")
_LEGEND: Final = """\
Microseconds from before the INSERT is sent until the application holds the value, the commit
included; commit p50: until the server told the writer that it is done. p50 and p99: medians
(smallest..largest) of the rounds; max: of all rows."""


@dataclass(frozen=True, slots=True)
class Waited:
    """What one turn gave: nanoseconds of each row and of each of the writer's commits, its pace."""

    latencies: list[int]
    commits: list[int]
    rate: float

    def percentile(self, percent: int) -> float:
        """Return the microseconds that so many in a hundred rows did not exceed."""
        return quantiles(self.latencies, n=100, method="inclusive")[percent - 1] / 1e3

    @property
    def commit(self) -> float:
        """Microseconds of the writer's commit, the median."""
        return quantiles(self.commits, n=2, method="inclusive")[0] / 1e3


@dataclass(frozen=True, slots=True)
class Line:
    """A contender's figures in microseconds: of each round, and the largest of all."""

    contender: Contender
    turns: Sequence[Waited]

    @property
    def p50(self) -> Spread:
        return Spread.of(turn.percentile(50) for turn in self.turns)

    @property
    def p99(self) -> Spread:
        return Spread.of(turn.percentile(99) for turn in self.turns)

    @property
    def largest(self) -> float:
        return max(max(turn.latencies) for turn in self.turns) / 1e3

    @property
    def commit(self) -> Spread:
        return Spread.of(turn.commit for turn in self.turns)

    @property
    def rate(self) -> Spread:
        return Spread.of(turn.rate for turn in self.turns)

    @property
    def rows(self) -> int:
        return sum(len(turn.latencies) for turn in self.turns)

    def cells(self) -> tuple[str, ...]:
        middle = (number(self.largest), number(self.commit.median), number(self.rate.median))
        return str(self.p50), str(self.p99), *middle

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.contender.name,
            "group": self.contender.group,
            "label": self.contender.label,
            "rows": self.rows,
            "p50_us": self.p50.as_json(),
            "p99_us": self.p99.as_json(),
            "max_us": round(self.largest),
            "commit_p50_us": self.commit.as_json(),
            "rows_per_second": self.rate.as_json(),
        }


def measure_latency(
    contenders: Sequence[Contender], course: Course, *, seconds: float
) -> tuple[list[Line], Mapping[str, str]]:
    """Let everybody wait for `seconds` in all, a part of them in each round; returns who did, and
    why the others did not. Raises `RunFailed`, `TemporaryServerError`, `WireError`.
    """
    warm_up = round(RATE * _WARM_UP_SECONDS)
    rows = warm_up + max(100, round(RATE * seconds / course.rounds))
    programs = course.programs
    course.report(f"starting PostgreSQL {programs.version}")
    with server(programs.bin_directory, 1) as cluster:
        host, port = place_of(cluster, course.tcp), cluster.port
        idle = WaitTask(
            *(host, port, "", rows, warm_up, RATE),
            str(programs.bin_directory / "pg_recvlogical"),
        )
        with open_session(host, port) as session:
            session.query(_DECLARATION)
            publication = idle.publication
            session.query(f"CREATE PUBLICATION {publication} FOR TABLE {publication}")
            taken, missing = by_turns(
                contenders,
                lambda each: run(each.command(idle), each.environment),
                lambda each: _turn(each, idle, session.query),
                course.rounds,
                course.report,
            )
    return [Line(each, taken[each.name]) for each in contenders if each.name in taken], missing


def _turn(contender: Contender, idle: WaitTask, query: Callable[[str], None]) -> Waited:
    """Empty the table, make a slot, and let a reader wait at it."""
    slot = contender.name.replace("-", "_")
    query(f"TRUNCATE {idle.publication}")
    query(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    task = replace(idle, slot=slot, max_delay=contender.max_delay)
    output = run(contender.command(task), contender.environment).output
    query(f'DROP_REPLICATION_SLOT "{slot}" WAIT')
    return Waited(**json.loads(output))


def print_latency(lines: Sequence[Line], title: str) -> None:
    cells: list[tuple[str, ...]] = []
    group = ""
    for line in lines:
        if line.contender.group != group:
            group = line.contender.group
            cells.append((group, *[""] * (len(_HEADINGS) - 1)))
        cells.append((f"  {line.contender.label}", *line.cells()))
    if cells:
        print_table(title, _HEADINGS, cells)
        print(_LEGEND)
