"""What every test against a hostile server promises: nothing is left open, nothing is left running,
and what it saw did not depend on who runs it."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# uvloop's descriptors are there before a test counts them.
import tests.support.event_loops  # noqa: F401

_DESCRIPTORS = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")


def _descriptors() -> int:
    return len(list(_DESCRIPTORS.iterdir())) if _DESCRIPTORS.exists() else 0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no thread may outlive the test."""
    descriptors, threads = _descriptors(), threading.active_count()
    yield
    if _descriptors() > descriptors:
        gc.collect()  # an error that was caught holds its frames; a socket in them warns by itself
    assert _descriptors() <= descriptors
    assert threading.active_count() <= threads


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home, since a root.crt in it matters, and no PG* variables."""
    for name in os.environ:
        if name.startswith("PG") and not name.startswith("PGREPL"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder
