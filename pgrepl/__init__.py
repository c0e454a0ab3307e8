"""PostgreSQL's streaming-replication protocol for Python.

Where to start: `connect` makes a connection, `AsyncConnection.connect` one for asyncio, and
``connection.stream(slot, publications=[...])`` gives the changes of a slot, decoded. Beside them:

- `pgrepl.physical.receive_wal` keeps a server's WAL in a directory, as pg_receivewal does;
- `pgrepl.basebackup.receive_base_backup` takes a base backup, as pg_basebackup does;
- `pgrepl.doctor.examine` tells what a server lacks for logical replication, and what mends it;
- `pgrepl.testing` starts a server for tests.

What goes wrong is an `Error`, whose classes tell what to do about it.
"""

# isort: off
from . import starting as _starting  # noqa: F401  (before all that takes long to load)

# isort: on
import os as _os

from . import moved as _moved
from .facade import facade as _facade

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from . import aio as aio
    from . import basebackup as basebackup
    from . import doctor as doctor
    from . import physical as physical
    from . import testing as testing
    from .aio.connection import AsyncConnection
    from .aio.raw_stream import AsyncRawStream
    from .aio.stream import AsyncStream, AsyncTransaction
    from .basebackup import ArchiveData as ArchiveData
    from .basebackup import ArchiveStart as ArchiveStart
    from .basebackup import AsyncBackup as AsyncBackup
    from .basebackup import Backup as Backup
    from .basebackup import BackupEnd as BackupEnd
    from .basebackup import BackupEvent as BackupEvent
    from .basebackup import BackupOptions as BackupOptions
    from .basebackup import BackupStart as BackupStart
    from .basebackup import ManifestData as ManifestData
    from .basebackup import ManifestStart as ManifestStart
    from .basebackup import Progress as Progress
    from .basebackup import Tablespace as Tablespace
    from .blocking.connection import Connection, connect
    from .blocking.raw_stream import RawStream
    from .blocking.stream import Stream, Transaction
    from .client.ack_in_order import AckInOrder
    from .client.delivery import Batch, Change, Idle, StreamEvent, TransactionPart
    from .codec import Decoder, PrimaryKeepalive, Row, WalBatch, XLogData
    from .codec import implementation as __impl__
    from .errors import (
        AuthenticationError,
        AuthenticationRejected,
        BackupStorageError,
        ConnectionFailed,
        DecodeError,
        Error,
        ProtocolError,
        PublicationNotFound,
        ServerError,
        ServerShutdown,
        SlotExists,
        SlotGap,
        SlotInUse,
        SlotInvalidated,
        SlotNotFound,
        SpoolError,
        SystemMismatch,
        TLSError,
        UnknownTypeWarning,
        UsageError,
        WalStorageError,
    )
    from .lsn import Lsn, decode_lsn, encode_lsn
    from .messages import (
        Begin,
        BeginPrepare,
        Commit,
        CommitPrepared,
        Delete,
        Insert,
        Message,
        Origin,
        Prepare,
        RollbackPrepared,
        StreamAbort,
        StreamCommit,
        StreamPrepare,
        StreamStart,
        StreamStop,
        Truncate,
        Type,
        Update,
    )
    from .physical import EndOfTimeline as EndOfTimeline
    from .physical import PhysicalSlot as PhysicalSlot
    from .physical import TimelineHistory as TimelineHistory
    from .physical import TimelineSwitch as TimelineSwitch
    from .physical import parse_timeline_history as parse_timeline_history
    from .protocol.query import Result
    from .protocol.replication import SystemIdentity
    from .protocol.slot_listing import ReplicationSlot
    from .protocol.slots import Slot
    from .relation import UNCHANGED, Column, Relation, Unchanged
    from .resume import ResumeToken
    from .stats import Stats
    from .values import Array, Interval, Multirange, Range

    __version__: str

