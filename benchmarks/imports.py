"""``python -m benchmarks.imports``: what it costs to import, and to use for the first time.

A fresh interpreter for each, without `site`, which imports what an environment wants. Read the
ratios: CPU seconds are a machine's, and its load shows in them too.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from typing import Final

_ROUNDS: Final = 15
_CASES: Final = (
    "pass",
    "import psycopg2",
    "import psycopg",
    "import pgrepl",
    "import pgrepl; pgrepl.connect",
    "import pgrepl; pgrepl.AsyncConnection.connect",
)


def _cpu(code: str) -> float:
    """Return the CPU seconds of an interpreter that runs this, those of the kernel included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = f"import sys; sys.path[:0] = {[each for each in sys.path if each]!r}\n{code}"
    subprocess.run([sys.executable, "-S", "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print the medians, and how they compare with that of psycopg2."""
    seconds: dict[str, list[float]] = {code: [] for code in _CASES}
    for code in _CASES:
        _cpu(code)  # which compiles what was not compiled yet
    for _ in range(_ROUNDS):
        for code in _CASES:
            seconds[code].append(_cpu(code))
    medians = {code: statistics.median(each) for code, each in seconds.items()}
    for code, median in medians.items():
        ratio = median / medians["import psycopg2"]
        print(f"{code:48} {median * 1000:8.1f} ms CPU  {ratio:6.2f} x psycopg2")


if __name__ == "__main__":
    main()
