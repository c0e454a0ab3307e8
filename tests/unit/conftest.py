"""How Hypothesis runs here, and what several tests of the program write to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from pgrepl.cli.output import Output

# No test asserts a time, and on a busy machine any example may take long.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def pipe() -> Iterator[tuple[int, Output]]:
    """The reading end of a pipe, and an output on the writing end."""
    reader, writer = os.pipe()
    yield reader, Output(writer)
    with contextlib.suppress(OSError):  # a test may have closed it
        os.close(reader)
    os.close(writer)
