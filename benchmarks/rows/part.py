"""The rows' part of a run: measures, prints two tables and the verdict, gives the JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from ..capture import load
from ..catalogue.rows import DECODINGS, NATIVE, PURE, Contender, name_of
from ..measure import by_turns, run
from ..record import captured_rows
from ..report import Spread, Verdict, number, print_missing, print_table, version_of
from ..servers import Programs
from ..tables import FORMATS, TABLES

OUTPUT: Final = "rows.json"

_LEGEND: Final = """\
Nanoseconds of CPU a row; x native: this CPU over that of the native twin, for the pure twin doing
the same work, for the peers reading all columns. Medians of the rounds."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured: seconds of CPU a row, of each round, by the contender's name."""

    seconds: Mapping[str, Sequence[float]]

    def nanoseconds(self, name: str) -> Spread:
        return Spread.of(each * 1e9 for each in self.seconds[name])

    def million_rows(self, name: str) -> Spread | None:
        """Millions of rows in a second of CPU."""
        if name not in self.seconds:
            return None
        return Spread.of(1e-6 / each for each in self.seconds[name])

    def ratio(self, above: str, below: str) -> Spread | None:
        if above not in self.seconds or below not in self.seconds:
            return None
        return Spread.of_ratios(self.seconds[above], self.seconds[below])

    def times_native(self, contender: Contender) -> Spread | None:
        """The contender's CPU over that of the native twin; None for the native twin itself."""
        decoding = contender.decoding
        if decoding.implementation == "c":
            return None
        table, form = contender.table.name, contender.form
        return self.ratio(contender.name, name_of(table, form, decoding.same_in_native))

    def best_typed_peer(self, table: str, form: str) -> tuple[str, Spread] | None:
        """The peer that makes typed rows for the least CPU, and its CPU over the native twin's."""
        peers = {
            name: decoding.label
            for decoding in DECODINGS
            if decoding.is_typed and decoding.implementation is None
            if (name := name_of(table, form, decoding.who)) in self.seconds
        }
        if not peers:
            return None
        best = min(peers, key=lambda name: median(self.seconds[name]))
        ratio = self.ratio(best, name_of(table, form, NATIVE))
        return (peers[best], ratio) if ratio else None


def _verdicts(figures: Figures) -> list[Verdict]:
    def rate(text: str, form: str, who: str, bound: float) -> Verdict:
        measured = figures.million_rows(name_of("reference", form, who))
        return Verdict(text, bound, measured, quantity="million_rows_per_cpu_second")

    best = figures.best_typed_peer("reference", "text")
    return [
        rate("native, nothing read, at least 2.5 M rows/s", "text", "pgrepl-c-unread", 2.5),
        rate("native, six columns typed from text, at least 1 M rows/s", "text", NATIVE, 1.0),
        rate("native, six columns typed from binary, at least 1 M rows/s", "binary", NATIVE, 1.0),
        Verdict(
            "native, six columns typed, at least 20x less CPU than the best typed peer",
            20.0,
            best[1] if best else None,
            by=f" ({best[0]})" if best else "",
        ),
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All columns of a table in a format: who else made them, over the native twin's CPU."""

    table: str
    form: str
    best_peer: str
    peer: Spread
    pure: Spread

    def cells(self) -> tuple[str, ...]:
        return f"{self.table}, {self.form}", str(self.pure), str(self.peer), self.best_peer

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "format": self.form,
            "best_typed_peer": self.best_peer,
            "best_typed_peer_times_cpu_of_native": self.peer.as_json(),
            "pure_times_cpu_of_native": self.pure.as_json(),
        }


def _comparisons(figures: Figures) -> list[Comparison]:
    """Compare wherever native, pure and a typed peer were measured."""
    found = []
    for form in FORMATS:
        for table in TABLES:
            best = figures.best_typed_peer(table, form)
            native = name_of(table, form, NATIVE)
            pure = figures.ratio(name_of(table, form, PURE), native)
            if best and pure:
                found.append(Comparison(table, form, *best, pure))
    return found


