"""How CPU is measured: each contender a process of its own, by turns, its start-up taken off.

Law: every contender is measured in the same way, the programs that are not Python too. CPU is the
user and system time that the kernel counts for the finished process. One run takes the messages,
one takes none; the difference is what the messages cost. Rounds go A B C ... A B C ..., so that a
slow minute of the machine falls on all, and ratios are made within a round.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from .capture import Capture
from .contenders import Contender, Course

ROOT: Final = Path(__file__).parents[1]

# A guard against a hang, an order of magnitude beyond the slowest run.
_PATIENCE: Final = 600.0


class RunFailed(Exception):
    """A contender did not do its work; the text is the last line that it wrote."""


@dataclass(frozen=True, slots=True)
class Result:
    """A contender's CPU seconds in each round: `spent` for its messages, `startups` for none."""

    contender: Contender
    messages: int
    size: int
    spent: list[float] = field(default_factory=list)
    startups: list[float] = field(default_factory=list)

    @property
    def cpu_per_message(self) -> list[float]:
        """Seconds of CPU a message, of each round."""
        startup = median(self.startups)
        return [(seconds - startup) / self.messages for seconds in self.spent]


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


def cpu_of(command: Sequence[str], environment: dict[str, str]) -> float:
    """Run a command to its end and return its user and system time in seconds.

    Raises `RunFailed` when it ends with an error, cannot be run, or hangs.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except OSError as error:
        raise RunFailed(f"it cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise RunFailed(f"it has not ended after {_PATIENCE:g} s") from None
    # Only a child that was waited for is counted, and this is the only one meanwhile.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise RunFailed(lines[-1])
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(
    contenders: Sequence[Contender],
    capture: Capture,
    course: Course,
    *,
    messages: int,
    rounds: int,
    report: Callable[[str], None],
) -> tuple[list[Result], dict[str, str]]:
    """Let everybody run; returns the results, and for those who could not run the reason."""
    results: list[Result] = []
    missing: dict[str, str] = {}
    for contender in contenders:
        report(f"trying {contender.name}")
        count = max(1, round(messages * contender.share))
        result = Result(contender, count, capture.size_of(count))
        try:
            # Once for nothing: modules get compiled, files come into the page cache.
            _run(result, 0, capture, course)
        except RunFailed as failure:
            missing[contender.name] = str(failure)
        else:
            results.append(result)
    for turn in range(rounds):
        for result in results:
            report(f"round {turn + 1} of {rounds}: {result.contender.name}")
            result.startups.append(_run(result, 0, capture, course))
            result.spent.append(_run(result, result.messages, capture, course))
    return results, missing


def _run(result: Result, messages: int, capture: Capture, course: Course) -> float:
    command = result.contender.command(messages, capture.size_of(messages), course)
    return cpu_of(command, result.contender.environment)
