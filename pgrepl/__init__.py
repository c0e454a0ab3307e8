"""PostgreSQL's streaming-replication protocol for Python."""

from importlib.metadata import version as _version

from .codec import Decoder, PrimaryKeepalive, WalBatch, XLogData
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
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    Row,
    Truncate,
    Type,
    Update,
)
from .protocol.query import Result
from .protocol.replication import Slot, SystemIdentity

__version__ = _version("pgrepl")

__all__ = [
    "UNCHANGED",
    "AuthenticationError",
    "AuthenticationRejected",
    "Begin",
    "Column",
    "Commit",
    "Connection",
    "ConnectionFailed",
    "DecodeError",
    "Decoder",
    "Delete",
    "Error",
    "Insert",
    "Lsn",
    "Message",
    "Origin",
    "PrimaryKeepalive",
    "ProtocolError",
    "Relation",
    "Result",
    "Row",
    "ServerError",
    "ServerShutdown",
    "Slot",
    "SlotInUse",
    "SlotNotFound",
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
