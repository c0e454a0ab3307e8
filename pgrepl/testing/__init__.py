"""A PostgreSQL server to test consumers with, for as long as a test runs: docs/testing.md.

Law: nothing of it is left behind. Importing this room needs neither pytest, which only
`pgrepl.testing.pytest_plugin` imports, nor what the program needs.
"""

from typing import TYPE_CHECKING

from .database import TemporaryDatabase
from .errors import TemporaryServerError
from .server import TemporaryServer

if TYPE_CHECKING:
    from .aio import AsyncTemporaryDatabase, AsyncTemporaryServer

__all__ = [
    "AsyncTemporaryDatabase",
    "AsyncTemporaryServer",
    "TemporaryDatabase",
    "TemporaryServer",
    "TemporaryServerError",
]


def __getattr__(name: str) -> object:
    """Load what needs asyncio when it is asked for."""
    if name not in ("AsyncTemporaryDatabase", "AsyncTemporaryServer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import aio

    found: object = getattr(aio, name)
    globals()[name] = found
    return found
