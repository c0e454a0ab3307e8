"""The asyncio flavour of the API: the same files as in `blocking`, under the same names."""

from .connection import AsyncConnection, connect

__all__ = ["AsyncConnection", "connect"]
