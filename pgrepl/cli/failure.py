"""How a command says that it failed."""

from __future__ import annotations

__all__ = ["CommandFailed", "OutputLost"]


class CommandFailed(Exception):
    """The text goes to stderr behind the program's name, and the program exits with `status`."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class OutputLost(Exception):
    """Nobody reads the output any more. No `OSError`, of which click makes an exit of its own."""
