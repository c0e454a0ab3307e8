"""Which servers the live tests want. Needs nothing but the standard library, so that collecting
the tests works in an environment that has only what the unit tests need."""

from __future__ import annotations

import os
import re
from typing import Final

DEFAULT_MAJORS: Final = ("15", "18")

#: The name of the server that PGREPL_TEST_DSN gives, among the major versions.
GIVEN: Final = "dsn"


def majors() -> tuple[str, ...]:
    """The major versions to test against: those of PGREPL_TEST_MAJORS, or one old and one new."""
    wanted = os.environ.get("PGREPL_TEST_MAJORS", "")
    return tuple(re.findall(r"\d+", wanted)) or DEFAULT_MAJORS


def cluster_names() -> tuple[str, ...]:
    """What the fixture `cluster` stands for in turn: the major versions, or the given server."""
    return (GIVEN,) if os.environ.get("PGREPL_TEST_DSN") else majors()


def live_is_required() -> bool:
    """True where a live test without a server is a failure, not a skip (PGREPL_REQUIRE_LIVE=1)."""
    return os.environ.get("PGREPL_REQUIRE_LIVE") == "1"
