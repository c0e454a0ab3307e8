"""Signals that ask a stream to end: noted, and passed on where they are not for it.

Law: what handled a signal before gets the next one. So the first asks for the end in order, and a
second one does what it would have done without. A forked child, which inherits the handlers, and a
stream that is over leave even the first to what was there before.

The interpreter calls a handler in the main thread, and when that happens to run; a thread that
waits for a socket is woken by another one, which the interpreter writes to at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Final

from ..errors import UsageError
from ..ownership import Owner

__all__ = ["AsyncSignals", "Signals"]


class Signals:
    """Handlers for some signals, until `restore`. To be made in the main thread.

    `ask` is called with the first signal that comes; it says whether that was for it. `fileno()` is
    readable once one has come.
    """

    def __init__(self, numbers: Iterable[int], ask: Callable[[int], bool], owner: Owner) -> None:
        self._ask = ask
        self._owner: Final = owner
        self._before = _handlers(numbers)
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


class AsyncSignals:
    """The same for the running event loop, which is the main thread's."""

    def __init__(self, numbers: Iterable[int], ask: Callable[[int], bool], owner: Owner) -> None:
        self._ask = ask
        self._owner: Final = owner
        self._before = _handlers(numbers)
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


def _handlers(numbers: Iterable[int]) -> dict[int, Any]:
    """Return the handlers of signals as they are."""
    wanted = dict.fromkeys(numbers)
    if not wanted:
        raise UsageError("expected signals, signal.SIGTERM for instance, got none")
    if threading.current_thread() is not threading.main_thread():
        raise UsageError(
            "expected stop_on() in the main thread, where Python handles signals; in others, have "
            "the main thread call stop()"
        )
    # None: of C code's, which Python cannot put back.
    return {number: signal.getsignal(number) or signal.SIG_DFL for number in wanted}