def _print_format(
    form: str, contenders: Sequence[Contender], figures: Figures, sizes: Mapping[str, float]
) -> None:
    """Print the table of one format: a line for each decoding, two columns for each table."""
    measured = {each.name: each for each in contenders if each.name in figures.seconds}
    lines: list[tuple[str, ...]] = []
    group = ""
    headings = ["", *(text for table in TABLES for text in (f"{table}, ns", "x native"))]
    for decoding in DECODINGS:
        cells = []
        for table in TABLES:
            contender = measured.get(name_of(table, form, decoding.who))
            ratio = figures.times_native(contender) if contender else None
            cells.append(number(figures.nanoseconds(contender.name).median) if contender else "")
            cells.append(number(ratio.median) if ratio else "")
        if not any(cells):
            continue
        if decoding.group != group:
            group = decoding.group
            lines.append((group, *[""] * (len(headings) - 1)))
        lines.append((f"  {decoding.label}", *cells))
    if lines:
        bytes_of = ", ".join(f"{table} {sizes[f'{table}-{form}']:g}" for table in TABLES)
        print_table(f"Rows as {form}; bytes of an Insert: {bytes_of}", headings, lines)
        print()


def _print_verdicts(verdicts: Sequence[Verdict], comparisons: Sequence[Comparison]) -> None:
    print()
    print(*verdicts, sep="\n")
    if comparisons:
        print()
        print_table(
            "All columns typed, times the CPU of the native twin",
            ("", "pure twin", "best typed peer", ""),
            [comparison.cells() for comparison in comparisons],
        )


def _as_json(contender: Contender, rows: int, figures: Figures) -> dict[str, Any]:
    decoding = contender.decoding
    ratio = figures.times_native(contender)
    return {
        "name": contender.name,
        "table": contender.table.name,
        "format": contender.form,
        "group": decoding.group,
        "label": decoding.label,
        "typed": decoding.is_typed,
        "rows": contender.count(rows),
        "cpu_ns_per_row": figures.nanoseconds(contender.name).as_json(),
        "compared_with": (
            name_of(contender.table.name, contender.form, decoding.same_in_native)
            if ratio
            else None
        ),
        "times_cpu_of_native": ratio.as_json() if ratio else None,
    }


def _measure(
    contenders: Sequence[Contender],
    captures: Mapping[tuple[str, str], Path],
    rows: int,
    rounds: int,
    report: Callable[[str], None],
) -> tuple[Figures, dict[str, str]]:
    def seconds(contender: Contender, count: int) -> float:
        return float(run(contender.command(count, captures), contender.environment).output)

    def turn(contender: Contender) -> float:
        count = contender.count(rows)
        return seconds(contender, count) / count

    taken, missing = by_turns(contenders, lambda each: seconds(each, 0), turn, rounds, report)
    return Figures(taken), missing


def measure_rows(
    contenders: Sequence[Contender],
    server: Programs,
    meta: Mapping[str, Any],
    *,
    rows: int,
    rounds: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Record the tables if need be, measure, print; returns everything for `write_json`.

    `meta` is what is known of the programs. Raises `CaptureError`, `RunFailed`.
    """
    report(f"recording tables of PostgreSQL {server.version}")
    captures = captured_rows(server.bin_directory, server.version)
    infos = {f"{table}-{form}": load(path).info for (table, form), path in captures.items()}
    figures, missing = _measure(contenders, captures, rows, rounds, report)
    report("")
    sizes = {name: round(info.row_payload_size, 1) for name, info in infos.items()}
    print(f"\nRows from memory, CPython {meta['python']}, {rounds} rounds")
    for form in FORMATS:
        _print_format(form, contenders, figures, sizes)
    print(_LEGEND)
    print_missing(missing)
    verdicts = _verdicts(figures)
    comparisons = _comparisons(figures)
    _print_verdicts(verdicts, comparisons)
    return {
        "meta": {
            **meta,
            "psycopg": version_of("psycopg"),
            "pypgoutput": version_of("pypgoutput"),
            "server": next(iter(infos.values())).server_version,
            "rows": rows,
            "rounds": rounds,
            "payload_bytes_per_row": sizes,
        },
        "rows": [
            _as_json(each, rows, figures) for each in contenders if each.name in figures.seconds
        ],
        "not_measured": sorted(missing),
        "targets": [verdict.as_json() for verdict in verdicts],
        "comparisons": [comparison.as_json() for comparison in comparisons],
    }
