"""test_tls_certificates.py, test_tls_client_certificates.py and test_tls_hosts.py, on the
asynchronous flavour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hostile import (
    test_tls_certificates,
    test_tls_client_certificates,
    test_tls_hosts,
)
from tests.hostile.test_tls_hosts import certificate
from tests.support.event_loops import FEW_FLAVOURS, blocking_connect

__all__ = ["certificate", "connect"]

# Those that do not connect are no other ones here.
globals().update(
    {
        name: test
        for module in (
            test_tls_certificates,
            test_tls_client_certificates,
            test_tls_hosts,
        )
        for name, test in vars(module).items()
        if name.startswith("test_") and name != "test_libpq_says_the_same"
    }
)


@pytest.fixture(params=FEW_FLAVOURS, ids="-".join)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` as the asynchronous flavour does it, on each twin and loop once."""
    with blocking_connect(request.param) as blocking:
        yield blocking
