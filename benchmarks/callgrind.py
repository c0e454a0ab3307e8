"""Instructions a message of the native twin: ``python -m benchmarks.callgrind``, by valgrind.

Law: what is counted does not depend on the machine's mood, so this is what regressions are judged
by. The same program takes few messages and many; the difference, divided by the messages in
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
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from .capture import CYCLE_MESSAGES, load
from .measure import ROOT, RunFailed, cpu_of
from .record import CaptureError, captured
from .report import print_table, write_json
from .servers import NoServer, chosen_server

OUTPUT: Final = ROOT / "benchmarks" / "results" / "instructions.json"

# From the second cycle on, caches and free lists are filled; four more drown what is left.
_FEW: Final = 2 * CYCLE_MESSAGES
_MANY: Final = 6 * CYCLE_MESSAGES

_WORKS: Final = {
    "columns": "batches, columns read",
    "iterate": "iterate",
    "headers": "iterate, headers read",
    "payload": "iterate, msg.data",
    "decode": "Decoder.feed, no frames",
}


def valgrind() -> str | None:
    """Return the valgrind on the PATH, or None."""
    return shutil.which("valgrind")


def count(path: Path, report: Callable[[str], None]) -> dict[str, float]:
    """Return instructions a message for each kind of work. Raises `RunFailed`."""
    counts: dict[str, float] = {}
    capture = load(path)
    for work in _WORKS:
        report(f"counting instructions: {work}")
        few, many = (
            _instructions(work, messages, capture.size_of(messages), path)
            for messages in (_FEW, _MANY)
        )
        counts[work] = round((many - few) / (_MANY - _FEW), 1)
    return counts


def _instructions(work: str, messages: int, size: int, path: Path) -> int:
    program = valgrind()
    if program is None:
        raise RunFailed("valgrind is not installed")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "callgrind.out")
        command = [
            *(program, "--quiet", "--tool=callgrind", f"--callgrind-out-file={output}"),
            *(sys.executable, "-m", "benchmarks.fed", work, str(messages), str(size), str(path)),
        ]
        # Hashes differ from run to run otherwise, and with them the collisions in dictionaries.
        cpu_of(command, {"PGREPL_IMPL": "c", "PYTHONHASHSEED": "0"})
        totals = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.MULTILINE)
    if totals is None:
        raise RunFailed("expected a total in callgrind's output, found none")
    return int(totals[1])


def print_counts(counts: dict[str, float]) -> None:
    lines = [(label, f"{counts[work]:,.1f}") for work, label in _WORKS.items()]
    print_table("pgrepl native, fed from memory", ("", "instructions/message"), lines)


def as_json(counts: dict[str, float], path: Path) -> dict[str, Any]:
    """Return the counts and what they belong to, for `write_json`."""
    program = valgrind()
    assert program is not None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    info = load(path).info
    return {
        "meta": {
            "python": platform.python_version(),
            "python_compiler": platform.python_compiler(),
            "machine": platform.machine(),
            "pgrepl": version("pgrepl"),
            "impl": "c",
            "valgrind": answer.stdout.strip().removeprefix("valgrind-"),
            "server": info.server_version,
            "messages": _MANY - _FEW,
            "payload_bytes_per_message": round(info.payload_size / info.messages, 1),
        },
        "instructions_per_message": counts,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.callgrind", description=__doc__)
    parser.add_argument("--bin-directory", type=Path, help="the programs of a PostgreSQL server")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the JSON goes")
    options = parser.parse_args()
    if valgrind() is None:
        print("valgrind is not installed: no instructions are counted", file=sys.stderr)
        return 1
    try:
        server = chosen_server(options.bin_directory)
        path = captured(server.bin_directory, server.version)
        counts = count(path, lambda step: print(step, file=sys.stderr))
    except (NoServer, CaptureError, RunFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print_counts(counts)
    write_json(options.output, as_json(counts, path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
