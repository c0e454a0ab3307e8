"""The asyncio flavour of the API: the same files as in `blocking`, under the same names."""

from ..facade import facade as _facade

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from .connection import AsyncConnection, connect

__all__ = ["AsyncConnection", "connect"]

_NAMES = {"AsyncConnection": ".connection", "connect": ".connection"}

__getattr__, __dir__ = _facade(__name__, _NAMES)
