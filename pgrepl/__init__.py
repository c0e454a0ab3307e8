"""PostgreSQL's streaming-replication protocol for Python."""

# isort: off
from . import starting as _starting  # noqa: F401  (before all that takes long to load)

# isort: on
from typing import TYPE_CHECKING

from .aio.backup import AsyncBackup
from .aio.connection import AsyncConnection
from .aio.raw_stream import AsyncRawStream
from .aio.stream import AsyncStream, AsyncTransaction
from .blocking.backup import Backup
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
    UNCHANGED,
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    Message,
    Origin,
    Prepare,
    Relation,
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
from .protocol.backup_stream import (
    ArchiveData,
    ArchiveStart,
    BackupEnd,
    BackupEvent,
    BackupStart,
    ManifestData,
    ManifestStart,
    Progress,
    Tablespace,
)
from .protocol.base_backup import BackupOptions
from .protocol.query import Result
from .protocol.replication import SystemIdentity
from .protocol.slot_listing import ReplicationSlot
from .protocol.slots import PhysicalSlot, Slot
from .protocol.timelines import (
    EndOfTimeline,
    TimelineHistory,
    TimelineSwitch,
    parse_timeline_history,
)
from .resume import ResumeToken
from .stats import Stats
from .values import Array, Interval, Multirange, Range

__version__: str

__all__ = [
    "AckInOrder",
    "ArchiveData",
    "ArchiveStart",
    "Array",
    "AsyncBackup",
    "AsyncConnection",
    "AsyncRawStream",
    "AsyncStream",
    "AsyncTransaction",
    "AuthenticationError",
    "AuthenticationRejected",
    "Backup",
    "BackupEnd",
    "BackupEvent",
    "BackupOptions",
    "BackupStart",
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
    "EndOfTimeline",
    "Error",
    "Idle",
    "Insert",
    "Interval",
    "Lsn",
    "ManifestData",
    "ManifestStart",
    "Message",
    "Multirange",
    "Origin",
    "PhysicalSlot",
    "Prepare",
    "PrimaryKeepalive",
    "Progress",
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
    "Tablespace",
    "TimelineHistory",
    "TimelineSwitch",
    "Transaction",
    "TransactionPart",
    "Truncate",
    "Type",
    "UNCHANGED",
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
    "parse_timeline_history",
]


if not TYPE_CHECKING:  # to which any name would be an attribute

    def __getattr__(name: str) -> str:
        # Asked for rarely, and what reads a package's metadata takes long to import.
        if name == "__version__":
            from importlib.metadata import version

            return version("pgrepl")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
