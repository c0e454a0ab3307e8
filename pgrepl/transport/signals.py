"""Signals that ask a stream to end: noted, and passed on where they are not for it.

Law: what handled a signal before gets the next one. So the first asks for the end in order, and a
second one does what it would have done without. A forked child, which inherits the handlers, and a
stream that is over leave even the first to what was there before.

The interpreter calls a handler in the main thread, and when that happens to run; a thread that
waits for a socket is woken by another one, which the interpreter writes to at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from typing import Any

from ..errors import UsageError

__all__ = ["handlers"]


def handlers(numbers: Iterable[int]) -> dict[int, Any]:
    """Return the handlers of signals as they are; `UsageError` outside of the main thread."""
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
