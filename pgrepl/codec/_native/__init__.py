"""The native twin of the codec: Cython over the plain C of src_c."""

from .frames import FrameReader, name_place
from .pgoutput import Decoder, Mould, ready
from .rows import Row
from .values import Types
from .wal import PrimaryKeepalive, WalBatch, XLogData, next_batch, standby_status

__all__ = [
    "Decoder",
    "FrameReader",
    "Mould",
    "PrimaryKeepalive",
    "Row",
    "Types",
    "WalBatch",
    "XLogData",
    "name_place",
    "next_batch",
    "ready",
    "standby_status",
]
