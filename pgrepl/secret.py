"""A password that does not show.

Whatever prints an object - a log line, a traceback that shows locals, a debugger's repr - gets
``***``. The text leaves by `reveal`, whose result is never kept in a local variable.
"""

from __future__ import annotations

from typing import Final, NoReturn, final

__all__ = ["Secret"]

_ENCODING: Final = ("utf-8", "surrogatepass")


@final
class Secret:
    """Holds a secret text; not comparable, not picklable, and ``***`` wherever it is shown."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        # Tools that walk an object's attributes find nothing that shows it or can be pickled, and
        # Ctrl-C finds no local variable with it while it is revealed.
        self._text = memoryview(text.encode(*_ENCODING))

    def reveal(self) -> str:
        """Return the text."""
        return str(self._text, *_ENCODING)

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
