"""Feedback that does not depend on the consumer: a timer of the event loop that sends statuses.

It runs whenever the loop does. A consumer that keeps the loop itself busy keeps its statuses back
as well; work that takes longer than the server's wal_sender_timeout belongs into a thread.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from ...codec.abc import WalBatch
from ...ownership import Uncopied
from ...session.session import Session
from ..clock import now_microseconds
from .driver import AsyncTransport

__all__ = ["AsyncFeedback"]


class AsyncFeedback(Uncopied):
    """A session, and the timer that sends what it owes the server.

    To be used in the event loop that it was made in; `acknowledge` anywhere.
    """

    def __init__(
        self, session: Session, transport: AsyncTransport, tell_health: Callable[[float, int], None]
    ) -> None:
        """`tell_health` is called now and then, with `clock`; see `Session`."""
        self._session = session
        self._transport = transport
        self.owner: Final = transport.owner
        self._tell_health = tell_health
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._stopped = False
        self._schedule()

    def clock(self) -> tuple[float, int]:
        """Return the time by the session's clock, and the wall's: microseconds since 2000."""
        return self._loop.time(), now_microseconds()

    def acknowledge(
        self, delivered: int, position: int, written: bool, flushed: bool, applied: bool
    ) -> None:
        """Take an acknowledgement, from any thread. Raises `UsageError` in a forked child."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        session = self._session
        if flushed and position <= delivered and written and applied:
            # Of many that come one after the other, only the first one is worth a look at the time.
            session.positions.notes.append(position)
            if session.takes_notes:
                return
        try:
            is_elsewhere = asyncio.get_running_loop() is not self._loop
        except RuntimeError:
            is_elsewhere = True
        if not is_elsewhere:
            self._acknowledge(delivered, position, written, flushed, applied)
        else:
            self._loop.call_soon_threadsafe(
                self._acknowledge, delivered, position, written, flushed, applied
            )

    def _acknowledge(
        self, delivered: int, position: int, written: bool, flushed: bool, applied: bool
    ) -> None:
        session = self._session
        session.delivered(delivered)
        is_due_earlier = session.acknowledge(position, self._loop.time(), written, flushed, applied)
        if is_due_earlier and session.due_at < self._wakes_at:
            self._schedule()

    def wait_begins(self, delivered: int, idle: bool) -> float | None:
        """Send what is due before the application waits; return for how long at most it should."""
        now = self._loop.time()
        self._session.delivered(delivered)
        self._session.wait_begins(now, idle)
        self.send()
        silent_at = self._session.silent_at
        return None if silent_at == math.inf else max(silent_at - now, 0.0)

    def received(self, batch: WalBatch) -> None:
        """Take note of what has come, which ends the wait, and answer at once where the server asks
        for that."""
        self._session.received(batch, self._loop.time())
        if batch.reply_requested:
            self.send()

    def wait_ends(self) -> None:
        """Take note that the application waits no more, though nothing came."""
        self._session.wait_ends()

    def ask(self) -> float:
        """Ask the server how far it has come; return the seconds after which to do so again."""
        after = self._session.ask(self._loop.time())
        self.send()
        return after

    def silence(self) -> None:
        """Take note that nothing came. Raises `ConnectionFailed` after too long a time of that."""
        self._session.silence(self._loop.time())

    def send(self, final: bool = False) -> None:
        """Send the status that is due, if one is, without waiting."""
        data = self._session.data_to_send(self._loop.time(), now_microseconds(), final)
        if data is not None:
            self._transport.post(data)
            self._schedule()
        elif self._session.due_at < self._wakes_at:
            self._schedule()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._stopped and not self._transport.closed:
            due_at = min(self._session.due_at, self._session.health_at)
            self._wakes_at = max(due_at, self._loop.time())
            self._timer = self._loop.call_at(self._wakes_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._session.is_health_due(self._loop.time()):
            self._tell_health(*self.clock())
        self.send()
        if self._timer is None:
            self._schedule()
