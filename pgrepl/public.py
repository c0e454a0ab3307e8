"""Where users import a class or a function from: that is what `help()`, a traceback and a pickle
name, wherever in the package it is written.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["imported_from"]


def imported_from(place: str) -> Callable[[T], T]:
    """Return a decorator for what users import from the module `place`."""

    def name_place(thing: T) -> T:
        _resolve_annotations(thing)
        thing.__module__ = place
        return thing

    return name_place


def _resolve_annotations(thing: Any) -> None:
    """Make types of the annotations of a class's fields, where they are text.

    `typing.get_type_hints` looks the names in a class's annotations up in its ``__module__``, which
    does not have them any more. A name that is imported for type checkers alone stays text. Those
    of a function are looked up where it is written, wherever it says that it is from.
    """
    annotations = thing.__dict__.get("__annotations__") if isinstance(thing, type) else None
    if not annotations:
        return
    names = sys.modules[thing.__module__].__dict__
    resolved = _resolved.setdefault(thing.__module__, {})
    for field, annotation in annotations.items():
        text = getattr(annotation, "__forward_arg__", annotation)  # in a named tuple
        if not isinstance(text, str):
            continue
        if text not in resolved:
            try:
                resolved[text] = eval(text, names)
            except NameError:
                continue
        annotations[field] = resolved[text]


_resolved: dict[str, dict[str, Any]] = {}
"""The types that were made for each module: many fields have the same one."""
