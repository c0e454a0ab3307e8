"""PostgreSQL's streaming-replication protocol for Python."""

from importlib.metadata import version as _version

from .aio import AsyncConnection
from .aio_stream import AsyncStream, AsyncTransaction
from .base_stream import Batch, Change, Stats
from .codec import Decoder, PrimaryKeepalive, Row, WalBatch, XLogData
from .codec import implementation as __impl__
from .connection import Connection, connect
from .errors import (
    AuthenticationError,
    AuthenticationRejected,
    ConnectionFailed,
    DecodeError,
    Error,
    ProtocolError,
    PublicationNotFound,
    ServerError,
    ServerShutdown,
    SlotGap,
    SlotInUse,
    SlotInvalidated,
    SlotNotFound,
    SpoolError,
    SystemMismatch,
    TLSError,
    UsageError,
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
from .protocol.query import Result
from .protocol.replication import Slot, SystemIdentity
from .stream import Stream, Transaction
from .token import ResumeToken
from .values import Array, Interval, Range

__version__ = _version("pgrepl")

__all__ = [
    "Array",
    "AsyncConnection",
    "AsyncStream",
    "AsyncTransaction",
    "AuthenticationError",
    "AuthenticationRejected",
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
    "Insert",
    "Interval",
    "Lsn",
    "Message",
    "Origin",
    "Prepare",
    "PrimaryKeepalive",
    "ProtocolError",
    "PublicationNotFound",
    "Range",
    "Relation",
    "Result",
    "ResumeToken",
    "RollbackPrepared",
    "Row",
    "ServerError",
    "ServerShutdown",
    "Slot",
    "SlotGap",
    "SlotInUse",
    "SlotInvalidated",
    "SlotNotFound",
    "SpoolError",
    "Stats",
    "Stream",
    "StreamAbort",
    "StreamCommit",
    "StreamPrepare",
    "StreamStart",
    "StreamStop",
    "SystemIdentity",
    "SystemMismatch",
    "TLSError",
    "Transaction",
    "Truncate",
    "Type",
    "UNCHANGED",
    "Update",
    "UsageError",
    "WalBatch",
    "XLogData",
    "__impl__",
    "__version__",
    "connect",
    "decode_lsn",
    "encode_lsn",
]
