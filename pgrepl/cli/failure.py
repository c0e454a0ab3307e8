"""How a command says that it failed."""

from __future__ import annotations

from typing import Final

__all__ = ["BROKEN_PIPE", "CommandFailed", "OutputLost"]

BROKEN_PIPE: Final = 141
"""The exit status when nobody reads the output any more: 128 + SIGPIPE, which Python ignores."""


class CommandFailed(Exception):
    """The text goes to stderr behind the program's name, and the program exits with `status`."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class OutputLost(Exception):
    """Nobody reads the output any more. No `OSError`, of which click makes an exit of its own."""
