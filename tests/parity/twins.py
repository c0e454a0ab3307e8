"""Both twins side by side: they are given the same bytes in the same pieces, and watched."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from pgrepl.errors import ProtocolError

# How many random streams to try: a slice in an ordinary run, all of them with PGREPL_LONG=1.
ROUNDS = 200_000 if os.environ.get("PGREPL_LONG") == "1" else 6_000


class Fault(NamedTuple):
    """An error as both twins must raise it."""

    kind: str
    message: str
    tag: bytes | None
    offset: int | None


def twins() -> tuple[ModuleType, ModuleType]:
    """The native codec and the pure one; without a native one, the module that asks is skipped."""
    pure = importlib.import_module("pgrepl.codec._pure")
    try:
        return importlib.import_module("pgrepl.codec._native"), pure
    except ImportError as error:
        if os.environ.get("PGREPL_REQUIRE_EXT") == "1":
            raise
        pytest.skip(f"this install has no compiled codec ({error})", allow_module_level=True)


def exact(value: Any) -> Any:
    """What a value is in every field, those that comparing leaves out too, and of which types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        return type(value).__name__, {name: exact(getattr(value, name)) for name in names}
    if type(value).__name__ == "Row":
        return "Row", exact(value.columns), exact(value.lsn), exact(value.astuple())
    if isinstance(value, tuple | list):
        return type(value).__name__, [exact(each) for each in value]
    if isinstance(value, dict):
        return {key: exact(each) for key, each in value.items()}
    return type(value).__name__, repr(value)


def outcome(step: Callable[[], Any]) -> Any:
    """What a step gives, or the `Fault` that it ends in; any other exception is let through."""
    try:
        return step()
    except ProtocolError as error:
        return Fault(type(error).__name__, str(error), error.tag, error.offset)
