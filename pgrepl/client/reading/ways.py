"""The ways to read a stream, and which of them goes on from what another has left open."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["Left", "Way"]


class Left(enum.Enum):
    """What is open of what was given, when somebody begins to read."""

    NOTHING = "the last transaction has ended, or none was begun"
    UNWANTED = "a transaction that was skipped, or is passed over"
    GATHERED = "a transaction that is put aside, and was not given yet"
    BATCHED = "a transaction that goes on in the next batch, or changes for that"
    UNREAD = "a transaction that is to be read on in"


class Way(enum.Enum):
    """A way to read: its name, whether it is by transaction, and what it can go on from.

    By transaction: what the server streams before its transaction ends is put aside until then, and
    the iteration can end at a position.
    """

    MESSAGES = "messages", False, (Left.NOTHING,)
    EVENTS = "events", False, (Left.NOTHING,)
    TRANSACTIONS = "transactions", True, (Left.NOTHING, Left.UNWANTED)
    WHOLE_TRANSACTIONS = "whole", True, (Left.NOTHING, Left.UNWANTED, Left.GATHERED)
    BATCHES = "batches", True, (Left.NOTHING, Left.UNWANTED, Left.BATCHED)

    def __init__(self, _name: str, by_transaction: bool, goes_on_from: tuple[Left, ...]) -> None:
        self.by_transaction: Final = by_transaction
        self.goes_on_from: Final = goes_on_from
