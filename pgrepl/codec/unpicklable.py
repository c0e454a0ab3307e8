"""What Python could pickle, and the native twin could not: it belongs to one stream."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

__all__ = ["Unpicklable"]


class Unpicklable:
    """Neither pickled nor copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")
