"""What goes wrong with a server to try things on. No error of a server: that is `pgrepl.Error`."""

from __future__ import annotations

from ..public import imported_from

__all__ = ["TemporaryServerError"]


@imported_from("pgrepl.testing")
class TemporaryServerError(RuntimeError):
    """The server cannot be found, made or started, or not be stopped as asked; the text says why,
    and what to do."""
