"""test_stream.py and test_floods.py, on the asynchronous flavour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hostile import test_floods, test_stream
from tests.support.event_loops import FLAVOURS, blocking_connect

globals().update(
    {
        name: test
        for module in (test_stream, test_floods)
        for name, test in vars(module).items()
        if name.startswith("test_")
    }
)


@pytest.fixture(params=FLAVOURS, ids="-".join)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` as the asynchronous flavour does it, on each twin and loop."""
    with blocking_connect(request.param) as blocking:
        yield blocking
