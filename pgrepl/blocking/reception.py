"""Receiving a stream, blocking: the wait for what comes, and the end. All kinds of streams do it.

Law: before a wait the server is told what it should know, and where nothing comes for too long it
is asked; so nobody waits for a peer that is gone.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from ..client.reception import BaseReception
from ..errors import ConnectionFailed, UsageError
from ..transport.blocking.feedback import Feedback
from ..transport.blocking.signals import Signals
from ..transport.clock import Deadline
from .wire import StreamWire

__all__ = ["Reception"]


class Reception(BaseReception):
    """A stream over a blocking connection; a context manager that stops."""

    _wire: StreamWire
    _feedback: Feedback

    def _close(self) -> None:
        self._wire.disconnect()

    def fileno(self) -> int:
        """Return the connection's file descriptor, -1 once it is closed.

        Before waiting for it, take what has come already, by ``receive(timeout=0)`` until that
        raises `TimeoutError`: bytes may have been read that no wait would find.
        """
        return self._wire.fileno()

    def _next_batch(self, deadline: Deadline) -> Any | None:
        """Return the next batch; None: the stream was stopped by another thread, or nothing more is
        to be given."""
        if self._limit is not None and self._ends_at_limit():
            return None
        try:
            batch = self._wire.batch_at_hand()
            return self._wait_for_batch(deadline) if batch is None else batch
        except (ConnectionFailed, UsageError):
            if self._ended:
                return None
            raise

    def _wait_for_batch(self, deadline: Deadline) -> Any:
        """Wait for a batch, telling the server what it should know before; None: as above.

        A batch ends the wait for the feedback when that has received it.
        """
        is_in_vain = True
        try:
            while True:
                limit = self._wait_begins(deadline.left())
                try:
                    batch = self._wire.next_batch(limit)
                except TimeoutError:
                    pass
                else:
                    is_in_vain = False
                    return batch
                self._feedback.silence()
                if self._limit is not None and self._is_at_limit:
                    return None
                if deadline.left() == 0.0:
                    # With a limit of 0 the caller waits elsewhere, and that is silence too.
                    is_in_vain = deadline.timeout != 0
                    raise TimeoutError("nothing came in time; the stream goes on")
        finally:
            if is_in_vain:
                self._feedback.wait_ends()

    def stop_on(self, *signals: int) -> None:
        """Have signals end the iteration in order: ``stop_on(signal.SIGTERM, signal.SIGINT)``.

        The first one that comes ends a wait, and the iteration at the next boundary: what is in
        hand can be finished and acknowledged, and then the loop ends as if nothing more came. A
        boundary is the end of a transaction, so that batches go on to the end of theirs; of a raw
        stream it is any message. `stopped_by` tells the signal. A second signal does what it would
        have done before, and so do all from the stream's end on.

        To be called in the main thread, where Python handles signals; any thread may read. Raises
        `UsageError` elsewhere, and when it was called before.
        """
        self._expect_no_signals()
        made = Signals(signals, self._signal_handler(), self._wire.owner)
        self._signals = made
        self._wire.end_waits_on(made)

    def _release_signals(self) -> None:
        self._wire.end_waits_on(None)
        super()._release_signals()

    def stop(self, timeout: float = 10.0) -> None:
        """Report for the last time, end the stream, and return to commands. Safe to call again.

        The server first sends the rest of the transaction that it is decoding, which is thrown
        away; if that takes more than `timeout` seconds the connection is closed. From another
        thread than the one that reads, which then comes to an end, it is closed as well.
        """
        if self._ended:
            return
        self._ended = True
        deadline, has_failed = Deadline(timeout), False
        try:
            if not self._wire.closed:
                self._feedback.send(final=True, timeout=timeout)
                self._wire.stop_streaming(deadline.left())
        except (TimeoutError, ConnectionFailed, UsageError):
            # A UsageError says that somebody is reading.
            has_failed = True
            self._wire.disconnect()
        finally:
            self._feedback.stop()
            self._release_signals()
            self._release_storage()
        # Behind all that the feedback's thread has told.
        self._log_end(self._reason_for_end + ", and the connection was closed" * has_failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
