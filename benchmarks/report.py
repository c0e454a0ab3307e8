"""What was measured, as a table for people, a verdict in a few lines, and JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from .contenders import FLOOR
from .measure import Result

_HEADINGS: Final = ("", "ns/msg", "MB/s", "M msg/s", "psycopg2 / this", "this / bare")
_WIDTH: Final = 100
_LEGEND: Final = """\
Nanoseconds of CPU a message, megabytes and millions of messages a second of CPU.
psycopg2 / this: CPU of psycopg2's callback that does the same work, over this one's.
this / bare: this CPU over that of the bare recv_into. Medians (smallest..largest) of the rounds."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of what the rounds gave, and the smallest and the largest of it."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        values = list(values)
        return cls(median(values), min(values), max(values))

    def as_json(self) -> dict[str, float]:
        return {name: _rounded(getattr(self, name)) for name in ("median", "min", "max")}


@dataclass(frozen=True, slots=True)
class Row:
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
            _number(self.nanoseconds.median),
            "" if wire is None else _number(wire / 1e6),
            _number(1e3 / self.nanoseconds.median),
            _ratio(self.gain),
            _ratio(self.cost),
        )

    def as_json(self) -> dict[str, Any]:
        contender = self.result.contender
        return {
            "name": contender.name,
            "group": contender.group,
            "label": contender.label,
            "messages": self.result.messages,
            "startup_cpu_seconds": _rounded(median(self.result.startups)),
            "cpu_ns_per_message": self.nanoseconds.as_json(),
            "compared_with": contender.peer if self.gain else None,
            "times_less_cpu_than_psycopg2": self.gain.as_json() if self.gain else None,
            "times_cpu_of_bare_recv": self.cost.as_json() if self.cost else None,
        }


@dataclass(frozen=True, slots=True)
class Target:
    """A promise of the design: a ratio of one contender, and its bound."""

    text: str
    contender: str
    ratio: Callable[[Row], Spread | None]
    bound: float
    at_least: bool

    def measured(self, rows: Mapping[str, Row]) -> Spread | None:
        row = rows.get(self.contender)
        return self.ratio(row) if row else None

    def is_met_by(self, spread: Spread) -> bool:
        """Whether the median is on the right side of the bound."""
        if self.at_least:
            return spread.median >= self.bound
        return spread.median <= self.bound

    def line(self, rows: Mapping[str, Row]) -> str:
        spread = self.measured(rows)
        if spread is None:
            return f"{self.text}: not measured"
        return f"{self.text}: {_ratio(spread)}, {'ok' if self.is_met_by(spread) else 'missed'}"

    def as_json(self, rows: Mapping[str, Row]) -> dict[str, Any]:
        spread = self.measured(rows)
        return {
            "target": self.text,
            "bound": self.bound,
            "ratio": spread.as_json() if spread else None,
            "met": self.is_met_by(spread) if spread else None,
        }


TARGETS: Final = (
    Target(
        "iterate, headers read, at least 10x less CPU than psycopg2",
        "pgrepl-c-headers",
        lambda row: row.gain,
        10.0,
        at_least=True,
    ),
    Target(
        "headers and payload as a memoryview, at least 3x less CPU than psycopg2",
        "pgrepl-c-everything",
        lambda row: row.gain,
        3.0,
        at_least=True,
    ),
    Target(
        "batches, columns read, at most 1.6x the CPU of a bare recv",
        "pgrepl-c-columns",
        lambda row: row.cost,
        1.6,
        at_least=False,
    ),
)


def rows_of(results: Sequence[Result]) -> dict[str, Row]:
    """Return a row for each result, by the contender's name. Ratios are made round by round."""
    costs = {result.contender.name: result.cpu_per_message for result in results}

    def ratio(above: str | None, below: str | None) -> Spread | None:
        if above not in costs or below not in costs:
            return None
        pairs = zip(costs[above], costs[below], strict=True)
        # With too few messages start-up may come out as more than the whole.
        ratios = [a / b for a, b in pairs if a > 0 and b > 0]
        return Spread.of(ratios) if ratios else None

    rows: dict[str, Row] = {}
    for result in results:
        name = result.contender.name
        rows[name] = Row(
            result,
            Spread.of(seconds * 1e9 for seconds in costs[name]),
            ratio(result.contender.peer, name),
            ratio(name, FLOOR) if result.contender.is_on_the_wire and name != FLOOR else None,
        )
    return rows


def print_table(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table, by rich on a terminal where it is installed, else as plain text."""
    if sys.stdout.isatty():
        try:
            from rich.box import SIMPLE_HEAD
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
            for place, heading in enumerate(headings):
                table.add_column(heading, justify="right" if place else "left", no_wrap=True)
            for line in lines:
                table.add_row(*line)
            # A narrow terminal had better break lines than lose figures.
            console = Console(width=max(Console().width, _WIDTH))
            console.print(title, table, sep="\n", highlight=False)
            return
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    print(title)
    for line in (headings, ["-" * width for width in widths], *lines):
        first, *others = zip(line, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print("  ".join(cells).rstrip())


def print_report(rows: Mapping[str, Row], missing: Mapping[str, str], title: str) -> None:
    """Print the table, who is missing from it and why, and the verdict."""
    lines: list[tuple[str, ...]] = []
    group = ""
    for row in rows.values():
        if row.result.contender.group != group:
            group = row.result.contender.group
            lines.append((group, *[""] * (len(_HEADINGS) - 1)))
        lines.append(row.cells())
    print_table(title, _HEADINGS, lines)
    print(_LEGEND)
    for name, reason in missing.items():
        print(f"not measured: {name}: {reason}")
    print()
    for target in TARGETS:
        print(target.line(rows))


def as_json(
    rows: Mapping[str, Row], missing: Mapping[str, str], meta: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that was measured, for `write_json`."""
    return {
        "meta": dict(meta),
        "rows": [row.as_json() for row in rows.values()],
        "not_measured": sorted(missing),
        "targets": [target.as_json(rows) for target in TARGETS],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _number(value: float) -> str:
    """Return three significant digits, or a dash where start-up has drowned what it stands for."""
    if value <= 0:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{_number(spread.median)} ({_number(spread.min)}..{_number(spread.max)})"


def _rounded(value: float) -> float:
    """Return four significant digits: more would be noise."""
    return float(f"{value:.4g}")
