"""The live part of a run: measures, prints its tables and the verdict, gives the JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pgrepl.testing import TemporaryServerError

from ..catalogue.live import TRANSPORTS, Contender, Race
from ..measure import RunFailed
from ..report import Verdict, print_missing, version_of
from ..wire import WireError
from . import drain, latency, rate
from .course import Course

OUTPUT: Final = "live.json"


@dataclass(frozen=True, slots=True)
class _Findings:
    """What a race gave: lines for the JSON, who is missing and why, targets, how much was done."""

    lines: list[dict[str, Any]]
    missing: dict[str, str]
    verdicts: list[Verdict] = field(default_factory=list)
    amount: dict[str, float] = field(default_factory=dict)


def _drains(contenders: Sequence[Contender], course: Course, about: str, rows: int) -> _Findings:
    found = _Findings([], {})
    for drained in drain.measure_drains(contenders, course, rows=rows):
        course.report("")
        task, shape = drained.task, drained.contenders[0].course
        size = task.rows // task.transactions
        load = f"{task.transactions:,} transactions, each of {size:,} row{'s'[: size - 1]}"
        drain.print_drains(drained, f"\nA real slot of {load}, drained. {about}")
        found.lines.extend(drain.as_json(drained))
        found.missing.update(drained.missing)
        found.verdicts.extend(drain.verdicts_of_drains(drained))
        found.amount[f"{shape}_rows"] = task.rows
    return found


def _replays(
    contenders: Sequence[Contender], course: Course, about: str, messages: int
) -> _Findings:
    drained = drain.measure_replays(contenders, course, messages=messages)
    course.report("")
    drain.print_replays(drained, f"\nThe same rows, replayed from memory. {about}")
    verdicts = drain.verdicts_of_replays(drained)
    return _Findings(drain.as_json(drained), dict(drained.missing), verdicts)


def _latency(
    contenders: Sequence[Contender], course: Course, about: str, seconds: float
) -> _Findings:
    found = _Findings([], {})
    for transport in TRANSPORTS:
        chosen = [each for each in contenders if each.course == f"latency-{transport}"]
        if not chosen:
            continue
        lines, missing = latency.measure_latency(
            chosen, replace(course, tcp=transport == "tcp"), seconds=seconds
        )
        course.report("")
        title = f"\nLatency at {latency.RATE} commits a second, {transport} socket. {about}"
        latency.print_latency(lines, title)
        found.lines.extend(line.as_json() for line in lines)
        found.missing.update(missing)
    found.amount.update(latency_seconds=seconds, commits_per_second=latency.RATE)
    return found


def _rate(contenders: Sequence[Contender], course: Course, about: str, seconds: float) -> _Findings:
    kept, missing = rate.measure_rate(contenders, course, seconds=seconds)
    course.report("")
    rate.print_rate(kept, f"\n{rate.RATE:,} one-row commits a second, wanted. {about}")
    return _Findings([each.as_json() for each in kept], missing, amount={"rate": rate.RATE})


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
        f"PostgreSQL {course.programs.version} over {course.transport}; "
        f"CPython {meta['python']}; {course.rounds} rounds"
    )
    races: dict[Race, tuple[str, Callable[[list[Contender]], _Findings]]] = {
        "drain": ("drains", lambda each: _drains(each, course, about, rows)),
        "replay": ("replays", lambda each: _replays(each, course, about, messages)),
        "latency": ("latency", lambda each: _latency(each, course, about, seconds)),
        "rate": ("rate", lambda each: _rate(each, course, about, seconds)),
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
