"""A password that does not show.

Whatever prints an object - a log line, a traceback that shows locals, a debugger's repr - gets
``***``. The text leaves by `reveal`, whose result is never kept in a local variable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, final

__all__ = ["Secret"]


@final
class Secret:
    """Holds a secret text; not comparable, not picklable, and ``***`` wherever it is shown."""

    __slots__ = ("_reveal",)

    def __init__(self, text: str) -> None:
        # In a closure, so that tools which walk an object's attributes find no string.
        self._reveal: Callable[[], str] = lambda: text

    def reveal(self) -> str:
        """Return the text."""
        return self._reveal()

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
