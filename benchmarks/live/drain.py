"""Drains: from START_REPLICATION to the last commit, of a real server's slot and of the replay.

On the real server wall time is what counts. On the replay server it is CPU: the same bytes come as
fast as anybody can take them, so that an event loop's share can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from ..capture import load as load_capture
from ..catalogue.live import FLOOR, FLOOR_AGAIN, Contender
from ..measure import by_turns, run
from ..record import captured
from ..replay import SLOT_PREFIX
from ..report import Spread, Verdict, number, print_table
from ..stream import place_of_replay, replay_server
from ..tables import FIRST_ID
from ..wire import FRAME_HEADER, XLOGDATA_HEADER
from .course import Course
from .gauge import Reading
from .task import DrainTask
from .workload import SHAPES, end_lsn_of, load, place_of, prepare, server

_MEBIBYTE: Final = 1 << 20

_DRAIN_HEADINGS: Final = ("", "us/msg", "psycopg2 / this", "seconds", "wall / bare", "MiB", "grown")
_DRAIN_LEGEND: Final = """\
us/msg: microseconds of the client's CPU a message, from START_REPLICATION to the last commit;
psycopg2 / this: the CPU of psycopg2 reading the payload over this one's, in the round. wall / bare:
over the mean of the two bare drains of the round. MiB: its memory at most, and by how much that
grew in the drain. Medians (smallest..largest) of the rounds."""

_REPLAY_HEADINGS: Final = ("", "ns/msg", "M msg/s", "blocking / this")
_REPLAY_LEGEND: Final = """\
Nanoseconds of CPU a message and millions of messages a second of CPU, on the same replayed bytes.
blocking / this: CPU of the blocking contender with the same work over this one's, in the round."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What a race gave: each contender's readings, round by round, by its name, and who has none.

    `task` is what they all had to do, `messages` how many each took.
    """

    contenders: Sequence[Contender]
    task: DrainTask
    messages: Mapping[str, int]
    readings: Mapping[str, Sequence[Reading]]
    missing: Mapping[str, str]

    @property
    def measured(self) -> list[Contender]:
        """The contenders with readings, those of a group together."""
        groups = list(dict.fromkeys(each.group for each in self.contenders))
        measured = [each for each in self.contenders if each.name in self.readings]
        return sorted(measured, key=lambda each: groups.index(each.group))

    def spread(self, name: str, of: Callable[[Reading], float]) -> Spread:
        return Spread.of(map(of, self.readings[name]))

    def times_floor(self, name: str) -> Spread | None:
        """Return the wall time over that of the bare drain, of both of them in the round."""
        named = (self.contenders[0].name_of(each) for each in (FLOOR, FLOOR_AGAIN))
        floors = [self.readings[each] for each in named if each in self.readings]
        if name not in self.readings or not floors:
            return None
        seconds = [fmean(map(_wall, both)) for both in zip(*floors, strict=True)]
        return Spread.of_ratios([each.wall for each in self.readings[name]], seconds)

    def cpu_of_blocking(self, contender: Contender) -> Spread | None:
        """Return the CPU of the blocking contender with the same work over that of this one."""
        if contender.blocking is None:
            return None
        return self.cpu_of(contender.blocking, contender.who)

    def cpu_of(self, who: str, over: str) -> Spread | None:
        """Return the CPU of one contender over that of another, in each round."""
        name_of = self.contenders[0].name_of
        above, below = self.readings.get(name_of(who)), self.readings.get(name_of(over))
        if above is None or below is None:
            return None
        return Spread.of_ratios([each.cpu for each in above], [each.cpu for each in below])


def _wall(reading: Reading) -> float:
    return reading.wall


def _cpu(reading: Reading) -> float:
    return reading.cpu


def _memory(reading: Reading) -> float:
    return reading.peak_memory / _MEBIBYTE


def _growth(reading: Reading) -> float:
    # The kernel counts in portions, so that it may seem to have shrunk.
    return max(0, reading.peak_memory - reading.memory_before) / _MEBIBYTE


def _race(
    contenders: Sequence[Contender],
    task: Callable[[Contender, int], DrainTask],
    idle: DrainTask,
    course: Course,
) -> tuple[dict[str, list[Reading]], dict[str, str]]:
    """Let everybody drain by turns; `task` is told the contender and the round."""
    numbers = {each.name: iter(range(course.rounds)) for each in contenders}

    def reading(contender: Contender, task: DrainTask) -> Reading:
        return Reading.parse(run(contender.command(task), contender.environment).output)

    def turn(contender: Contender) -> Reading:
        return reading(contender, task(contender, next(numbers[contender.name])))

    return by_turns(
        contenders, lambda each: reading(each, idle), turn, course.rounds, course.report
    )


def measure_drains(
    contenders: Sequence[Contender], course: Course, *, rows: int
) -> Iterator[Drained]:
    """Drain a real server's slots, shape by shape. Raises `RunFailed`, `TemporaryServerError`,
    `WireError`."""

    def slot_of(contender: Contender, number: int) -> str:
        return f"{contender.name}_{number}".replace("-", "_")

    course.report(f"starting PostgreSQL {course.programs.version}")
    with server(course.programs.bin_directory, len(contenders) * course.rounds) as cluster:
        place = place_of(cluster, course.tcp)
        prepare(place, cluster.port)
        for shape in SHAPES.values():
            chosen = [each for each in contenders if each.course == shape.name]
            if not chosen:
                continue
            slots = [slot_of(each, number) for each in chosen for number in range(course.rounds)]
            course.report(f"making {len(slots)} slots, writing transactions of {shape.size} rows")
            idle = replace(
                load(place, cluster.port, slots, shape, rows),
                pg_recvlogical=str(course.programs.bin_directory / "pg_recvlogical"),
            )

            def task(each: Contender, number: int, idle: DrainTask = idle) -> DrainTask:
                return replace(idle, slot=slot_of(each, number))

            readings, missing = _race(chosen, task, idle, course)
            yield Drained(chosen, idle, dict.fromkeys(readings, idle.messages), readings, missing)


def measure_replays(contenders: Sequence[Contender], course: Course, *, messages: int) -> Drained:
    """Drain the replay server, the whole recording again and again.

    A decoded stream cannot go through the recording twice, since commits come in order; it begins
    anew each time. Raises `RunFailed`, `CaptureError`.
    """
    programs = course.programs
    course.report(f"recording a stream of PostgreSQL {programs.version}")
    path = captured(programs.bin_directory, programs.version)
    with place_of_replay(course.tcp) as host, replay_server(path, host) as port:
        whole = _recording(path, host, port)
        passes = {
            each.name: max(1, round(messages * each.share / whole.messages)) for each in contenders
        }
        readings, missing = _race(
            contenders,
            lambda each, number: replace(whole, passes=passes[each.name]),
            replace(whole, slot=""),
            course,
        )
    counts = {name: passes[name] * whole.messages for name in readings}
    return Drained(contenders, whole, counts, readings, missing)


def _recording(path: Path, host: str, port: int) -> DrainTask:
    """Return the task of taking the whole recording once."""
    capture = load_capture(path)
    info = capture.info
    starts = [0, *capture.ends[:-1]]
    header = FRAME_HEADER + XLOGDATA_HEADER
    transactions = sum(capture.stream[start + header] == ord("C") for start in starts)
    last = capture.stream[starts[-1] + header :]
    return DrainTask(
        *(host, port, f"{SLOT_PREFIX}{info.messages}"),
        rows=info.rows,
        last_id=FIRST_ID + info.rows - 1,
        size=info.size,
        messages=info.messages,
        transactions=transactions,
        last_commit=last.hex(),
        end_lsn=end_lsn_of(last),
    )


# What is said of it


def print_drains(drained: Drained, title: str) -> None:
    lines: list[tuple[str, ...]] = []
    for contender in drained.measured:
        name = contender.name
        cells = (
            number(_cpu_per_message(drained, name).median / 1e3),
            str(drained.cpu_of("psycopg2", contender.who) or ""),
            number(drained.spread(name, _wall).median),
            str(drained.times_floor(name) or ""),
            number(drained.spread(name, _memory).median),
            f"{drained.spread(name, _growth).median:.1f}",
        )
        _add(lines, contender, cells)
    if lines:
        print_table(title, _DRAIN_HEADINGS, lines)
        print(_DRAIN_LEGEND)


def print_replays(drained: Drained, title: str) -> None:
    lines: list[tuple[str, ...]] = []
    for contender in drained.measured:
        name = contender.name
        nanoseconds = _cpu_per_message(drained, name)
        ratio = drained.cpu_of_blocking(contender)
        cells = number(nanoseconds.median), number(1e3 / nanoseconds.median), str(ratio or "")
        _add(lines, contender, cells)
    if lines:
        print_table(title, _REPLAY_HEADINGS, lines)
        print(_REPLAY_LEGEND)


def _add(lines: list[tuple[str, ...]], contender: Contender, cells: tuple[str, ...]) -> None:
    """Add a line to a table, below its group's name where it is the first of that."""
    if not any(line[0] == contender.group for line in lines):
        lines.append((contender.group, *[""] * len(cells)))
    lines.append((f"  {contender.label}", *cells))


