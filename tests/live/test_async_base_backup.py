"""test_base_backup.py, on the asynchronous flavour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live import test_base_backup
from tests.support.event_loops import FEW_FLAVOURS, blocking_connect

globals().update(
    {name: test for name, test in vars(test_base_backup).items() if name.startswith("test_")}
)
origin = test_base_backup.origin


@pytest.fixture(params=FEW_FLAVOURS, ids="-".join)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` as the asynchronous flavour does it, on each twin and loop once."""
    with blocking_connect(request.param) as blocking:
        yield blocking
