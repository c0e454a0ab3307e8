"""Feedback that does not depend on the consumer: a thread that sends a stream's statuses.

However long a consumer works on what it was given, the server hears from this side in time; else it
would take the connection for dead. The thread reads nothing, so a slow consumer still pushes back
to the server's socket.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Final

from ...codec.abc import WalBatch
from ...errors import Error
from ...ownership import Uncopied
from ...session.session import Session
from ..clock import Deadline, monotonic, now_microseconds
from .driver import BlockingTransport

__all__ = ["Feedback"]

_SEND_TIMEOUT: Final = 5.0
_AT_ONCE: Final = Deadline(0.0)


class Feedback(Uncopied):
    """A session, its lock, and the thread that sends what it owes the server.

    Every method is safe to call from any thread: the session is touched by who holds the lock, and
    by nobody else. (What it has no part in needs none: the position received, which the one who
    reads moves, and the numbers that `stats` looks up; nor do notes of acknowledgements, see
    `Session.takes_notes`.) In a forked child, where the thread is not,
    they raise `UsageError`, before they take the lock: it may have been held.
    """

    def __init__(
        self,
        session: Session,
        transport: BlockingTransport,
        name: str,
        tell_health: Callable[[float, int], None],
    ) -> None:
        """`tell_health` is called now and then, in the thread, with `clock`; see `Session`."""
        self._session = session
        self._transport = transport
        self.owner: Final = transport.owner
        self._tell_health = tell_health
        # Taken by itself: into the `with` of a Condition, Ctrl-C can come behind its taking.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wakes_at = math.inf
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run, name=f"pgrepl feedback for slot {name}", daemon=True
        )
        self._thread.start()

    def clock(self) -> tuple[float, int]:
        """Return the time by the session's clock, and the wall's: microseconds since 2000."""
        return monotonic(), now_microseconds()

    def acknowledge(
        self, delivered: int, position: int, written: bool, flushed: bool, applied: bool
    ) -> None:
        """Take an acknowledgement. Waits for nobody."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        session = self._session
        if flushed and position <= delivered and written and applied:
            # Of many that come one after the other, only the first one is worth a lock.
            session.positions.notes.append(position)
            if session.takes_notes:
                return
        now = monotonic()
        with self._lock:
            session.delivered(delivered)
            if session.acknowledge(position, now, written, flushed, applied):
                self._wake_thread_if_due_earlier()

    def wait_begins(self, delivered: int, idle: bool) -> float | None:
        """Send what is due before the application waits; return for how long at most it should."""
        if self.owner.is_parent:
            raise self.owner.refusal()
        session, now = self._session, monotonic()
        with self._lock:
            session.delivered(delivered)
            session.wait_begins(now, idle)
            # What is sent does not move it, and whoever calls this is the one that receives.
            silent_at = session.silent_at
            is_sent = self._send_due(now)
        if not is_sent:
            self._send_queued(_SEND_TIMEOUT)
        return None if silent_at == math.inf else max(silent_at - now, 0.0)

    def received(self, batch: WalBatch) -> None:
        """Take note of what has come, which ends the wait, and answer at once where the server asks
        for that."""
        with self._lock:
            self._session.received(batch, monotonic())
        if batch.reply_requested:
            self.send()

    def wait_ends(self) -> None:
        """Take note that the application waits no more, though nothing came."""
        with self._lock:
            self._session.wait_ends()

    def ask(self) -> float:
        """Ask the server how far it has come; return the seconds after which to do so again."""
        with self._lock:
            after = self._session.ask(monotonic())
        self.send()
        return after

    def silence(self) -> None:
        """Take note that nothing came. Raises `ConnectionFailed` after too long a time of that."""
        with self._lock:
            self._session.silence(monotonic())

    def send(self, final: bool = False, timeout: float = _SEND_TIMEOUT) -> None:
        """Send the status that is due, if one is.

        Raises `ConnectionFailed`. A server that does not take it in time finds it before the next.
        """
        if self.owner.is_parent:
            raise self.owner.refusal()
        with self._lock:
            is_sent = self._send_due(monotonic(), final)
        if not is_sent:
            self._send_queued(timeout)

    def _send_due(self, now: float, final: bool = False) -> bool:
        """Send the status that is due, if one is; False: the server does not take it yet.

        Within the lock, so that no later status gets ahead of it.
        """
        data = self._session.data_to_send(now, now_microseconds(), final)
        if data is None:
            self._wake_thread_if_due_earlier()
            return True
        try:
            self._transport.send(data, _AT_ONCE)
        except TimeoutError:
            return False
        return True

    def _send_queued(self, timeout: float) -> None:
        """Send what the server did not take. Outside of the lock: this waits, and whoever
        acknowledges must not."""
        with contextlib.suppress(TimeoutError):
            self._transport.send(b"", Deadline(timeout))

    def stop(self) -> None:
        """End the thread, and wait until it has ended."""
        if self.owner.is_parent:
            return  # it has no such thread
        with self._lock:
            self._stopped = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake_thread_if_due_earlier(self) -> None:
        """See to it that the thread is awake when the next status is due."""
        if self._session.due_at < self._wakes_at:
            self._changed.notify()

    def _run(self) -> None:
        while self._wait_until_due():
            with self._lock:
                is_health_due = self._session.is_health_due(monotonic())
            if is_health_due:
                # Without the lock: this may log, and a handler takes as long as it likes.
                self._tell_health(*self.clock())
            try:
                self.send()
            except Error:
                # The one who reads finds the same, and what the server said before it.
                return

    def _wait_until_due(self) -> bool:
        """Wait until something is due; False: nothing will be any more."""
        with self._lock:
            while not self._stopped:
                self._wakes_at = min(self._session.due_at, self._session.health_at)
                left = self._wakes_at - monotonic()
                if left <= 0:
                    return True
                self._changed.wait(left)
            return False
