"""``python -m benchmarks``: one run over all parts: the stream, the rows, live.

Each prints its tables and its verdict, and writes JSON.
"""

from __future__ import annotations

import argparse
import fnmatch
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pgrepl.testing import TemporaryServerError

from . import callgrind, stream
from .catalogue import live as live_line_up
from .catalogue import rows as row_line_up
from .catalogue import stream as stream_line_up
from .live import part as live
from .live.course import Course
from .measure import ROOT, Named, RunFailed
from .record import CaptureError
from .report import version_of, write_json
from .rows import part as rows
from .servers import Programs, chosen_server

_RESULTS: Final = ROOT / "benchmarks" / "results"

_ROUNDS: Final = 5
_MESSAGES: Final = 16_000_000
_ROWS: Final = 400_000
_LIVE_ROWS: Final = 400_000
_LIVE_SECONDS: Final = 20
_QUICK_ROUNDS: Final = 2
_QUICK_MESSAGES: Final = 4_000_000
_QUICK_ROWS: Final = 40_000
_QUICK_LIVE_ROWS: Final = 60_000
_QUICK_LIVE_SECONDS: Final = 3

_C = TypeVar("_C", bound=Named)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--messages",
        type=int,
        help=f"how many a fast contender takes, slow ones take a part of it ({_MESSAGES})",
    )
    parser.add_argument(
        "--rows",
        type=int,
        help=f"how many reference rows a fast contender takes, others accordingly ({_ROWS})",
    )
    parser.add_argument(
        "--live-rows",
        type=int,
        help=f"how many rows of a real server to drain, in transactions of 10 000 ({_LIVE_ROWS})",
    )
    parser.add_argument(
        "--live-seconds",
        type=int,
        help=f"how long everybody waits for commits, in all rounds ({_LIVE_SECONDS})",
    )
    parser.add_argument("--rounds", type=int, help=f"how often everybody runs ({_ROUNDS})")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="a part, stream, rows or live, or contenders, such as 'pgrepl-c-*' or "
        "'live-single-*'; may be given again; see --list",
    )
    parser.add_argument("--list", action="store_true", help="show the contenders' names")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{_QUICK_ROUNDS} rounds, a part of the messages and rows, no instruction counts: "
        "to see that all works, not to quote",
    )
    parser.add_argument(
        "--bin-directory", type=Path, help="the programs of a PostgreSQL server to record with"
    )
    parser.add_argument(
        "--output", type=Path, help="folder for the JSON, of whatever was run; see README.md"
    )
    parser.add_argument(
        "--tcp",
        action="store_true",
        help="the stream: replay over TCP on the loopback interface instead of a Unix socket",
    )
    parser.add_argument(
        "--unix",
        action="store_true",
        help="live: drain over a Unix socket instead of TCP on the loopback interface",
    )
    parser.add_argument("--no-instructions", action="store_true", help="do not run valgrind")
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    quick = options.quick
    for name, usual, little in (
        ("rounds", _ROUNDS, _QUICK_ROUNDS),
        ("messages", _MESSAGES, _QUICK_MESSAGES),
        ("rows", _ROWS, _QUICK_ROWS),
        ("live_rows", _LIVE_ROWS, _QUICK_LIVE_ROWS),
        ("live_seconds", _LIVE_SECONDS, _QUICK_LIVE_SECONDS),
    ):
        if getattr(options, name) is None:
            setattr(options, name, little if quick else usual)
        if getattr(options, name) < 1:
            option = name.replace("_", "-")
            parser.error(f"expected --{option} to be 1 or more, got {getattr(options, name)}")
    return options


def _chosen(part: str, line_up: Sequence[_C], patterns: Sequence[str] | None) -> list[_C]:
    if patterns is None or part in patterns:
        return list(line_up)
    return [
        contender
        for contender in line_up
        if any(fnmatch.fnmatch(contender.name, pattern) for pattern in patterns)
    ]


def _progress() -> Callable[[str], None]:
    """Return what shows the step at hand: over and over on one line where there is a terminal."""
    if not sys.stderr.isatty():
        return lambda step: None

    def show(step: str) -> None:
        print(f"\r\033[K{step}", end="", file=sys.stderr, flush=True)

    return show


def _run(server: Programs, options: argparse.Namespace, progress: Callable[[str], None]) -> bool:
    """Run what was chosen of all parts; returns False where nothing was."""
    meta = {"python": platform.python_version(), "pgrepl": version_of("pgrepl")}
    of_stream = _chosen("stream", stream_line_up.LINE_UP, options.only)
    of_rows = _chosen("rows", row_line_up.LINE_UP, options.only)
    of_live = _chosen("live", live_line_up.LINE_UP, options.only)

    def keep(name: str, found: dict[str, Any], is_whole: bool) -> None:
        if options.output or (is_whole and not options.quick):
            write_json((options.output or _RESULTS) / name, found)

    rounds = options.rounds
    if of_stream:
        found = stream.measure_stream(
            *(of_stream, server, meta),
            messages=options.messages,
            rounds=rounds,
            tcp=options.tcp,
            report=progress,
        )
        keep(stream.OUTPUT, found, len(of_stream) == len(stream_line_up.LINE_UP))
    if of_rows:
        found = rows.measure_rows(
            of_rows, server, meta, rows=options.rows, rounds=rounds, report=progress
        )
        keep(rows.OUTPUT, found, len(of_rows) == len(row_line_up.LINE_UP))
    if of_live:
        found = live.measure_live(
            *(of_live, Course(server, rounds, not options.unix, progress), meta),
            messages=options.messages,
            rows=options.live_rows,
            seconds=options.live_seconds,
        )
        keep(live.OUTPUT, found, len(of_live) == len(live_line_up.LINE_UP))
    return bool(of_stream or of_rows or of_live)


def _count_instructions(server: Programs, folder: Path, progress: Callable[[str], None]) -> None:
    if callgrind.valgrind() is None:
        print("\nvalgrind is not installed: no instructions were counted")
        return
    try:
        counts = callgrind.count(server, progress)
    except RunFailed as failure:
        print(f"\nno instructions were counted: {failure}")
        return
    progress("")
    print()
    callgrind.print_counts(counts)
    write_json(folder / callgrind.OUTPUT, callgrind.as_json(counts))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.list:
        for line_up in (stream_line_up.LINE_UP, row_line_up.LINE_UP, live_line_up.LINE_UP):
            print(*(each.name for each in line_up), sep="\n")
        return 0
    progress = _progress()
    try:
        server = chosen_server(options.bin_directory)
        if not _run(server, options, progress):
            print("no part and no contender has such a name: see --list", file=sys.stderr)
            return 2
        is_whole = options.only is None and not options.quick
        if is_whole and not options.no_instructions:
            _count_instructions(server, options.output or _RESULTS, progress)
    except (TemporaryServerError, CaptureError, RunFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
