"""Processes, CPU and turns: each contender a process of its own, everybody once in each round.

Law: everybody runs once in each round, so that a slow minute of the machine falls on all, and
ratios are made within a round. The order is drawn for each round, since what runs right behind a
given other finds the server, the caches and the clock as that one left them. CPU is user and system
time.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

ROOT: Final = Path(__file__).parents[1]

# A guard against a hang, an order of magnitude beyond the slowest run.
_PATIENCE: Final = 600.0


class RunFailed(Exception):
    """A contender did not do its work; the text is the last line that it wrote."""


class Named(Protocol):
    """What takes turns: it has a name of its own."""

    @property
    def name(self) -> str: ...


_C = TypeVar("_C", bound=Named)
_T = TypeVar("_T")


class Finished(NamedTuple):
    """A process that has ended well: its CPU in seconds as its parent sees it, and its output."""

    cpu: float
    output: str


def run(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run a command to its end.

    Raises `RunFailed` when it ends with an error, cannot be run, or hangs.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
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
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Finished(cpu, done.stdout)


def by_turns(
    contenders: Sequence[_C],
    trial: Callable[[_C], object],
    turn: Callable[[_C], _T],
    rounds: int,
    report: Callable[[str], None],
) -> tuple[dict[str, list[_T]], dict[str, str]]:
    """Let everybody run; returns what each turn gave, and why those are missing who cannot run.

    Both are by the contender's name. A trial comes first, of everybody: modules get compiled, files
    come into the page cache, and who raises `RunFailed` takes no turns.
    """
    able: list[_C] = []
    missing: dict[str, str] = {}
    for contender in contenders:
        report(f"trying {contender.name}")
        try:
            trial(contender)
        except RunFailed as failure:
            missing[contender.name] = str(failure)
        else:
            able.append(contender)
    taken: dict[str, list[_T]] = {contender.name: [] for contender in able}
    for number in range(rounds):
        for contender in random.sample(able, len(able)):
            report(f"round {number + 1} of {rounds}: {contender.name}")
            taken[contender.name].append(turn(contender))
    return taken, missing
