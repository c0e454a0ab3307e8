"""What is asked of event loops, and of their futures, in more than one place."""

from __future__ import annotations

import asyncio

__all__ = ["end_wait", "is_running", "reads_when_ready"]


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the code that asks is run by that loop, and not elsewhere, nor by none."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def reads_when_ready(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop reads when a socket is ready, and not ahead, so that others may read too."""
    if isinstance(loop, asyncio.SelectorEventLoop):
        return True
    return type(loop).__module__.partition(".")[0] == "uvloop"


def end_wait(waiter: asyncio.Future[bool], goes_on: bool = False) -> None:
    """End a wait, if it has not ended: in vain, or for whoever waits to go on."""
    if not waiter.done():
        waiter.set_result(goes_on)
