"""test_authentication_matrix.py and those of passwords and of what is bound to, on the asynchronous
flavour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live import test_authentication_matrix, test_channel_binding, test_passwords
from tests.live.test_authentication_matrix import logging_cluster  # noqa: F401
from tests.live.test_channel_binding import presenting  # noqa: F401
from tests.support.event_loops import FEW_FLAVOURS, blocking_connect

for module in (test_authentication_matrix, test_channel_binding, test_passwords):
    globals().update(
        {
            name: test
            for name, test in vars(module).items()
            if name.startswith("test_") and "libpq" not in name
        }
    )


@pytest.fixture(params=FEW_FLAVOURS, ids="-".join)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` as the asynchronous flavour does it, on each twin and loop once."""
    with blocking_connect(request.param) as blocking:
        yield blocking
