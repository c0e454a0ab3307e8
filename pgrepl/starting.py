"""What is set before all else: who presses Ctrl-C while the program is still being loaded sees no
traceback of imports.

Of the program alone: an application's own hook is its own business.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from types import TracebackType

__all__: list[str] = []


def _is_program() -> bool:
    name = sys.argv[0].replace("\\", "/").rpartition("/")[2] if getattr(sys, "argv", None) else ""
    return name in ("pgrepl", "pgrepl.exe") or sys.orig_argv[1:3] == ["-m", "pgrepl"]


def _say_nothing(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)


if _is_program():
    sys.excepthook = _say_nothing
