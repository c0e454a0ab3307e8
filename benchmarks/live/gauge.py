"""What a measured process says of itself: wall time, CPU and memory, as one line of JSON.

Law: the clock runs from the server's answer to START_REPLICATION, which is the same moment for
every client, to the last commit. Imports, the connection and what a client asks beforehand are not
in it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from .task import DrainTask

_STATUS: Final = Path("/proc/self/status")


class Reading(NamedTuple):
    """Seconds of wall time and of CPU, user and system; bytes of memory at most, and before."""

    wall: float
    cpu: float
    peak_memory: int
    memory_before: int

    @classmethod
    def parse(cls, line: str) -> Self:
        return cls(**json.loads(line))


class Gauge:
    """Adds up what passes between `start` and `stop`, which may come again and again."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0
        self._memory_before = 0
        self._began = 0.0, 0.0

    def start(self) -> None:
        if not self._memory_before:
            self._memory_before = _peak_memory()
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        wall, cpu = self._began
        self._cpu += time.process_time() - cpu
        self._wall += time.perf_counter() - wall

    def add(self, wall: float, cpu: float) -> None:
        """Take what another process has taken."""
        self._wall += wall
        self._cpu += cpu

    def print(self) -> None:
        """Print the reading for `Reading.parse`; to be called once, when all is done."""
        reading = Reading(self._wall, self._cpu, _peak_memory(), self._memory_before)
        print(json.dumps(reading._asdict()))


def run_client(clients: Mapping[str, Callable[[DrainTask, Gauge], None]]) -> None:
    """Run the client that the command line names with its task, and print what the gauge says."""
    who, text = sys.argv[1:]
    gauge = Gauge()
    clients[who](DrainTask.parse(text), gauge)
    gauge.print()


def _peak_memory() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    # Linux hands ru_maxrss down from the process that started this one.
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
