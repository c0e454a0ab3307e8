"""``python -m benchmarks``: one run over the whole line-up, a table, a verdict, and JSON."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from . import callgrind
from .capture import Capture, load
from .contenders import LINE_UP, Contender, Course
from .measure import ROOT, Result, RunFailed, measure, replay_server
from .record import CaptureError, captured
from .report import as_json, print_report, rows_of, write_json
from .servers import NoServer, Server, chosen_server

_OUTPUT: Final = ROOT / "benchmarks" / "results" / "stream.json"

_MESSAGES: Final = 16_000_000
_ROUNDS: Final = 5
_QUICK_MESSAGES: Final = 4_000_000
_QUICK_ROUNDS: Final = 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--messages",
        type=int,
        help=f"how many a fast contender takes, slow ones take a part of it ({_MESSAGES})",
    )
    parser.add_argument("--rounds", type=int, help=f"how often everybody runs ({_ROUNDS})")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="contenders to run, such as 'pgrepl-c-*'; may be given again; see --list",
    )
    parser.add_argument("--list", action="store_true", help="show the contenders' names")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{_QUICK_ROUNDS} rounds of {_QUICK_MESSAGES} messages and no instruction counts: "
        "to see that all works, not to quote",
    )
    parser.add_argument(
        "--bin-directory", type=Path, help="the programs of a PostgreSQL server to record with"
    )
    parser.add_argument(
        "--output", type=Path, help=f"where the JSON goes; a whole run's is {_OUTPUT.name}"
    )
    parser.add_argument(
        "--tcp",
        action="store_true",
        help="replay over TCP on the loopback interface instead of a Unix socket",
    )
    parser.add_argument("--no-instructions", action="store_true", help="do not run valgrind")
    options = parser.parse_args(arguments)
    options.messages = options.messages or (_QUICK_MESSAGES if options.quick else _MESSAGES)
    options.rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    if options.messages < 1 or options.rounds < 1:
        parser.error("expected at least one message and one round")
    return options


def _chosen(patterns: Sequence[str] | None) -> list[Contender]:
    return [
        contender
        for contender in LINE_UP
        if patterns is None or any(fnmatch.fnmatch(contender.name, each) for each in patterns)
    ]


def _meta(
    server: Server, capture: Capture, results: Sequence[Result], options: argparse.Namespace
) -> dict[str, Any]:
    """What the figures belong to, and nothing of the machine."""
    info = capture.info
    return {
        "python": platform.python_version(),
        "pgrepl": _version_of("pgrepl"),
        "pgrepl_impl": sorted(
            {impl for each in results if (impl := each.contender.implementation)}
        ),
        "psycopg2": _version_of("psycopg2-binary") or _version_of("psycopg2"),
        "server": info.server_version,
        "pg_recvlogical": server.version,
        "transport": "tcp" if options.tcp else "unix",
        "messages": options.messages,
        "rounds": options.rounds,
        "wire_bytes_per_message": round(info.size / info.messages, 1),
        "payload_bytes_per_message": round(info.payload_size / info.messages, 1),
        "payload_bytes_per_row": round(info.row_payload_size, 1),
    }


@contextmanager
def _host(tcp: bool) -> Iterator[str]:
    """Give where to replay: the loopback address, or a folder for a Unix socket."""
    if tcp:
        yield "127.0.0.1"
    else:
        with tempfile.TemporaryDirectory(prefix="pgrepl-") as folder:
            yield folder


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _progress() -> Callable[[str], None]:
    """Return what shows the step at hand: over and over on one line where there is a terminal."""
    if not sys.stderr.isatty():
        return lambda step: None

    def show(step: str) -> None:
        print(f"\r\033[K{step}", end="", file=sys.stderr, flush=True)

    return show


def _count_instructions(path: Path, output: Path, progress: Callable[[str], None]) -> None:
    if callgrind.valgrind() is None:
        print("\nvalgrind is not installed: no instructions were counted")
        return
    try:
        counts = callgrind.count(path, progress)
    except RunFailed as failure:
        print(f"\nno instructions were counted: {failure}")
        return
    progress("")
    print()
    callgrind.print_counts(counts)
    write_json(output, callgrind.as_json(counts, path))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.list:
        print("\n".join(contender.name for contender in LINE_UP))
        return 0
    contenders = _chosen(options.only)
    if not contenders:
        print("no contender has such a name: --list shows them", file=sys.stderr)
        return 2
    progress = _progress()
    try:
        server = chosen_server(options.bin_directory)
        progress(f"recording a stream of PostgreSQL {server.version}")
        path = captured(server.bin_directory, server.version)
    except (NoServer, CaptureError) as error:
        print(error, file=sys.stderr)
        return 1
    capture = load(path)
    with _host(options.tcp) as host, replay_server(path, host) as port:
        results, missing = measure(
            contenders,
            capture,
            Course(host, port, path, server.bin_directory),
            messages=options.messages,
            rounds=options.rounds,
            report=progress,
        )
    progress("")
    meta = _meta(server, capture, results, options)
    rows = rows_of(results)
    print_report(rows, missing, _title(meta))
    is_whole = options.only is None and not options.quick
    if options.output or is_whole:
        write_json(options.output or _OUTPUT, as_json(rows, missing, meta))
    if is_whole and not options.no_instructions:
        _count_instructions(path, callgrind.OUTPUT, progress)
    return 0


def _title(meta: dict[str, Any]) -> str:
    return (
        f"Stream of PostgreSQL {meta['server']}, {meta['wire_bytes_per_message']} bytes a message, "
        f"{meta['transport']} socket; CPython {meta['python']}; {meta['rounds']} rounds"
    )


if __name__ == "__main__":
    sys.exit(main())
