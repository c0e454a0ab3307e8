"""Transactions that a batch has as a whole, pure Python: the twin of the native `runs.pxi`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, final

from ...lsn import Lsn
from .. import abc as contract
from ..outlines import Outline
from ..unpicklable import Unpicklable

__all__ = ["Mould", "Run", "ready"]


@final
class Mould(Unpicklable):
    __doc__ = contract.Mould.__doc__

    __slots__ = ("_templates", "read", "reading", "received", "rest")

    def __init__(
        self, received: Any, given: Any, reading: Any, read: Any, rest: Callable[[Any, Any], Any]
    ) -> None:
        self._templates = received, given
        self.received, self.reading, self.read, self.rest = received, reading, read, rest

    def make(self, next_change: Callable[[], Any], outline: Outline) -> Any:
        """Return a transaction, whose changes come from `next_change` until that gives None."""
        received, given = map(_copy_of, self._templates)
        received.xid, received.commit_time = outline.xid, outline.commit_time
        received.commit_lsn = Lsn(outline.commit_lsn)
        given._received = received  # noqa: SLF001 - fresh from here
        received.run = Run(self, received, next_change, outline.end_lsn)
        self.received = received
        return given


def _copy_of(template: Any) -> Any:
    cls = type(template)
    made = object.__new__(cls)
    for name in [name for each in cls.__mro__ for name in getattr(each, "__slots__", ())]:
        setattr(made, name, getattr(template, name))
    return made


@final
class Run(Unpicklable):
    """The changes of a transaction that a batch has as a whole, for `for` and for `async for`.

    It gives them as long as it is the transaction's `run`. Where that is so no longer, since it was
    skipped or passed over for instance, the `rest` comes as the mould says.
    """

    __slots__ = ("_end_lsn", "_mould", "_next_change", "_received", "_rest")

    def __init__(
        self, mould: Mould, received: Any, next_change: Callable[[], Any], end_lsn: int
    ) -> None:
        self._mould = mould
        self._received = received  # None: it has ended
        self._next_change = next_change
        self._end_lsn = end_lsn
        self._rest: Any = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._received is None:
            raise StopIteration
        if not self._goes_on():
            return next(self._rest)
        change = self._step()
        if change is None:
            raise StopIteration
        return change

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    def __anext__(self) -> Awaitable[Any]:
        if self._received is None:
            return ready(None)
        if not self._goes_on():
            rest: Awaitable[Any] = self._rest.__anext__()
            return rest
        return ready(self._step())

    def _goes_on(self) -> bool:
        if self._received.run is self:
            return True
        if self._rest is None:
            self._rest = self._mould.rest(self._received, self._mould.reading)
        return False

    def _step(self) -> Any:
        """Return the next change, None behind the last one."""
        try:
            change = self._next_change()
        except BaseException as error:
            self._mould.reading.has_failed(error)
            raise
        if change is None:
            self._end()
        return change

    def _end(self) -> None:
        received, self._received = self._received, None
        received.end_lsn, received.has_ended = Lsn(self._end_lsn), True
        received.unreadable, received.run = self._mould.read, None
        if received.acknowledged is not None:
            self._mould.reading.end(received)


@final
class _Ready(Unpicklable):
    """An awaitable whose result is there."""

    __slots__ = ("_result",)

    def __init__(self, result: Any) -> None:
        self._result = result

    def __await__(self) -> Generator[Any, None, Any]:
        if self._result is None:
            raise StopAsyncIteration
        return self._result
        yield


def ready(result: Any) -> Awaitable[Any]:
    """Return an awaitable for what is there; None: for the end of an asynchronous iteration."""
    return _Ready(result)
