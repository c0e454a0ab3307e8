"""The commands of an asyncio connection: SQL, the system, timelines, slots, base backups.

The names, parameters and errors are those of `commands`, and so is what they do.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterable
from typing import TypeVar, Unpack

from ..client.connection import BaseConnection
from ..protocol import base_backup, replication, slot_listing, slots, timelines
from ..protocol.backup_stream import BackupEvent, BackupStream
from ..protocol.base_backup import BackupOptions
from ..protocol.conversation import Conversation
from ..protocol.query import Result, simple_query
from ..protocol.replication import SystemIdentity
from ..protocol.slot_listing import ReplicationSlot
from ..protocol.slots import PhysicalSlot, Slot, SnapshotAction
from ..protocol.timelines import TimelineHistory
from .backup import AsyncBackup

__all__ = ["AsyncCommands"]

_Result = TypeVar("_Result")


class AsyncCommands(BaseConnection):
    """What a connection can be asked while it does not stream."""

    @abstractmethod
    async def _command(
        self, conversation: Conversation[_Result], timeout: float | None
    ) -> _Result: ...

    @abstractmethod
    async def _next_event(
        self, backup: BackupStream, timeout: float | None
    ) -> BackupEvent | None: ...

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the connection."""

    async def query(self, sql: str, timeout: float | None = None) -> list[Result]:
        """Run SQL or a replication command; see `Connection.query`."""
        return await self._command(simple_query(self._state, sql), timeout)

    async def identify_system(self, timeout: float | None = None) -> SystemIdentity:
        """Return the system identifier, timeline, WAL position and database."""
        return await self._command(replication.identify_system(self._state), timeout)

    async def show(self, name: str, timeout: float | None = None) -> str:
        """Return the value of a server setting, as text with its unit."""
        return await self._command(replication.show(self._state, name), timeout)

    async def timeline_history(
        self, timeline: int, timeout: float | None = None
    ) -> TimelineHistory:
        """Return the history file of a timeline; see `Connection.timeline_history`."""
        return await self._command(timelines.timeline_history(self._state, timeline), timeout)

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
        return await self._command(
            slots.create_logical_slot(
                self._state,
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
        return await self._command(
            slots.create_physical_slot(
                self._state,
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
        return await self._command(slot_listing.list_slots(self._state, name), timeout)

    async def read_slot(self, name: str, timeout: float | None = None) -> PhysicalSlot | None:
        """Return where the WAL that a physical slot keeps begins; see `Connection.read_slot`."""
        return await self._command(slots.read_slot(self._state, name), timeout)

    async def alter_slot(
        self,
        name: str,
        *,
        failover: bool | None = None,
        two_phase: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Alter a logical slot; see `Connection.alter_slot`."""
        await self._command(
            slots.alter_slot(self._state, name, failover=failover, two_phase=two_phase), timeout
        )

    async def drop_slot(
        self, name: str, *, wait: bool = False, timeout: float | None = None
    ) -> None:
        """Drop a replication slot; see `Connection.drop_slot`."""
        await self._command(slots.drop_slot(self._state, name, wait), timeout)

    # Base backups

    def base_backup(
        self, *, timeout: float | None = None, **options: Unpack[BackupOptions]
    ) -> AsyncBackup:
        """Take a base backup: ``async for event in connection.base_backup(manifest="yes")``.

        See `Connection.base_backup`.
        """
        stream = BackupStream(self._state, options)
        receive = functools.partial(self._next_event, stream, timeout)
        return AsyncBackup(stream, receive, self.disconnect)

    async def upload_manifest(
        self,
        data: bytes | bytearray | memoryview | Iterable[bytes],
        timeout: float | None = None,
    ) -> None:
        """Give the server a manifest; see `Connection.upload_manifest`.

        `data` is iterated over in the event loop.
        """
        failure = await self._command(base_backup.upload_manifest(self._state, data), timeout)
        if failure is not None:
            raise failure
