"""The pure-Python twin of the codec."""

from ...public import imported_from
from .frames import FrameReader
from .pgoutput import Decoder
from .rows import Row
from .runs import Mould, ready
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


def name_place(place: str, *classes: type) -> None:
    """Have classes say that users import them from the module `place`."""
    for each in classes:
        imported_from(place)(each)
