"""The live part of a run: measures, prints its tables and the verdict, gives the JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pgrepl.testing import TemporaryServerError

from ..measure import RunFailed
from ..report import Verdict, print_missing, version_of
from ..wire import WireError
from . import drain, latency
from .contenders import Contender, Race
from .course import Course

OUTPUT: Final = "live.json"


@dataclass(frozen=True, slots=True)
class _Findings:
    """What a race gave: lines for the JSON, who is missing and why, targets, how much was done."""

    lines: list[dict[str, Any]]
    missing: Mapping[str, str]
    verdicts: list[Verdict] = field(default_factory=list)
    amount: dict[str, float] = field(default_factory=dict)


def _drains(contenders: Sequence[Contender], course: Course, about: str, rows: int) -> _Findings:
    drained = drain.measure_drains(contenders, course, rows=rows)
    course.report("")
    rows = drained.task.rows
    drain.print_drains(drained, f"\nA real slot of {rows:,} rows, drained. {about}")
    verdicts = drain.verdicts_of_drains(drained)
    return _Findings(drain.as_json(drained), drained.missing, verdicts, {"drain_rows": rows})


def _replays(
    contenders: Sequence[Contender], course: Course, about: str, messages: int
) -> _Findings:
    drained = drain.measure_replays(contenders, course, messages=messages)
    course.report("")
    drain.print_replays(drained, f"\nThe same rows, replayed from memory. {about}")
    return _Findings(drain.as_json(drained), drained.missing, drain.verdicts_of_replays(drained))


def _latency(
    contenders: Sequence[Contender], course: Course, about: str, seconds: float
) -> _Findings:
    lines, missing = latency.measure_latency(contenders, course, seconds=seconds)
    course.report("")
    latency.print_latency(lines, f"\nLatency at {latency.RATE} commits a second. {about}")
    amount = {"latency_seconds": seconds, "commits_per_second": latency.RATE}
    return _Findings([line.as_json() for line in lines], missing, amount=amount)


def measure_live(
    contenders: Sequence[Contender],
    course: Course,
    meta: Mapping[str, Any],
    *,
    messages: int,
    rows: int,
    seconds: float,
) -> dict[str, Any]:
    """Run the races that have contenders, print; returns everything for `write_json`.

    `messages` bounds what comes from the replay server, `rows` is the load of the real one,
    `seconds` how long everybody waits for commits. `meta` is what is known of the programs. Raises
    `CaptureError`, `RunFailed`.
    """
    about = (
        f"PostgreSQL {course.programs.version}, {course.transport} socket; "
        f"CPython {meta['python']}; {course.rounds} rounds"
    )
    races: dict[Race, tuple[str, Callable[[list[Contender]], _Findings]]] = {
        "drain": ("drains", lambda each: _drains(each, course, about, rows)),
        "replay": ("replays", lambda each: _replays(each, course, about, messages)),
        "latency": ("latency", lambda each: _latency(each, course, about, seconds)),
    }
    found: dict[str, _Findings] = {}
    for race, (key, measure) in races.items():
        if chosen := [each for each in contenders if each.race == race]:
            try:
                found[key] = measure(chosen)
            except (TemporaryServerError, WireError) as error:
                raise RunFailed(str(error)) from error
            print_missing(found[key].missing)
    verdicts = [verdict for each in found.values() for verdict in each.verdicts]
    if verdicts:
        print()
        print(*verdicts, sep="\n")
    versions = {
        "psycopg2": version_of("psycopg2-binary") or version_of("psycopg2"),
        "uvloop": version_of("uvloop"),
        "server": course.programs.version,
        "transport": course.transport,
        "rounds": course.rounds,
    }
    amounts = {name: amount for each in found.values() for name, amount in each.amount.items()}
    return {
        "meta": {**meta, **versions, **amounts},
        **{key: each.lines for key, each in found.items()},
        "not_measured": sorted(name for each in found.values() for name in each.missing),
        "targets": [verdict.as_json() for verdict in verdicts],
    }
