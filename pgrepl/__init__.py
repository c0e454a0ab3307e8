"""PostgreSQL's streaming-replication protocol for Python."""

from importlib.metadata import version as _version

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
    ServerError,
    ServerShutdown,
    SlotInUse,
    SlotNotFound,
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
from .values import Array, Interval, Range

__version__ = _version("pgrepl")

__all__ = [
    "UNCHANGED",
    "Array",
    "AuthenticationError",
    "AuthenticationRejected",
    "Begin",
    "BeginPrepare",
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
    "Range",
    "Relation",
    "Result",
    "RollbackPrepared",
    "Row",
    "ServerError",
    "ServerShutdown",
    "Slot",
    "SlotInUse",
    "SlotNotFound",
    "StreamAbort",
    "StreamCommit",
    "StreamPrepare",
    "StreamStart",
    "StreamStop",
    "SystemIdentity",
    "TLSError",
    "Truncate",
    "Type",
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
