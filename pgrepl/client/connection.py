"""What the blocking and the asyncio flavour of a connection tell of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..ownership import Uncopied
from .wire import BaseWire

__all__ = ["BaseConnection"]


class BaseConnection(Uncopied):
    """A replication connection as users hold it: everything else is behind it, in its wire."""

    _wire: BaseWire

    @property
    def server_version(self) -> int:
        """The server's version as PostgreSQL counts it: 180004 for 18.4; 0 where it did not
        tell."""
        return self._wire.server.version

    @property
    def parameters(self) -> Mapping[str, str]:
        """The settings that the server reports: server_version, TimeZone and others."""
        return MappingProxyType(self._wire.server.parameters)

    @property
    def pid(self) -> int:
        """Process id of the server process, as in pg_stat_replication; 0 where it did not tell."""
        return self._wire.server.pid

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by `disconnect` or after a failure."""
        return self._wire.closed

    def __repr__(self) -> str:
        return repr(self._wire)
