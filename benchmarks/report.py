"""What all parts report with: spreads of the rounds, targets, tables for people, JSON."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

_WIDTH: Final = 100


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

    @classmethod
    def of_ratios(cls, above: Sequence[float], below: Sequence[float]) -> Spread | None:
        """Return the ratios round by round; None where start-up has drowned all of them."""
        pairs = zip(above, below, strict=True)
        # With too few messages start-up may come out as more than the whole.
        ratios = [a / b for a, b in pairs if a > 0 and b > 0]
        return cls.of(ratios) if ratios else None

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.min)}..{number(self.max)})"

    def as_json(self) -> dict[str, float]:
        return {name: rounded(getattr(self, name)) for name in ("median", "min", "max")}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A promise of the design held against what was measured: its text, its bound.

    `quantity` says what `measured` is: the key in the JSON. `by` tells whom it was measured
    against, where that is only known afterwards.
    """

    text: str
    bound: float
    measured: Spread | None
    at_least: bool = True
    quantity: str = "ratio"
    by: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the median is on the right side of the bound; None if nothing was measured."""
        if self.measured is None:
            return None
        if self.at_least:
            return self.measured.median >= self.bound
        return self.measured.median <= self.bound

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.text}: not measured"
        return f"{self.text}{self.by}: {self.measured}, {'ok' if self.is_met else 'missed'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.text,
            "bound": self.bound,
            self.quantity: self.measured.as_json() if self.measured else None,
            "met": self.is_met,
        }


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


def print_missing(missing: Mapping[str, str]) -> None:
    """Print who could not be measured, everybody with the same reason on one line."""
    reasons: dict[str, list[str]] = {}
    for name, reason in missing.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        print(f"not measured: {', '.join(names)}: {reason}")


def version_of(distribution: str) -> str | None:
    """Return an installed distribution's version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def number(value: float) -> str:
    """Return three significant digits, or a dash where start-up has drowned what it stands for."""
    if value <= 0:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def rounded(value: float) -> float:
    """Return four significant digits: more would be noise."""
    return float(f"{value:.4g}")
