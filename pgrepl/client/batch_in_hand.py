"""The batch that `receive_wal_message` hands out, message by message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["BatchInHand"]


class BatchInHand:
    """One batch, and how far it has come: `next(in_hand.messages, None)` is the next message."""

    __slots__ = ("_batch", "_empty", "messages")

    def __init__(self, empty: Any) -> None:
        """`empty`: a `WalBatch` of the twin in use, with nothing in it."""
        # Any: the rooms above the codec know a batch by its contract alone.
        self._empty = empty
        self._batch = empty
        self.messages: Iterator[Any] = iter(())

    def begin(self, batch: Any) -> Any:
        """Begin with the messages of another batch; return the first one, None of an empty one."""
        self._batch = batch
        self.messages = iter(batch)
        return next(self.messages, None)

    def take_rest(self) -> Any:
        """Return the batch of what was not handed out one by one, or None."""
        batch = self._batch
        # Counted now and not with every message: hardly anybody takes both ways.
        left = sum(1 for _ in self.messages)
        self.forget()
        return batch.tail(len(batch) - left) if left else None

    def forget(self) -> None:
        """Drop the batch, and what is left of it."""
        self._batch = self._empty
        self.messages = iter(())
