"""Ctrl-C, SIGTERM and SIGHUP, noted at once and acted upon where it is safe.

Law: a signal that comes while the program streams interrupts nothing. It is noted, a wait that is
going on ends, and the loop finds the note when positions and output are in order. Only where the
program waits for something that it has no hand in, a connection or the start of a server, does a
signal raise: inside `Interruption.raising`.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, Self

__all__ = ["Interrupted", "Interruption"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_RETRY: Final = 0.005


class Interrupted(BaseException):
    """A signal asked the program to end. No `Exception`, so that nothing takes it for an error."""


class Interruption:
    """Handles the signals for as long as it is entered. Works in the main thread alone.

    `signum` is the first signal that came, 0 before; `fileno()` becomes readable at that moment.
    With `hangup` SIGHUP is noted as well, which does not ask the program to end; see `take_hangup`.
    """

    def __init__(self, hangup: bool = False) -> None:
        self.signum = 0
        self._hangup = hangup and hasattr(signal, "SIGHUP")
        self._has_hung_up = False
        self._raises = False
        self._is_critical: Callable[[FrameType], bool] | None = None

    @property
    def exit_status(self) -> int:
        """What the program exits with, by the convention of shells; 0 when no signal came."""
        return 128 + self.signum if self.signum else 0

    def fileno(self) -> int:
        """Return the descriptor to wait for together with others."""
        return self._awakened.fileno()

    def __enter__(self) -> Self:
        # Sockets, since a pipe cannot be waited for on Windows.
        self._awakened, self._waker = socket.socketpair()
        self._awakened.setblocking(False)
        self._waker.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._note_signal) for number in _SIGNALS
        }
        if self._hangup:
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._note_hangup)
        return self

    def __exit__(self, *_: object) -> None:
        if getattr(signal, "SIGALRM", None) in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._awakened.close()
        self._waker.close()

    def take_hangup(self) -> bool:
        """Say whether SIGHUP came since this was asked last."""
        taken, self._has_hung_up = self._has_hung_up, False
        return taken

    def drain(self) -> None:
        """Make `fileno()` wait again after a signal that does not end the program."""
        if self.signum:
            return
        with contextlib.suppress(BlockingIOError):
            self._awakened.recv(4096)
        self._wake_if_noted()

    def _wake_if_noted(self) -> None:
        # The byte of a signal that came while others were drained went with them.
        if self.signum:
            with contextlib.suppress(BlockingIOError):
                self._waker.send(b"\0")

    def pause(self, seconds: float) -> bool:
        """Wait, and say whether a signal asked the program to end."""
        deadline = time.monotonic() + seconds
        while not self.signum and (left := deadline - time.monotonic()) > 0:
            if select.select([self._awakened], [], [], left)[0]:
                self.drain()
        return self.signum != 0

    @contextlib.contextmanager
    def raising(self, is_critical: Callable[[FrameType], bool] | None = None) -> Iterator[None]:
        """Raise `Interrupted` in the block when a signal comes, or has come before it; once.

        Not where `is_critical` says of the frame that was interrupted, or of one that called it,
        that it must not be left half done; then as soon as it is through.
        """
        self._is_critical = is_critical
        self._raises = True
        try:
            if self.signum:
                raise Interrupted
            yield
        finally:
            self._raises = False

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self.signum = self.signum or number
        self._raise_interrupted_if_wanted(frame)

    def _note_hangup(self, _: int, __: FrameType | None) -> None:
        self._has_hung_up = True

    def _raise_interrupted_if_wanted(self, frame: FrameType | None) -> None:
        if not self._raises:
            return
        if self._is_critical is not None and _any_of_stack(frame, self._is_critical):
            # There is no way to be told when it is through, so come back and look again.
            before = signal.signal(signal.SIGALRM, self._raise_once_through)
            self._before.setdefault(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, _RETRY)
            return
        self._raises = False  # whatever is undone on the way out is not to be interrupted again
        raise Interrupted

    def _raise_once_through(self, _: int, frame: FrameType | None) -> None:
        self._raise_interrupted_if_wanted(frame)


def _any_of_stack(frame: FrameType | None, test: Callable[[FrameType], bool]) -> bool:
    while frame is not None:
        if test(frame):
            return True
        frame = frame.f_back
    return False
