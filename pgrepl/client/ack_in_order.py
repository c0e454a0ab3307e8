"""Acknowledging what several workers finish out of order.

Law: a position says "this, and everything before it". So of what is done only the contiguous prefix
may be acknowledged: what lies behind something that is still being worked on waits for it.

What waits is kept as runs. The end of a run stands for all of it, and a run lies behind something
that is not done; so however many are done behind one that takes long, there are never more runs
than things under way.
"""

from __future__ import annotations

import threading
from typing import Any, Final, Generic, Protocol, TypeVar

from ..errors import UsageError
from ..public import imported_from

__all__ = ["AckInOrder"]

T = TypeVar("T")


class AcknowledgedStream(Protocol):
    """What is known of a stream here."""

    def ack(self, upto: Any) -> None:
        """Acknowledge everything up to something that the stream gave."""


class _Taken(Generic[T]):
    """Something that is not done yet, and the end of the run of those that are, right behind it."""

    __slots__ = ("after", "before", "item", "run")

    def __init__(self, item: T | None, before: _Taken[T] | None) -> None:
        self.item = item
        self.before = before
        self.after: _Taken[T] | None = None
        self.run: T | None = None


@imported_from("pgrepl")
class AckInOrder(Generic[T]):
    """Told what was taken, in order, and what is done, in any order; acknowledges the longest
    prefix that is done.

    ::

        acks = pgrepl.AckInOrder(stream)
        async for transaction in stream.transactions(whole=True):
            acks.take(transaction)  # before a worker can have it
            await queue.put(transaction)
        ...
        acks.done(transaction)  # by any worker, in any order

    What is never done, since its worker failed, is not acknowledged and nor is what comes behind
    it: all of that comes again when the slot is streamed again. Memory is taken for what is under
    way, and for one more at most for each of these. Safe for threads; nothing here waits.
    """

    def __init__(self, stream: AcknowledgedStream) -> None:
        """`stream`: of either flavour, decoded or raw; what is taken is what its `ack` takes."""
        self._stream: Final = stream
        self._lock: Final = threading.Lock()
        self._front: _Taken[T] = _Taken(None, None)  # everything before it is acknowledged
        self._last = self._front
        self._under_way: dict[int, _Taken[T]] = {}

    def take(self, item: T) -> T:
        """Take note of what the stream gave, in the order in which it did; return it.

        Raises `UsageError` for what was taken before and is not done.
        """
        with self._lock:
            if id(item) in self._under_way:
                raise UsageError(f"expected something new to be taken, got {item!r:.100} again")
            taken = _Taken(item, self._last)
            self._last.after = taken
            self._last = taken
            self._under_way[id(item)] = taken
        return item

    def done(self, item: T) -> None:
        """Take note that something that was taken is done with: the same object, once.

        Acknowledges it, and what was done behind it, if all before it is done; and raises what
        `ack` raises: `UsageError` when the stream has ended, and so does what was not taken.
        """
        with self._lock:
            taken = self._under_way.pop(id(item), None)
            if taken is None:
                raise UsageError(
                    f"expected something that was taken and is not done yet, got {item!r:.100}"
                )
            before = taken.before
            assert before is not None
            before.after = taken.after
            if taken.after is None:
                self._last = before
            else:
                taken.after.before = before
            end = item if taken.run is None else taken.run
            if before is self._front:
                # Within the lock, so that none overtakes another.
                self._stream.ack(end)
            else:
                before.run = end

    @property
    def pending(self) -> list[T]:
        """What was taken and is not done, in order: the first keeps back all that is done behind
        it."""
        with self._lock:
            return [taken.item for taken in self._under_way.values() if taken.item is not None]

    def __len__(self) -> int:
        """Return how many were taken and are not done."""
        return len(self._under_way)

    def __repr__(self) -> str:
        pending = self.pending
        first = f", the first is {pending[0]!r:.100}" if pending else ""
        return f"<pgrepl.AckInOrder {len(pending)} pending{first}>"