__all__ = [
    "AckInOrder",
    "Array",
    "AsyncConnection",
    "AsyncRawStream",
    "AsyncStream",
    "AsyncTransaction",
    "AuthenticationError",
    "AuthenticationRejected",
    "BackupStorageError",
    "Batch",
    "Begin",
    "BeginPrepare",
    "Change",
    "Column",
    "Commit",
    "CommitPrepared",
    "Connection",
    "ConnectionFailed",
    "DecodeError",
    "Decoder",
    "Delete",
    "Error",
    "Idle",
    "Insert",
    "Interval",
    "Lsn",
    "Message",
    "Multirange",
    "Origin",
    "Prepare",
    "PrimaryKeepalive",
    "ProtocolError",
    "PublicationNotFound",
    "Range",
    "RawStream",
    "Relation",
    "ReplicationSlot",
    "Result",
    "ResumeToken",
    "RollbackPrepared",
    "Row",
    "ServerError",
    "ServerShutdown",
    "Slot",
    "SlotExists",
    "SlotGap",
    "SlotInUse",
    "SlotInvalidated",
    "SlotNotFound",
    "SpoolError",
    "Stats",
    "Stream",
    "StreamAbort",
    "StreamCommit",
    "StreamEvent",
    "StreamPrepare",
    "StreamStart",
    "StreamStop",
    "SystemIdentity",
    "SystemMismatch",
    "TLSError",
    "Transaction",
    "TransactionPart",
    "Truncate",
    "Type",
    "UNCHANGED",
    "Unchanged",
    "UnknownTypeWarning",
    "Update",
    "UsageError",
    "WalBatch",
    "WalStorageError",
    "XLogData",
    "__impl__",
    "__version__",
    "connect",
    "decode_lsn",
    "encode_lsn",
]

_NAMES = {
    "AckInOrder": ".client.ack_in_order",
    "Array": ".values",
    "AsyncConnection": ".aio.connection",
    "AsyncRawStream": ".aio.raw_stream",
    "AsyncStream": ".aio.stream",
    "AsyncTransaction": ".aio.stream",
    "AuthenticationError": ".errors",
    "AuthenticationRejected": ".errors",
    "BackupStorageError": ".errors",
    "Batch": ".client.delivery",
    "Begin": ".messages",
    "BeginPrepare": ".messages",
    "Change": ".client.delivery",
    "Column": ".relation",
    "Commit": ".messages",
    "CommitPrepared": ".messages",
    "Connection": ".blocking.connection",
    "ConnectionFailed": ".errors",
    "DecodeError": ".errors",
    "Decoder": ".codec",
    "Delete": ".messages",
    "Error": ".errors",
    "Idle": ".client.delivery",
    "Insert": ".messages",
    "Interval": ".values",
    "Lsn": ".lsn",
    "Message": ".messages",
    "Multirange": ".values",
    "Origin": ".messages",
    "Prepare": ".messages",
    "PrimaryKeepalive": ".codec",
    "ProtocolError": ".errors",
    "PublicationNotFound": ".errors",
    "Range": ".values",
    "RawStream": ".blocking.raw_stream",
    "Relation": ".relation",
    "ReplicationSlot": ".protocol.slot_listing",
    "Result": ".protocol.query",
    "ResumeToken": ".resume",
    "RollbackPrepared": ".messages",
    "Row": ".codec",
    "ServerError": ".errors",
    "ServerShutdown": ".errors",
    "Slot": ".protocol.slots",
    "SlotExists": ".errors",
    "SlotGap": ".errors",
    "SlotInUse": ".errors",
    "SlotInvalidated": ".errors",
    "SlotNotFound": ".errors",
    "SpoolError": ".errors",
    "Stats": ".stats",
    "Stream": ".blocking.stream",
    "StreamAbort": ".messages",
    "StreamCommit": ".messages",
    "StreamEvent": ".client.delivery",
    "StreamPrepare": ".messages",
    "StreamStart": ".messages",
    "StreamStop": ".messages",
    "SystemIdentity": ".protocol.replication",
    "SystemMismatch": ".errors",
    "TLSError": ".errors",
    "Transaction": ".blocking.stream",
    "TransactionPart": ".client.delivery",
    "Truncate": ".messages",
    "Type": ".messages",
    "UNCHANGED": ".relation",
    "Unchanged": ".relation",
    "UnknownTypeWarning": ".errors",
    "Update": ".messages",
    "UsageError": ".errors",
    "WalBatch": ".codec",
    "WalStorageError": ".errors",
    "XLogData": ".codec",
    "__impl__": ".codec:implementation",
    "connect": ".blocking.connection",
    "decode_lsn": ".lsn",
    "encode_lsn": ".lsn",
}
"""The module that has each name, which is loaded with the first use of it."""

_ROOMS = ("aio", "basebackup", "doctor", "physical", "testing")

_load, __dir__ = _facade(__name__, _NAMES, _ROOMS)

if _os.environ.get("PGREPL_IMPL", "") not in ("", "python"):
    from . import codec as _codec  # noqa: F401  (which is to say so now, where that twin is missing)


if not TYPE_CHECKING:  # to which any name would be an attribute

    def __getattr__(name):
        # Asked for rarely, and what reads a package's metadata takes long to import.
        if name == "__version__":
            from importlib.metadata import version

            return version("pgrepl")
        if name in _moved.NAMES or name in _moved.MODULES:
            return _moved.load(name)
        return _load(name)
