"""Signals that ask a stream to end, for who waits for a socket: see `..signals`."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

from ...ownership import Owner
from ..signals import handlers

__all__ = ["Signals"]


class Signals:
    """Handlers for some signals, until `restore`. To be made in the main thread.

    `ask` is called with the first signal that comes; it says whether that was for it. `fileno()` is
    readable once one has come.
    """

    def __init__(self, numbers: Iterable[int], ask: Callable[[int], bool], owner: Owner) -> None:
        self._ask = ask
        self._owner: Final = owner
        self._before = handlers(numbers)
        # Sockets, since a pipe cannot be waited for on Windows.
        self._awakened, self._waker = socket.socketpair()
        self._awakened.setblocking(False)
        self._waker.setblocking(False)
        self._has_wakeup = False
        for number in self._before:
            signal.signal(number, self._handle)
        before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        if before == -1:
            self._has_wakeup = True
        else:  # somebody else's, an event loop's for instance; then the handler wakes alone
            signal.set_wakeup_fd(before)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._awakened.fileno()

    def drain(self) -> None:
        """Make `fileno()` wait again."""
        with contextlib.suppress(BlockingIOError):
            while self._awakened.recv(4096):
                pass

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.restore()
        if self._owner.is_parent or not self._ask(number):
            signal.raise_signal(number)
            return
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def restore(self) -> None:
        """Put back the handlers that were there before; in the main thread alone, where it works.
        Safe to call again."""
        if threading.current_thread() is not threading.main_thread():
            return
        before, self._before = self._before, {}
        for number, handler in before.items():
            # Unless somebody has put another one over it.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        if self._has_wakeup:
            self._has_wakeup = False
            replaced = signal.set_wakeup_fd(-1)
            if replaced != self._waker.fileno():
                signal.set_wakeup_fd(replaced)

    def close(self) -> None:
        """Restore, and close what was waited for, unless a signal may still write to it."""
        self.restore()
        if not self._has_wakeup:
            self._awakened.close()
            self._waker.close()
