"""The lines of a decoded stream, each once, also where the server tells a transaction again.

A connection that is lost in the middle of a transaction brings it from its beginning when the
stream goes on. What was told of it is not told again: by the same slot and publications it comes in
the same order. Only relations may be described anew, which are no changes.
"""

from __future__ import annotations

from ...client.delivery import StreamEvent
from ...messages import Begin, BeginPrepare, LogicalMessage, Relation, StreamAbort, Type
from .formats import Format

__all__ = ["Retelling"]


class Retelling:
    """Makes the lines of one stream over several connections.

    `whole`: transactions come whole, one after the other. Where they are streamed in blocks, what
    comes again may be cut in another way, and is told again.
    """

    def __init__(self, form: Format, whole: bool) -> None:
        self._form = form
        self._whole = whole
        self._xid: int | None = None  # of the transaction that is being told
        self._told = 0  # messages of it
        self._known: tuple[int | None, int] = (None, 0)  # the same, before the connection was lost

    def begin(self) -> None:
        """Go on with another connection."""
        xid, told = self._known
        if self._xid is not None and (self._xid != xid or self._told > told):
            self._known = (self._xid, self._told)
        self._xid, self._told = None, 0

    def line(self, message: LogicalMessage, event: StreamEvent) -> str | None:
        """Return the line of an event's message, None for none."""
        if self._whole and isinstance(message, StreamAbort):
            # PostgreSQL 18 sends it of a large transaction that it never sent.
            return None
        line = self._form.line(message, event.lsn)
        if not self._whole or isinstance(message, Relation | Type):
            return line
        if isinstance(message, Begin | BeginPrepare):
            self._xid, self._told = message.xid, 0
        self._told += 1
        if self._xid is not None and self._xid == self._known[0] and self._told <= self._known[1]:
            line = None
        if event.position:
            if self._xid == self._known[0]:
                self._known = (None, 0)
            self._xid, self._told = None, 0
        return line
