"""The commands of a blocking connection: SQL, the system, timelines, slots, base backups.

Each runs to its end, or until its time limit; see `connection.Connection` for what then becomes of
it.
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
from .backup import Backup
from .wire import Wire

__all__ = ["Commands"]


class Commands(BaseConnection):
    """What a connection can be asked while it does not stream."""

    _wire: Wire

    @property
    def _server(self) -> ServerState:
        return self._wire.server

    def query(self, sql: str, timeout: float | None = None) -> list[Result]:
        """Run SQL or a replication command by the simple protocol; a `Result` for each statement.

        Values come as the server's text, NULL as None. Raises `ServerError` when the whole answer
        was read, so that the next command works; `UsageError` for COPY and START_REPLICATION.
        """
        return self._wire.run(simple_query(self._server, sql), timeout)

    def identify_system(self, timeout: float | None = None) -> SystemIdentity:
        """Return the system identifier, timeline, WAL position and database."""
        return self._wire.run(replication.identify_system(self._server), timeout)

    def show(self, name: str, timeout: float | None = None) -> str:
        """Return the value of a server setting, as text with its unit."""
        return self._wire.run(replication.show(self._server, name), timeout)

    def timeline_history(self, timeline: int, timeout: float | None = None) -> TimelineHistory:
        """Return the history file of a timeline: its name, its bytes, and what they say.

        Raises `ServerError` with SQLSTATE 58P01 where the server has none, as for timeline 1.
        """
        return self._wire.run(timelines.timeline_history(self._server, timeline), timeout)

    # Slots

    def create_logical_slot(
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
        """Create a logical replication slot.

        The server waits for the transactions that are running now. An exported snapshot lives until
        the next command; ``snapshot="use"`` needs a transaction. Raises `UsageError` where the
        server is too old for an option: `two_phase` needs 15, `failover` 17.

        A slot that exists is `SlotExists`. With `if_not_exists` one of the same plugin and database
        is taken as it is, whatever its other options; the `Slot` then has what its consumer has
        confirmed as `consistent_point`, no snapshot, and is not `created`. Any other one is
        `SlotExists` all the same, and one that somebody is just creating `SlotInUse`.
        """
        return self._wire.run(
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

    def create_physical_slot(
        self,
        name: str,
        *,
        temporary: bool = False,
        reserve_wal: bool = False,
        if_not_exists: bool = False,
        timeout: float | None = None,
    ) -> Slot:
        """Create a physical replication slot.

        With `reserve_wal` it keeps the WAL from now on, and not only from its first use. There is
        no failover for physical slots. A slot that exists is `SlotExists`; with `if_not_exists` a
        physical one is taken as it is, and a logical one `SlotExists` all the same. Before
        PostgreSQL 15 a physical connection cannot tell them apart, and takes either.
        """
        return self._wire.run(
            slots.create_physical_slot(
                self._server,
                name,
                temporary=temporary,
                reserve_wal=reserve_wal,
                if_not_exists=if_not_exists,
            ),
            timeout,
        )

    def slots(
        self, name: str | None = None, *, timeout: float | None = None
    ) -> list[ReplicationSlot]:
        """Return all replication slots of the server in the order of their names, or the one of a
        name, if there is one.

        By SQL, with one question: raises `UsageError` on a physical connection. What the server's
        version does not tell is None.
        """
        return self._wire.run(slot_listing.list_slots(self._server, name), timeout)

    def read_slot(self, name: str, timeout: float | None = None) -> PhysicalSlot | None:
        """Return where the WAL that a physical slot keeps begins; None: there is no such slot.

        PostgreSQL 15. Raises `ServerError` with SQLSTATE 0A000 for a logical slot.
        """
        return self._wire.run(slots.read_slot(self._server, name), timeout)

    def alter_slot(
        self,
        name: str,
        *,
        failover: bool | None = None,
        two_phase: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Alter a logical slot: `failover` needs PostgreSQL 17, `two_phase` 18. None: as it is.

        The server waits until nobody uses the slot. Raises `SlotNotFound`, or `ServerError` with
        SQLSTATE 0A000 for a physical one.
        """
        self._wire.run(
            slots.alter_slot(self._server, name, failover=failover, two_phase=two_phase),
            timeout,
        )

    def drop_slot(self, name: str, *, wait: bool = False, timeout: float | None = None) -> None:
        """Drop a replication slot; with `wait`, after whoever uses it has left.

        Raises `SlotNotFound`, or `SlotInUse` with the process that holds it.
        """
        self._wire.run(slots.drop_slot(self._server, name, wait), timeout)

    # Base backups

    def base_backup(
        self, *, timeout: float | None = None, **options: Unpack[BackupOptions]
    ) -> Backup:
        """Take a base backup: ``for event in connection.base_backup(manifest="yes")``.

        The events, from `BackupStart` to `BackupEnd`, are the same from every server; archives come
        in pieces, and nothing is collected. Their names are the server's: check them before you
        write files by them. For the options see `BackupOptions`; `timeout` is for each event.

        Raises `UsageError` for options that make no sense or that the server is too old for. What
        iterates raises `ServerError`, also when everything has come and some page's checksum was
        wrong: a backup is whole when `BackupEnd` has come.
        """
        return Backup(self._wire, BackupStream(self._server, options), timeout)

    def upload_manifest(
        self,
        data: bytes | bytearray | memoryview | Iterable[bytes],
        timeout: float | None = None,
    ) -> None:
        """Give the server the manifest of the backup on which an incremental one is to build.

        The manifest in one piece, or in several, a file opened for reading in binary for instance.
        PostgreSQL 17. Raises what iterating over `data` raises; the connection can be used on.
        """
        failure = self._wire.run(base_backup.upload_manifest(self._server, data), timeout)
        if failure is not None:
            raise failure
