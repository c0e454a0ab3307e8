"""Instructions of the native twin: ``python -m benchmarks.callgrind``, by valgrind.

Law: what is counted does not depend on the machine's mood, so this is what regressions are judged
by. The same program takes few messages, or rows, and many; the difference, divided by those in
between, has no start-up in it. Counts belong to one Python, one compiler and its flags: compare
them with counts made by the same.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pgrepl.testing import TemporaryServerError

from .capture import CYCLE_MESSAGES, TABLE_ROWS, CaptureInfo, load
from .measure import ROOT, RunFailed, run
from .record import CaptureError, captured, captured_rows
from .report import print_table, write_json
from .servers import Programs, chosen_server
from .tables import REFERENCE

OUTPUT: Final = "instructions.json"

# Of cycles of the workload. From the second on, caches and free lists are filled; four more drown
# what is left.
_FEW: Final = 2
_MANY: Final = 6

_WORKS: Final = {
    "columns": "batches, columns read",
    "iterate": "iterate",
    "headers": "iterate, headers read",
    "payload": "iterate, msg.data",
    "decode": "Decoder.feed, no frames",
}
_ROW_WORKS: Final = {
    "unread": "nothing read",
    "typed": "astuple()",
    "asdict": "asdict()",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Instructions a message and a row, by kind of work; of which captures."""

    a_message: dict[str, float]
    a_row: dict[str, float]
    stream: CaptureInfo
    rows: CaptureInfo


def valgrind() -> str | None:
    """Return the valgrind on the PATH, or None."""
    return shutil.which("valgrind")


def count(server: Programs, report: Callable[[str], None]) -> Counts:
    """Count, recording what is read if need be. Raises `RunFailed`, `CaptureError`."""
    path = captured(server.bin_directory, server.version)
    stream = load(path)
    form = "text"
    rows_path = captured_rows(server.bin_directory, server.version)[REFERENCE.name, form]

    def of_messages(work: str, messages: int) -> list[str]:
        size = str(stream.size_of(messages))
        return ["benchmarks.fed", work, str(messages), size, str(path)]

    def of_rows(work: str, rows: int) -> list[str]:
        decode = ["benchmarks.rows.decode", f"pgrepl-{work}", str(rows)]
        return [*decode, str(rows_path), REFERENCE.name, form]

    a_message, a_row = (
        {work: _instructions_of_one(program, work, cycle, report) for work in works}
        for program, works, cycle in (
            (of_messages, _WORKS, CYCLE_MESSAGES),
            (of_rows, _ROW_WORKS, TABLE_ROWS),
        )
    )
    return Counts(a_message, a_row, stream.info, load(rows_path).info)


def _instructions_of_one(
    program: Callable[[str, int], list[str]],
    work: str,
    cycle: int,
    report: Callable[[str], None],
) -> float:
    """Return the instructions of one more message or row, of which a cycle has so many."""
    report(f"counting instructions: {work}")
    few, many = (_instructions(program(work, cycles * cycle)) for cycles in (_FEW, _MANY))
    return round((many - few) / ((_MANY - _FEW) * cycle), 1)


def _instructions(module: Sequence[str]) -> int:
    program = valgrind()
    if program is None:
        raise RunFailed("valgrind is not installed")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "callgrind.out")
        command = [
            *(program, "--quiet", "--tool=callgrind", f"--callgrind-out-file={output}"),
            *(sys.executable, "-m", *module),
        ]
        # Hashes differ from run to run otherwise, and with them the collisions in dictionaries.
        run(command, {"PGREPL_IMPL": "c", "PYTHONHASHSEED": "0"})
        totals = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.MULTILINE)
    if totals is None:
        raise RunFailed("expected a total in callgrind's output, found none")
    return int(totals[1])


def print_counts(counts: Counts) -> None:
    title = "pgrepl native, fed from memory"
    for what, works, found in (
        ("message", _WORKS, counts.a_message),
        ("reference row as text", _ROW_WORKS, counts.a_row),
    ):
        lines = [(label, f"{found[work]:,.1f}") for work, label in works.items()]
        print_table(title, ("", f"instructions/{what}"), lines)


def as_json(counts: Counts) -> dict[str, Any]:
    """Return the counts and what they belong to, for `write_json`."""
    program = valgrind()
    assert program is not None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    info = counts.stream
    return {
        "meta": {
            "python": platform.python_version(),
            "python_compiler": platform.python_compiler(),
            "machine": platform.machine(),
            "pgrepl": version("pgrepl"),
            "impl": "c",
            "valgrind": answer.stdout.strip().removeprefix("valgrind-"),
            "server": info.server_version,
            "messages": (_MANY - _FEW) * CYCLE_MESSAGES,
            "rows": (_MANY - _FEW) * TABLE_ROWS,
            "payload_bytes_per_message": round(info.payload_size / info.messages, 1),
            "payload_bytes_per_row": round(counts.rows.row_payload_size, 1),
        },
        "instructions_per_message": counts.a_message,
        "instructions_per_row": counts.a_row,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.callgrind", description=__doc__)
    parser.add_argument("--bin-directory", type=Path, help="the programs of a PostgreSQL server")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "benchmarks" / "results" / OUTPUT,
        help="where the JSON goes",
    )
    options = parser.parse_args()
    if valgrind() is None:
        print("valgrind is not installed: no instructions are counted", file=sys.stderr)
        return 1
    try:
        counts = count(
            chosen_server(options.bin_directory), lambda step: print(step, file=sys.stderr)
        )
    except (TemporaryServerError, CaptureError, RunFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print_counts(counts)
    write_json(options.output, as_json(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
