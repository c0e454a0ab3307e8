"""Signals that ask a stream to end, for who waits in an event loop: see `..signals`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

from ...ownership import Owner
from ..signals import handlers

__all__ = ["AsyncSignals"]


class AsyncSignals:
    """Handlers for some signals, until `restore`, in the running event loop: the main thread's.

    `ask` is called with the first signal that comes; it says whether that was for it.
    """

    def __init__(self, numbers: Iterable[int], ask: Callable[[int], bool], owner: Owner) -> None:
        self._ask = ask
        self._owner: Final = owner
        self._before = handlers(numbers)
        self._loop = loop = asyncio.get_running_loop()
        self._added: set[int] = set()
        for number in self._before:
            try:
                loop.add_signal_handler(number, self._handle, number)
                self._added.add(number)
            except NotImplementedError:  # on Windows
                signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._handle, number)

    def _handle(self, number: int) -> None:
        self.restore()
        if self._owner.is_parent or not self._ask(number):
            signal.raise_signal(number)

    def restore(self) -> None:
        """Put back the handlers that were there before. Safe to call again.

        Those of the event loop itself are not known, and stay away.
        """
        before, self._before = self._before, {}
        for number, handler in before.items():
            if number in self._added and not self._loop.is_closed():
                self._loop.remove_signal_handler(number)
            signal.signal(number, handler)

    close = restore
