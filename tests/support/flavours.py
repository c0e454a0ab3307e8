"""The flavours of a connection: an API, a twin of the codec, and an event loop for asyncio.

A test that takes `connect` or `flavour` says by a mark which of them it runs on, as a module does
for all of its tests; without one it runs on the blocking ones:

    pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

What was written for blocking connections runs on asynchronous ones as well, by
`tests.support.event_loops.blocking_connect`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import pytest

#: The codec's twins, by the names that PGREPL_IMPL has for them.
TWINS: Final = {"c": "pgrepl.codec._native", "python": "pgrepl.codec._pure"}

#: The blocking API on each twin.
BLOCKING: Final = ("blocking-c", "blocking-python")

#: Each twin on asyncio's own loop, and one of them on uvloop's.
ASYNCHRONOUS: Final = ("asyncio-c", "asyncio-python", "uvloop-c")

#: Each twin and each loop once.
FEW_ASYNCHRONOUS: Final = ("asyncio-python", "uvloop-c")

EVERY_FLAVOUR: Final = BLOCKING + ASYNCHRONOUS

#: Each way to do I/O once, for what has nothing to do with the codec: TLS, authentication, hosts.
DRIVERS: Final = ("blocking-c", "asyncio-python", "uvloop-c")

#: Both APIs, and in each of them each twin and each loop once.
FEW_FLAVOURS: Final = BLOCKING + FEW_ASYNCHRONOUS


def twin(name: str) -> ModuleType:
    """The codec's twin of that name; a skip where it was not built, unless it has to be there."""
    try:
        return importlib.import_module(TWINS[name])
    except ImportError as error:
        ours = (error.name or "").startswith(TWINS["c"])
        if not ours or os.environ.get("PGREPL_REQUIRE_EXT") == "1":
            raise
        pytest.skip(f"this install has no compiled codec ({error})")


@dataclass(frozen=True)
class Flavour:
    """One of `EVERY_FLAVOUR`."""

    name: str

    @property
    def is_blocking(self) -> bool:
        """Whether it has no event loop."""
        return self.name in BLOCKING

    @property
    def codec(self) -> ModuleType:
        """Its twin of the codec; a skip where there is none."""
        return twin(self.name.partition("-")[2])

    @property
    def loop(self) -> str:
        """The name of its event loop, in `tests.support.event_loops.LOOPS`."""
        assert not self.is_blocking
        return self.name.partition("-")[0]

    @contextlib.contextmanager
    def connecting(self) -> Iterator[Callable[..., Any]]:
        """`pgrepl.connect` on this flavour; the loops of its connections are closed at the end."""
        if self.is_blocking:
            connect = importlib.import_module("pgrepl").connect
            yield lambda *args, **keywords: connect(*args, _codec=self.codec, **keywords)
            return
        event_loops = importlib.import_module("tests.support.event_loops")
        with event_loops.blocking_connect(self.codec, self.loop) as connect:
            yield connect
