"""The commands of an asyncio connection: SQL, the system, timelines, slots, base backups.

The names, parameters and errors are those of `commands`, and so is what they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from ..client.connection import BaseConnection
from ..protocol import base_backup, replication, slot_listing, slots, timelines
from ..protocol.backend import ServerState
from ..protocol.backup_stream import BackupStream
from ..protocol.base_backup import BackupOptions
from ..protocol.query import Result, simple_query
from ..protocol.replication import SystemIdentity
from ..protocol.slot_listing import ReplicationSlot
from ..protocol.slots import PhysicalSlot, Slot, SnapshotAction
from ..protocol.timelines import TimelineHistory
from .backup import AsyncBackup
from .wire import AsyncWire

__all__ = ["AsyncCommands"]


class AsyncCommands(BaseConnection):
    """What a connection can be asked while it does not stream."""

    _wire: AsyncWire

    @property
    def _server(self) -> ServerState:
        return self._wire.server

    async def query(self, sql: str, timeout: float | None = None) -> list[Result]:
        """Run SQL or a replication command; see `Connection.query`."""
        return await self._wire.run(simple_query(self._server, sql), timeout)

    async def identify_system(self, timeout: float | None = None) -> SystemIdentity:
        """Return the system identifier, timeline, WAL position and database."""
        return await self._wire.run(replication.identify_system(self._server), timeout)

    async def show(self, name: str, timeout: float | None = None) -> str:
        """Return the value of a server setting, as text with its unit."""
        return await self._wire.run(replication.show(self._server, name), timeout)

    async def timeline_history(
        self, timeline: int, timeout: float | None = None
    ) -> TimelineHistory:
        """Return the history file of a timeline; see `Connection.timeline_history`."""
        return await self._wire.run(timelines.timeline_history(self._server, timeline), timeout)

    # Slots

    async def create_logical_slot(
        self,
        name: str,
        plugin: str = "pgoutput",
        *,
        temporary: bool = False,
        snapshot: SnapshotAction = "nothing",
        two_phase: bool = False,
        failover: bool = False,
        if_not_exists: bool = False,
        timeout: float | None = None,
    ) -> Slot:
        """Create a logical replication slot; see `Connection.create_logical_slot`."""
        return await self._wire.run(
            slots.create_logical_slot(
                self._server,
                name,
                plugin,
                temporary=temporary,
                snapshot=snapshot,
                two_phase=two_phase,
                failover=failover,
                if_not_exists=if_not_exists,
            ),
            timeout,
        )

    async def create_physical_slot(
        self,
        name: str,
        *,
        temporary: bool = False,
        reserve_wal: bool = False,
        if_not_exists: bool = False,
        timeout: float | None = None,
    ) -> Slot:
        """Create a physical replication slot; see `Connection.create_physical_slot`."""
        return await self._wire.run(
            slots.create_physical_slot(
                self._server,
                name,
                temporary=temporary,
                reserve_wal=reserve_wal,
                if_not_exists=if_not_exists,
            ),
            timeout,
        )

    async def slots(
        self, name: str | None = None, *, timeout: float | None = None
    ) -> list[ReplicationSlot]:
        """Return all replication slots of the server, or the one of a name; see
        `Connection.slots`."""
        return await self._wire.run(slot_listing.list_slots(self._server, name), timeout)

    async def read_slot(self, name: str, timeout: float | None = None) -> PhysicalSlot | None:
        """Return where the WAL that a physical slot keeps begins; see `Connection.read_slot`."""
        return await self._wire.run(slots.read_slot(self._server, name), timeout)

    async def alter_slot(
        self,
        name: str,
        *,
        failover: bool | None = None,
        two_phase: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Alter a logical slot; see `Connection.alter_slot`."""
        await self._wire.run(
            slots.alter_slot(self._server, name, failover=failover, two_phase=two_phase),
            timeout,
        )

    async def drop_slot(
        self, name: str, *, wait: bool = False, timeout: float | None = None
    ) -> None:
        """Drop a replication slot; see `Connection.drop_slot`."""
        await self._wire.run(slots.drop_slot(self._server, name, wait), timeout)

    # Base backups

    def base_backup(
        self, *, timeout: float | None = None, **options: Unpack[BackupOptions]
    ) -> AsyncBackup:
        """Take a base backup: ``async for event in connection.base_backup(manifest="yes")``.

        See `Connection.base_backup`.
        """
        return AsyncBackup(self._wire, BackupStream(self._server, options), timeout)

    async def upload_manifest(
        self,
        data: bytes | bytearray | memoryview | Iterable[bytes],
        timeout: float | None = None,
    ) -> None:
        """Give the server a manifest; see `Connection.upload_manifest`.

        `data` is iterated over in the event loop.
        """
        failure = await self._wire.run(base_backup.upload_manifest(self._server, data), timeout)
        if failure is not None:
            raise failure
