"""Reading a stream event by event: messages and keepalives, for loops that wait elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...errors import UsageError
from ..acknowledging import Acknowledging
from ..delivery import StreamEvent
from .decoded import Decoded

__all__ = ["EventReading"]


class EventReading:
    """All that one read brought, in order. Keeps whether some of it was given and not read yet."""

    __slots__ = ("_acknowledging", "_are_left", "_decoded")

    def __init__(self, decoded: Decoded, acknowledging: Acknowledging) -> None:
        self._decoded: Final = decoded
        self._acknowledging: Final = acknowledging
        self._are_left = False

    def require_all_read(self) -> None:
        """Raise `UsageError` unless all events that were given have been read, and whatever was
        received in another way."""
        if self._are_left or self._decoded.unread is not None:
            raise UsageError(
                "expected all that was received before to be read; read on in it, or stop the "
                "stream and start it again, which brings what was not acknowledged once more"
            )

    def give(self) -> Iterator[StreamEvent]:
        """Return the messages of the batch that came last, each decoded when it is asked for."""
        self._are_left = True
        return self._events()

    def _events(self) -> Iterator[StreamEvent]:
        decoded = self._decoded
        decoder, changes = decoded.decoder, decoded.changes
        assert changes is not None
        with decoded.failing:
            for item in decoded.wal:
                if hasattr(item, "reply_requested"):
                    position = 0
                    if decoder.is_between:
                        position = self._acknowledging.note_keepalive(item.wal_end)
                    yield StreamEvent(None, item.wal_end, position, item.reply_requested)
                else:
                    before = decoder.delivered
                    message = next(changes)
                    after = decoder.delivered
                    yield StreamEvent(message, item.wal_start, after if after > before else 0)
        self._are_left = False
