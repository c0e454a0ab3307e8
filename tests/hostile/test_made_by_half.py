"""Objects that were never finished, and what copies of others would be: a clear error or nothing,
and nothing that `__del__` prints."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import pytest

import pgrepl
from pgrepl import aio
from pgrepl.aio.backup import AsyncBackup
from pgrepl.aio.raw_stream import AsyncRawStream
from pgrepl.aio.stream import AsyncStream, AsyncTransaction
from pgrepl.blocking.backup import Backup
from pgrepl.secret import Secret
from pgrepl.transport.aio.driver import AsyncTransport
from pgrepl.transport.aio.feedback import AsyncFeedback
from pgrepl.transport.blocking.driver import BlockingTransport
from pgrepl.transport.blocking.feedback import Feedback
from pgrepl.transport.tls_filter import TLSFilter
from tests.hostile.sessions import address
from tests.support.scripted import Peer, ScriptedServer, handshake

CLASSES: Final[tuple[type[Any], ...]] = (
    *(pgrepl.Connection, pgrepl.Stream, pgrepl.RawStream, pgrepl.Transaction),
    *(aio.AsyncConnection, AsyncStream, AsyncRawStream, AsyncTransaction),
    *(Backup, AsyncBackup),
    *(BlockingTransport, AsyncTransport, Feedback, AsyncFeedback, TLSFilter),
)

WAYS: Final[dict[str, Callable[[Any], object]]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": partial(pickle.dumps, protocol=n) for n in (0, 2, 5)},
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_copied(way: str) -> None:
    for kind in CLASSES:
        made = object.__new__(kind)
        with pytest.raises(TypeError, match=f"cannot copy or pickle '{kind.__name__}' objects"):
            WAYS[way](made)
    with pytest.raises(TypeError, match="a secret cannot be"):
        WAYS[way](Secret("x"))


@pytest.mark.parametrize("api", ["blocking", "asyncio"])
def test_ctrl_c_while_it_is_made(api: str, codec: ModuleType) -> None:
    def batch() -> None:
        raise KeyboardInterrupt

    def script(peer: Peer) -> None:
        handshake(peer)
        peer.expect_hang_up()

    async def connect(server: ScriptedServer, interrupted: Any) -> None:
        await aio.connect(**address(server), _codec=interrupted)

    interrupted: Any = SimpleNamespace(**{**vars(codec), "WalBatch": batch})
    with ScriptedServer(script) as server:
        with pytest.raises(KeyboardInterrupt):
            if api == "blocking":
                pgrepl.connect(**address(server), _codec=interrupted)
            else:
                asyncio.run(connect(server, interrupted))
        gc.collect()
