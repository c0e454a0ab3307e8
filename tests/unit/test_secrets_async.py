"""test_secrets.py, on the asynchronous flavour; the password is given in one way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.canary import Look
from tests.support.flavours import FEW_ASYNCHRONOUS
from tests.unit import test_secrets
from tests.unit.test_secrets import (  # noqa: F401
    attempts,
    encryption,
    watch,
)

# One looks into what the blocking driver has alone, the others connect to nothing.
ELSEWHERE = (
    "test_v17_a_connection_and_its_errors",
    "test_v17_parameters_and_secrets_do_not_show_it",
    "test_the_watch_would_notice",
)

globals().update(
    {
        name: test
        for name, test in vars(test_secrets).items()
        if name.startswith("test_") and name not in ELSEWHERE
    }
)

pytestmark = pytest.mark.flavours(*FEW_ASYNCHRONOUS)


@pytest.fixture
def attempt(
    connect: Callable[..., Any],
    watch: Look,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., BaseException]:
    return attempts("uri", connect, watch, monkeypatch, tmp_path)
