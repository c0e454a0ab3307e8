"""The `pgrepl` program as its users run it: a process, with an output and an exit status."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

from tests.live.streams import PATIENCE

PROGRAM: Final = (sys.executable, "-m", "pgrepl")


def run(*words: str) -> tuple[int, str, str]:
    """Exit status, output and complaint."""
    ended = subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE * 2,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def output(*words: str) -> str:
    """What a run prints that must succeed."""
    status, out, err = run(*words)
    assert (status, err) == (0, "")
    return out


def answer(*words: str) -> Any:
    """The JSON of a run that must succeed."""
    return json.loads(output(*words, "--json"))


def complaint(*words: str, status: int = 1) -> str:
    """The one line of a run that must fail."""
    got, out, err = run(*words)
    assert (got, out) == (status, "")
    assert re.fullmatch(r"pgrepl: [^\n]+\n", err)
    return err


@contextlib.contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A run that the test takes part in; it is killed if the test leaves it running."""
    process = subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def on_terminal(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run that has a terminal, and the other end of it."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        # So that Ctrl-C is for it.
        preexec_fn=_take_terminal,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(its)
    with process:
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def _take_terminal() -> None:
    os.close(os.open(os.ttyname(0), os.O_RDWR))


def read_until(terminal: int, words: str) -> str:
    """What is shown, up to some words."""
    shown = ""
    while words not in shown:
        shown += os.read(terminal, 4096).decode()
    return shown