def _cpu_per_message(drained: Drained, name: str) -> Spread:
    messages = drained.messages[name]
    return Spread.of(each.cpu / messages * 1e9 for each in drained.readings[name])


# How many times less CPU than psycopg2 that reads the payload: raw messages, typed rows with acks.
_TARGETS: Final = {"large": (4, 2), "single": (3, 2)}


def verdicts_of_drains(drained: Drained) -> list[Verdict]:
    course = drained.contenders[0].course
    verdicts = []
    if course in _TARGETS:
        for who, label, bound in zip(
            ("pgrepl-payloads", "pgrepl-typed", "pgrepl-batches"),
            ("raw messages", "typed rows with acks", "batches of them"),
            (_TARGETS[course][0], *[_TARGETS[course][1]] * 2),
            strict=True,
        ):
            text = f"{course} transactions, {label}, at least {bound}x less CPU than psycopg2"
            verdicts.append(Verdict(text, bound, drained.cpu_of("psycopg2", who)))
    if course == "single":
        text = "single transactions, batches() at most 1x the CPU of transactions()"
        ratio = drained.cpu_of("pgrepl-batches", "pgrepl-typed")
        verdicts.append(Verdict(text, 1.0, ratio, at_least=False))
    if course == "large":
        for work, call in (("typed", "transactions()"), ("batches", "batches()")):
            text = f"large transactions, {call}, wall at most 1.05x of the bare drain"
            ratio = drained.times_floor(drained.contenders[0].name_of(f"pgrepl-{work}"))
            verdicts.append(Verdict(text, 1.05, ratio, at_least=False))
    return verdicts


