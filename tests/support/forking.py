"""A forked child of the test's process, as `os.fork` and multiprocessing make them."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Final, TypeVar

import pytest

__all__ = ["in_child", "unwinding"]

T = TypeVar("T")
_PATIENCE: Final = 20.0


def in_child(work: Callable[[], object]) -> None:
    """Do some work in a forked child, which ends without looking back; what it raises is the
    test's, and so is what it writes to standard error."""
    if not hasattr(os, "fork"):
        pytest.skip("nothing forks on this system")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # From 3.12 on, since the threads of the parent are not in the child. That is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        _child(work, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if told or status:
        pytest.fail(f"the child ended with {status}: {told}")


def _child(work: Callable[[], object], writing: int) -> None:
    status = 1
    try:
        os.dup2(writing, 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - ends with the process
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def unwinding(work: Callable[[Callable[[], None]], T]) -> T:
    """Do some work that calls what it is given, which forks, the first time: the child exits there
    and then, back through everything that has begun. Returns the parent's result."""
    children: list[int] = []

    def fork() -> None:
        if children:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            children.append(os.fork())
        if not children[0]:
            sys.exit()
        _expect_to_end(children[0])

    try:
        return work(fork)
    except SystemExit:
        os._exit(0)
    finally:
        if children == [0]:
            traceback.print_exc()
            os._exit(1)


def _expect_to_end(child: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs on its way back")
        time.sleep(0.01)
    assert ended[1] == 0
