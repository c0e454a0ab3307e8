"""Looking up names in an event loop: nobody waits for a resolver that does not answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

import pgrepl.aio
from pgrepl.errors import ConnectionFailed

LONG = 30


@pytest.mark.parametrize("ending", ["time limit", "cancellation"])
def test_an_event_loop_ends_before_the_resolver(
    monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Neither does the loop's own pool of threads fill up with look-ups."""
    released, begun = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if not keywords.get("flags"):
            begun.set()
            in_time.append(released.wait(LONG))
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def main() -> None:
        connecting = asyncio.ensure_future(
            pgrepl.aio.connect(host="slow.example", user="ann", connect_timeout=LONG)
        )
        await asyncio.to_thread(begun.wait)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    async def limited() -> None:
        with pytest.raises(ConnectionFailed, match=r"no answer within connect_timeout, 0\.1 s"):
            await pgrepl.aio.connect(host="slow.example", user="ann", connect_timeout=0.1)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    asyncio.run(main() if ending == "cancellation" else limited())
    released.set()
    for thread in threading.enumerate():
        if "slow.example" in thread.name:
            thread.join(LONG)
    assert in_time == [True]
