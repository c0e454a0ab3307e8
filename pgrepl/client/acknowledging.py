"""Acknowledging what a decoded stream gave, and the tokens by which a consumer goes on.

Law: a position is reported to the server as flushed when the application has acknowledged it, and
never before. What was not acknowledged comes again when the slot is streamed again.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import UsageError
from ..lsn import Lsn
from ..messages import Message, RollbackPrepared
from ..protocol.preflight import Preflight
from ..resume import ResumeToken
from ..session.positions import Positions
from ..session.received import READ, Moved
from .delivery import BaseTransaction, Batch, Idle, Source, received_and_reading_of
from .handled import HandledChanges
from .reading.decoded import Decoded
from .reception import Feedback

__all__ = ["Acknowledging"]


class Acknowledging:
    """By which position each thing that was given is acknowledged, and what its token says.

    `source`: whose positions these are; `start`: where the stream began. What is acknowledged is
    kept by the session; here is kept how far the keepalives go that were given as events.
    """

    __slots__ = ("_decoded", "_feedback", "_handled", "_keepalive", "_positions", "_system") + (
        "source",
        "start",
    )

    def __init__(
        self,
        checked: Preflight,
        positions: Positions,
        feedback: Feedback,
        decoded: Decoded,
        handled: HandledChanges,
    ) -> None:
        self._system: Final = checked.system
        self.source: Source = (checked.slot.name, checked.system.systemid)
        self.start: Final = checked.start
        self._positions: Final = positions
        self._feedback: Final = feedback
        self._decoded: Final = decoded
        self._handled: Final = handled
        # The highest position of a keepalive that was given between transactions: nothing is left
        # to come before it, so it can be acknowledged though nothing was delivered there.
        self._keepalive = 0

    def note_keepalive(self, position: int) -> int:
        """Take note of the position of a keepalive that is given between transactions; return what
        may be acknowledged once it is dealt with."""
        self._keepalive = max(self._keepalive, position)
        return self._keepalive

    # Acknowledging

    def acknowledge(self, upto: Any, moved: Moved) -> None:
        """Acknowledge everything up to something that is no transaction and no batch."""
        self.acknowledge_position(self.end_of(upto), moved)

    def acknowledge_transaction(self, transaction: BaseTransaction, moved: Moved) -> None:
        """Acknowledge everything up to a transaction's end, as soon as that has come."""
        received, reading = received_and_reading_of(transaction)
        if reading.acknowledging is not self:
            self.require_same_slot(reading.acknowledging.source)
        if received.unreadable is READ:
            received.acknowledged = moved
        else:
            received.acknowledge(moved)
        if received.has_ended:
            position = received.end_lsn
            assert position is not None
            delivered = self._decoded.decoder.delivered
            if self._decoded.limit is not None or delivered < position:
                self.acknowledge_position(position, moved)
            else:
                # What most come to, by one call less.
                written, flushed, applied = moved
                self._feedback.acknowledge(delivered, position, written, flushed, applied)

    def acknowledge_position(self, position: int, moved: Moved) -> None:
        """Pass an acknowledgement on to the session."""
        decoded = self._decoded
        delivered = decoded.decoder.delivered if decoded.limit is None else decoded.delivered
        if delivered < position:
            delivered = max(delivered, min(position, self._keepalive))
        written, flushed, applied = moved
        self._feedback.acknowledge(delivered, position, written, flushed, applied)

    def require_same_slot(self, source: Source | None) -> None:
        """Raise `UsageError` for what another slot's stream gave: its positions say nothing of what
        this one was given. One of the same slot, before a connection was lost, will do."""
        if source is not None and source != self.source:
            raise UsageError(
                "expected what a stream of slot {!r} of system {} gave, got something of {!r} of "
                "{}: acknowledge it to the stream that it came from".format(*self.source, *source)
            )

    def end_of(self, upto: Any) -> int:
        """Return the position by which something is acknowledged."""
        if isinstance(upto, RollbackPrepared):
            return upto.rollback_end_lsn
        if isinstance(upto, Message):
            return upto.lsn
        if isinstance(upto, int):
            return upto
        if isinstance(upto, ResumeToken) and upto.systemid != self._system.systemid:
            raise UsageError(
                f"expected a token of the system {self._system.systemid}, got one of "
                f"{upto.systemid}, whose positions mean nothing here"
            )
        end_lsn = getattr(upto, "end_lsn", None)
        if end_lsn is None or not getattr(upto, "is_whole", True):
            raise UsageError(
                "expected a transaction that was read to its end, a batch, a message that ends a "
                f"transaction or an Lsn, got {upto!r:.200}"
            )
        return int(end_lsn)

    # Tokens

    def token(self, upto: Any, index: int | None) -> ResumeToken:
        """Return where to go on behind something, see `Stream.token`."""
        positions = self._positions
        positions.automatic = False
        if isinstance(upto, Idle):
            upto = upto.token
        asked = positions.safe if upto is None else self.end_of(upto)
        reach = max(self._decoded.delivered, self._keepalive, positions.settled)
        position = max(min(asked, reach), self.start)
        if index is None and position == asked and isinstance(upto, Batch | ResumeToken):
            index = upto.index
        if index is None:
            index = self._handled.behind(position)
        return ResumeToken(self._system.systemid, self._system.timeline, Lsn(position), index)

    def idle_event(self) -> Idle | None:
        """Return what says that nothing came for a while; None: something is left to do."""
        positions = self._positions
        is_between = self._decoded.decoder.is_between
        if not is_between or positions.flushed < positions.delivered:
            return None
        return Idle(self.token(None, None), Lsn(positions.received))
