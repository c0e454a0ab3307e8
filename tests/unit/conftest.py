"""How Hypothesis runs here, where conninfos are read, and what the program's tests write to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from pgrepl.cli.delivering.output import Output
from tests.support.conninfos import no_surroundings

# No test asserts a time, and on a busy machine any example may take long.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither variables nor files that say where to connect."""
    with no_surroundings(tmp_path_factory.mktemp("empty")):
        yield


@pytest.fixture
def pipe() -> Iterator[tuple[int, Output]]:
    """The reading end of a pipe, and an output on the writing end."""
    reader, writer = os.pipe()
    yield reader, Output(writer)
    with contextlib.suppress(OSError):  # a test may have closed it
        os.close(reader)
    os.close(writer)
