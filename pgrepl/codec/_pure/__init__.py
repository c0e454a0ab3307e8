"""The pure-Python twin of the codec."""

from .frames import FrameReader
from .pgoutput import Decoder
from .rows import Row
from .values import Types
from .wal import PrimaryKeepalive, WalBatch, XLogData, next_batch, standby_status

__all__ = [
    "Decoder",
    "FrameReader",
    "PrimaryKeepalive",
    "Row",
    "Types",
    "WalBatch",
    "XLogData",
    "next_batch",
    "standby_status",
]
