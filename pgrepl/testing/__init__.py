"""A PostgreSQL server to test consumers with, for as long as a test runs: docs/testing.md.

Law: nothing of it is left behind. Importing this room needs neither pytest, which only
`pgrepl.testing.pytest_plugin` imports, nor what the program needs.
"""

from ..facade import facade as _facade

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from .aio import AsyncTemporaryDatabase, AsyncTemporaryServer
    from .database import TemporaryDatabase
    from .errors import TemporaryServerError
    from .server import TemporaryServer

__all__ = [
    "AsyncTemporaryDatabase",
    "AsyncTemporaryServer",
    "TemporaryDatabase",
    "TemporaryServer",
    "TemporaryServerError",
]

_NAMES = {
    "AsyncTemporaryDatabase": ".aio",
    "AsyncTemporaryServer": ".aio",
    "TemporaryDatabase": ".database",
    "TemporaryServer": ".server",
    "TemporaryServerError": ".errors",
}
"""The module that has each name, which is loaded with the first use of it."""

__getattr__, __dir__ = _facade(__name__, _NAMES)