def verdicts_of_replays(drained: Drained) -> list[Verdict]:
    return [
        Verdict(
            f"asyncio, {contender.label}, at least 0.8x of blocking",
            0.8,
            drained.cpu_of_blocking(contender),
        )
        for contender in drained.contenders
        if contender.work.startswith("asyncio-")
    ]


def as_json(drained: Drained) -> list[dict[str, Any]]:
    """Return a line for each contender."""
    lines = []
    for contender in drained.measured:
        name = contender.name
        floor = drained.times_floor(name)
        blocking = drained.cpu_of_blocking(contender)
        lines.append(
            {
                "name": name,
                "group": contender.group,
                "label": contender.label,
                "messages": drained.messages[name],
                "wall_seconds": drained.spread(name, _wall).as_json(),
                "cpu_seconds": drained.spread(name, _cpu).as_json(),
                "cpu_ns_per_message": _cpu_per_message(drained, name).as_json(),
                "times_wall_of_bare_drain": _json(floor),
                "psycopg2_cpu_over_this": _json(drained.cpu_of("psycopg2", contender.who)),
                "compared_with": contender.blocking if blocking else None,
                "blocking_cpu_over_this": _json(blocking),
                "peak_memory_bytes": _bytes(drained, name, lambda each: each.peak_memory),
                "memory_before_bytes": _bytes(drained, name, lambda each: each.memory_before),
            }
        )
    return lines


def _json(spread: Spread | None) -> dict[str, float] | None:
    return spread.as_json() if spread else None


def _bytes(drained: Drained, name: str, of: Callable[[Reading], int]) -> int:
    return round(median(map(of, drained.readings[name])))
