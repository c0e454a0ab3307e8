"""Reading a stream message by message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...messages import LogicalMessage
from .decoded import Decoded

__all__ = ["MessageReading"]


class MessageReading:
    """What pgoutput says, one message after the other. Keeps nothing of its own."""

    __slots__ = ("decoded",)

    def __init__(self, decoded: Decoded) -> None:
        self.decoded: Final = decoded

    @property
    def is_at_end(self) -> bool:
        """Whether somebody has asked for the end, and no transaction is open."""
        limit = self.decoded.limit
        return limit is not None and limit.is_wanted and self.decoded.decoder.is_between

    def at_hand(self) -> Iterator[LogicalMessage]:
        """Return the messages that have come, up to where the iteration is to end.

        To be iterated over within `Decoded.failing`.
        """
        decoded = self.decoded
        if decoded.limit is None:
            return iter(decoded.changes or ())
        return self._up_to_end()

    def _up_to_end(self) -> Iterator[LogicalMessage]:
        for message in self.decoded.changes or ():
            yield message
            if self.is_at_end:
                return
