"""Receiving a stream, asyncio: the wait for what comes, and the end. All kinds of streams do it."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Self

from ..client.reception import BaseReception
from ..errors import ConnectionFailed, UsageError
from ..transport.aio.feedback import AsyncFeedback
from ..transport.aio.signals import AsyncSignals
from ..transport.clock import Deadline
from .wire import AsyncStreamWire

__all__ = ["AsyncReception"]


class AsyncReception(BaseReception):
    """A stream over a connection of an event loop; ``async with`` stops it."""

    _wire: AsyncStreamWire
    _feedback: AsyncFeedback

    def _close(self) -> None:
        self._wire.close()

    async def _next_batch(self, deadline: Deadline) -> Any | None:
        """Return the next batch; None: the stream was stopped by another task, or nothing more is
        to be given."""
        if self._limit is not None and self._ends_at_limit():
            return None
        try:
            batch = self._wire.batch_at_hand()
            return await self._wait_for_batch(deadline) if batch is None else batch
        except (ConnectionFailed, UsageError):
            if self._ended:
                return None
            raise

    async def _wait_for_batch(self, deadline: Deadline) -> Any:
        """Wait for a batch, telling the server what it should know before; None: as above.

        A batch ends the wait for the feedback when that has received it.
        """
        is_in_vain = True
        try:
            while True:
                limit = self._wait_begins(deadline.left())
                try:
                    batch = await self._wire.next_batch(limit)
                except TimeoutError:
                    pass
                else:
                    is_in_vain = False
                    return batch
                self._feedback.silence()
                if self._limit is not None and self._is_at_limit:
                    return None
                if deadline.left() == 0.0:
                    raise TimeoutError("nothing came in time; the stream goes on")
        finally:
            if is_in_vain:
                self._feedback.wait_ends()

    def stop_on(self, *signals: int) -> None:
        """Have these signals end the iteration in order; see `Stream.stop_on`.

        By the event loop, which must be the main thread's; handlers that `add_signal_handler` of
        the loop set before are replaced for good, all others come back. The task that reads comes
        to its end by itself, and is not cancelled.
        """
        self._expect_no_signals()
        self._signals = AsyncSignals(signals, self._signal_handler(), self._wire.owner)

    def _end_by_signal(self, number: int) -> bool:
        was_on = super()._end_by_signal(number)
        if was_on:
            self._wire.end_wait()
        return was_on

    async def stop(self, timeout: float = 10.0) -> None:
        """Report for the last time, end the stream, and return to commands; see `Stream.stop`.

        While another task reads, which then comes to an end, the connection is closed.
        """
        if self._ended:
            return
        self._ended = True
        try:
            # A UsageError says that somebody is reading.
            with contextlib.suppress(TimeoutError, ConnectionFailed, UsageError):
                if not self._wire.closed:
                    self._feedback.send(final=True)
                    self._feedback.stop()
                    await self._wire.stop_streaming(timeout)
                self._log_end(self._reason_for_end)
                return
            self._log_end(f"{self._reason_for_end}, and the connection was closed")
            await self._wire.disconnect()
        except BaseException:
            self._close()
            raise
        finally:
            self._feedback.stop()
            self._release_signals()
            self._release_storage()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
