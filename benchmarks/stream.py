"""Part one, the stream: what a WAL message costs, read from a replayed stream.

Law: every contender is measured in the same way, the programs that are not Python too. CPU is what
the kernel counts for the finished process. One run takes the messages, one takes none; the
difference is what the messages cost.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from .capture import Capture, load
from .catalogue.stream import FLOOR, Contender, Course
from .measure import ROOT, RunFailed, by_turns, run
from .record import captured
from .report import Spread, Verdict, number, print_missing, print_table, rounded, version_of
from .servers import Programs

OUTPUT: Final = "stream.json"

_HEADINGS: Final = ("", "ns/msg", "MB/s", "M msg/s", "psycopg2 / this", "this / bare")
_LEGEND: Final = """\
Nanoseconds of CPU a message, megabytes and millions of messages a second of CPU.
psycopg2 / this: CPU of psycopg2's callback that does the same work, over this one's.
this / bare: this CPU over that of the bare recv_into. Medians (smallest..largest) of the rounds."""


@dataclass(frozen=True, slots=True)
class Result:
    """A contender's CPU seconds in each round: `spent` for its messages, `startups` for none."""

    contender: Contender
    messages: int
    size: int
    startups: list[float]
    spent: list[float]

    @property
    def cpu_per_message(self) -> list[float]:
        """Seconds of CPU a message, of each round."""
        startup = median(self.startups)
        return [(seconds - startup) / self.messages for seconds in self.spent]


@dataclass(frozen=True, slots=True)
class Line:
    """A contender's figures. `gain` is the peer's CPU over ours, `cost` ours over the floor's."""

    result: Result
    nanoseconds: Spread
    gain: Spread | None
    cost: Spread | None

    @property
    def bytes_per_second(self) -> float | None:
        if not self.result.contender.is_on_the_wire:
            return None
        return self.result.size / self.result.messages / self.nanoseconds.median * 1e9

    def cells(self) -> tuple[str, ...]:
        wire = self.bytes_per_second
        return (
            f"  {self.result.contender.label}",
            number(self.nanoseconds.median),
            "" if wire is None else number(wire / 1e6),
            number(1e3 / self.nanoseconds.median),
            str(self.gain or ""),
            str(self.cost or ""),
        )

    def as_json(self) -> dict[str, Any]:
        contender = self.result.contender
        return {
            "name": contender.name,
            "group": contender.group,
            "label": contender.label,
            "messages": self.result.messages,
            "startup_cpu_seconds": rounded(median(self.result.startups)),
            "cpu_ns_per_message": self.nanoseconds.as_json(),
            "compared_with": contender.peer if self.gain else None,
            "times_less_cpu_than_psycopg2": self.gain.as_json() if self.gain else None,
            "times_cpu_of_bare_recv": self.cost.as_json() if self.cost else None,
        }


@contextmanager
def place_of_replay(tcp: bool) -> Iterator[str]:
    """Give where to replay: the loopback address, or a folder for a Unix socket."""
    if tcp:
        yield "127.0.0.1"
    else:
        with tempfile.TemporaryDirectory(prefix="pgrepl-") as folder:
            yield folder


@contextmanager
def replay_server(capture: Path, host: str) -> Iterator[int]:
    """Run the replay server at an address or in a folder for its Unix socket, giving its port."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.replay", str(capture), host],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            if not line:
                raise RunFailed("the replay server ended at its start")
            yield int(line)
        finally:
            server.terminate()


def _measure(
    contenders: Sequence[Contender],
    capture: Capture,
    course: Course,
    messages: int,
    rounds: int,
    report: Callable[[str], None],
) -> tuple[list[Result], dict[str, str]]:
    def cpu(contender: Contender, count: int) -> float:
        command = contender.command(count, capture.size_of(count), course)
        return run(command, contender.environment).cpu

    def turn(contender: Contender) -> tuple[float, float]:
        return cpu(contender, 0), cpu(contender, contender.count(messages))

    taken, missing = by_turns(contenders, lambda each: cpu(each, 0), turn, rounds, report)
    results = []
    for contender in contenders:
        if contender.name in taken:
            startups, spent = map(list, zip(*taken[contender.name], strict=True))
            count = contender.count(messages)
            results.append(Result(contender, count, capture.size_of(count), startups, spent))
    return results, missing


def _lines(results: Sequence[Result]) -> dict[str, Line]:
    """Return a line for each result, by the contender's name. Ratios are made round by round."""
    costs = {result.contender.name: result.cpu_per_message for result in results}

    def ratio(above: str | None, below: str | None) -> Spread | None:
        if above not in costs or below not in costs:
            return None
        return Spread.of_ratios(costs[above], costs[below])

    lines: dict[str, Line] = {}
    for result in results:
        name = result.contender.name
        lines[name] = Line(
            result,
            Spread.of(seconds * 1e9 for seconds in costs[name]),
            ratio(result.contender.peer, name),
            ratio(name, FLOOR) if result.contender.is_on_the_wire and name != FLOOR else None,
        )
    return lines


