"""Packages whose names are loaded when they are first used.

``import pgrepl`` would otherwise load asyncio for those who block and backups for those who stream,
and take five times as long. What a name stands for is an ordinary attribute once it was asked for.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["facade"]

# Modules that import each other in a circle would be seen half made by two threads that enter the
# circle at different places. Whoever has the lock imports modules of the package, which never want
# it themselves.
_importing = RLock()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # As threading does it, which takes long to load.
    os.register_at_fork(after_in_child=_importing._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001


def facade(
    package: str, names: Mapping[str, str], rooms: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return what a package takes for its ``__getattr__`` and ``__dir__``.

    `names`: the module of each name, relative to the package, as in ``{"Lsn": ".lsn"}``, with a
    colon and what it is called there, where that is another name; `rooms`: packages within it,
    which are attributes as well.
    """
    module = sys.modules[package]

    def load(name: str) -> Any:
        from importlib import import_module

        with _importing:
            if name in names:
                place, _, other_name = names[name].partition(":")
                found = getattr(import_module(place, package), other_name or name)
                setattr(module, name, found)
                return found
            if name in rooms:
                return import_module(f".{name}", package)  # which sets the attribute
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=module)

    def listed() -> list[str]:
        # What else is in there, modules that were loaded among it, is no part of the API.
        own = {name for name in module.__dict__ if name.startswith("__")}
        return sorted({*own, *module.__all__, *rooms})

    return load, listed
