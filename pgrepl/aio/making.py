"""What is awaited for its result, or entered by ``async with``, which ends the result at last."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

__all__ = ["Making"]

T = TypeVar("T", bound=AbstractAsyncContextManager[Any, None])


class Making(Coroutine[Any, Any, T], AbstractAsyncContextManager[T, None]):
    """A connection or stream that is being made: a coroutine and an asynchronous context manager.

    ``made = await making`` leaves its end to the caller.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], asked: str) -> None:
        """`asked`: the name of what was called for it."""
        self._coroutine = coroutine
        self._asked = asked
        self._made: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """See `collections.abc.Coroutine`."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """See `collections.abc.Coroutine`."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """See `collections.abc.Coroutine`."""
        self._coroutine.close()

    if not TYPE_CHECKING:  # which finds that there is no such attribute, and would be told of any

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"expected `async with` or `await` before {name!r} is asked for: what is made has "
                "it, and was not made yet",
                name=name,
                obj=self,
            )

    def __repr__(self) -> str:
        return f"<{self._asked}(...): await it, or enter it by async with>"

    async def __aenter__(self) -> T:
        self._made = await self
        return self._made

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._made is not None:
            await self._made.__aexit__(kind, error, traceback)