def _verdicts(lines: Mapping[str, Line]) -> list[Verdict]:
    gains = {name: line.gain for name, line in lines.items()}
    costs = {name: line.cost for name, line in lines.items()}
    return [
        Verdict(
            "iterate, headers read, at least 10x less CPU than psycopg2",
            10.0,
            gains.get("pgrepl-c-headers"),
        ),
        Verdict(
            "headers and payload as a memoryview, at least 3x less CPU than psycopg2",
            3.0,
            gains.get("pgrepl-c-everything"),
        ),
        Verdict(
            "batches, columns read, at most 1.6x the CPU of a bare recv",
            1.6,
            costs.get("pgrepl-c-columns"),
            at_least=False,
        ),
    ]


def _print(
    lines: Mapping[str, Line],
    missing: Mapping[str, str],
    verdicts: Sequence[Verdict],
    meta: Mapping[str, Any],
) -> None:
    """Print the table, who is missing from it and why, and the verdict."""
    cells: list[tuple[str, ...]] = []
    group = ""
    for line in lines.values():
        if line.result.contender.group != group:
            group = line.result.contender.group
            cells.append((group, *[""] * (len(_HEADINGS) - 1)))
        cells.append(line.cells())
    title = (
        f"Stream of PostgreSQL {meta['server']}, {meta['wire_bytes_per_message']} bytes a message, "
        f"{meta['transport']} socket; CPython {meta['python']}; {meta['rounds']} rounds"
    )
    print_table(title, _HEADINGS, cells)
    print(_LEGEND)
    print_missing(missing)
    print()
    print(*verdicts, sep="\n")


def measure_stream(
    contenders: Sequence[Contender],
    server: Programs,
    meta: Mapping[str, Any],
    *,
    messages: int,
    rounds: int,
    tcp: bool,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Record the stream if need be, measure, print; returns everything for `write_json`.

    `meta` is what is known of the programs. Raises `CaptureError`, `RunFailed`.
    """
    report(f"recording a stream of PostgreSQL {server.version}")
    path = captured(server.bin_directory, server.version)
    capture = load(path)
    with place_of_replay(tcp) as host, replay_server(path, host) as port:
        course = Course(host, port, path, server.bin_directory)
        results, missing = _measure(contenders, capture, course, messages, rounds, report)
    report("")
    info = capture.info
    meta = {
        **meta,
        "pgrepl_impl": sorted(
            {impl for each in results if (impl := each.contender.implementation)}
        ),
        "psycopg2": version_of("psycopg2-binary") or version_of("psycopg2"),
        "server": info.server_version,
        "pg_recvlogical": server.version,
        "transport": "tcp" if tcp else "unix",
        "messages": messages,
        "rounds": rounds,
        "wire_bytes_per_message": round(info.size / info.messages, 1),
        "payload_bytes_per_message": round(info.payload_size / info.messages, 1),
        "payload_bytes_per_row": round(info.row_payload_size, 1),
    }
    lines = _lines(results)
    verdicts = _verdicts(lines)
    _print(lines, missing, verdicts, meta)
    return {
        "meta": meta,
        "rows": [line.as_json() for line in lines.values()],
        "not_measured": sorted(missing),
        "targets": [verdict.as_json() for verdict in verdicts],
    }
