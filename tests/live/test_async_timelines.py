"""test_timelines.py, on the asynchronous flavour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live import test_timelines
from tests.support.event_loops import FEW_FLAVOURS, blocking_connect

globals().update(
    {name: test for name, test in vars(test_timelines).items() if name.startswith("test_")}
)
promoted = test_timelines.promoted


@pytest.fixture(params=FEW_FLAVOURS, ids="-".join)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` as the asynchronous flavour does it, on each twin and loop once."""
    with blocking_connect(request.param) as blocking:
        yield blocking
