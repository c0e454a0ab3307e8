"""What interrupts a wait stands alone: no error that was dealt with is shown along with it."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from pgrepl import aio
from tests.hostile.decoded import begin_decoded
from tests.hostile.sessions import PATIENCE, START, address, begin_stream
from tests.support import builders
from tests.support.scripted import (
    SSL_REQUEST,
    Peer,
    Script,
    ScriptedServer,
    handshake,
    negotiate,
)

SOON: Final = 0.05


def silent_after(beginning: Callable[[Peer], object]) -> Script:
    def script(peer: Peer) -> None:
        beginning(peer)
        while peer.recv_exactly(1):
            pass

    return script


def asks_for_tls(peer: Peer) -> None:
    assert peer.recv_startup().code == SSL_REQUEST


def grants_tls(peer: Peer) -> None:
    asks_for_tls(peer)
    peer.send(b"S")


def started(peer: Peer) -> None:
    peer.recv_startup()


def decoded(connection: Any) -> Any:
    return connection.stream("s", publications=["p"])


def raw(connection: Any) -> Any:
    return connection.start_streaming(START, timeout=PATIENCE)


# Up to where the server is silent, how the session begins, and who waits then; `None`: `connect`.
WAITS: Final[dict[str, tuple[Callable[[Peer], object], Any, Any]]] = {
    "for the answer about TLS": (asks_for_tls, None, None),
    "for the handshake": (grants_tls, None, None),
    "for the start-up": (started, None, None),
    "for a command": (handshake, None, lambda session: session.query("SELECT 1")),
    "for messages": (begin_stream, raw, lambda session: session.receive_wal_message()),
    "for changes": (begin_decoded, decoded, lambda stream: stream.receive()),
    "to stop": (begin_decoded, decoded, lambda stream: stream.stop()),
}
ITERATED: Final[dict[str, Any]] = {
    "messages": lambda stream: stream,
    "transactions": lambda stream: stream.transactions(),
    "batches": lambda stream: stream.batches(),
}


def keywords(name: str, server: ScriptedServer) -> dict[str, Any]:
    mode = "require" if "TLS" in name or "handshake" in name else "disable"
    return address(server, sslmode=mode)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C comes soon."""
    timer = threading.Timer(SOON * 4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    yield
    timer.join()


def alone(error: BaseException) -> None:
    assert (error.__context__, error.__cause__) == (None, None)


def case(name: str) -> tuple[Any, Any, Any]:
    if name in ITERATED:
        return begin_decoded, decoded, lambda stream: next(iter(ITERATED[name](stream)))
    return WAITS[name]


@pytest.mark.parametrize("name", [*WAITS, *ITERATED])
def test_ctrl_c(name: str, ctrl_c: None) -> None:
    beginning, begin, wait = case(name)
    with ScriptedServer(silent_after(beginning)) as server, contextlib.ExitStack() as ends:
        with pytest.raises(KeyboardInterrupt) as caught:
            connection: Any = ends.enter_context(pgrepl.connect(**keywords(name, server)))
            stream = begin(connection) if begin else None
            if stream is not None:
                ends.callback(stream.stop, 0)
            wait(connection if stream is None else stream)
        alone(caught.value)


@pytest.mark.parametrize("name", [*WAITS, *ITERATED])
def test_cancellation(name: str) -> None:
    async def follow(stream: Any) -> None:
        async for _ in ITERATED[name](stream):
            pass

    async def scenario(server: ScriptedServer) -> None:
        _, begin, wait = case(name)
        if name in ITERATED:
            wait = follow
        made: list[Any] = []

        async def work() -> None:
            made.append(await aio.connect(**keywords(name, server)))
            stream = await begin(made[0]) if begin else None
            await wait(made[0] if stream is None else stream)

        task = asyncio.create_task(work())
        await asyncio.sleep(SOON * 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        alone(caught.value)
        for connection in made:
            await connection.disconnect()

    with ScriptedServer(silent_after(case(name)[0])) as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize(
    ("beginning", "begin", "wait"),
    [
        (handshake, None, lambda made: made.query("SELECT 1", timeout=SOON)),
        (begin_stream, raw, lambda made: made.receive_wal_message(timeout=SOON)),
        (begin_stream, raw, lambda made: made.receive_wal_messages(timeout=SOON)),
        (begin_decoded, decoded, lambda made: made.receive(timeout=SOON)),
    ],
    ids=["a command", "a message", "messages", "changes"],
)
@pytest.mark.parametrize("api", ["blocking", "asyncio"])
def test_time_limits(api: str, beginning: Any, begin: Any, wait: Any) -> None:
    async def scenario(server: ScriptedServer) -> None:
        async with aio.connect(**address(server)) as connection:
            stream = await begin(connection) if begin else None
            with pytest.raises(TimeoutError) as caught:
                await wait(connection if stream is None else stream)
            alone(caught.value)

    with ScriptedServer(silent_after(beginning)) as server:
        if api == "asyncio":
            asyncio.run(scenario(server))
            return
        with pgrepl.connect(**address(server)) as connection:
            stream = begin(connection) if begin else None
            with pytest.raises(TimeoutError) as caught:
                wait(connection if stream is None else stream)
            alone(caught.value)
        if stream is not None:
            stream.stop()


@pytest.mark.parametrize("api", ["blocking", "asyncio"])
def test_time_limits_of_connecting(api: str) -> None:
    with ScriptedServer(silent_after(started)) as server:
        limited = address(server, connect_timeout=SOON)
        with pytest.raises(pgrepl.ConnectionFailed) as caught:
            if api == "blocking":
                pgrepl.connect(**limited)
            else:
                asyncio.run(aio.connect(**limited))
        alone(caught.value)


# Where it was raised from


def functions_in(error: BaseException) -> list[str]:
    """Which functions its traceback shows below the test's own."""
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return names[names.index("turned_away") + 1 :]


def turned_away(server: ScriptedServer, **more: Any) -> None:
    pgrepl.connect(**address(server), **more)


def test_who_is_turned_away_is_not_shown_the_inside() -> None:
    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(builders.error_response("go away", sqlstate="28P01", severity="FATAL"))
        peer.expect_hang_up()

    async def main(server: ScriptedServer) -> None:
        async def turned_away() -> None:
            await aio.connect(**address(server))

        with pytest.raises(pgrepl.AuthenticationError) as caught:
            await turned_away()
        assert functions_in(caught.value) == ["_connect"]

    with ScriptedServer(script) as server:
        with pytest.raises(pgrepl.AuthenticationError) as caught:
            turned_away(server)
        assert functions_in(caught.value) == ["connect"]
    with ScriptedServer(script) as server:
        asyncio.run(main(server))
    # The operating system's word stays its cause.
    with pytest.raises(pgrepl.ConnectionFailed) as failed:
        turned_away(server)
    assert functions_in(failed.value) == ["connect"]
    assert isinstance(failed.value.__cause__, OSError)


def test_an_error_of_the_program_shows_where_it_is_from() -> None:
    class Codec:
        def FrameReader(self) -> None:
            raise ZeroDivisionError

    with ScriptedServer(handshake) as server, pytest.raises(ZeroDivisionError) as caught:
        turned_away(server, _codec=Codec())
    assert functions_in(caught.value)[-2:] == ["open_transport", "FrameReader"]


# Names of what waits, wherever it is called.
_WAITING: Final = {
    *(
        "_wait",
        "_wait_until_readable",
        "_wait_until_writable",
        "_wait_until_sent",
        "_receive_more",
        "_flush",
        "_next_reply",
    ),
    *("_next_frame", "_converse", "run", "run_async", "select"),
    *("next_batch", "_next_batch", "_fetch", "_fetch_until", "_finish", "sleep", "wait"),
    *("fetch_more", "_fetch_more_changes", "result"),
    *("stop_streaming", "query", "connect", "recv", "acquire"),
}


def _waits(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return name in _WAITING
    return isinstance(node, ast.Await)


def test_nothing_waits_in_a_handler() -> None:
    """But where it raises at its end what it handles: then that is the cause."""
    package = Path(pgrepl.__file__).parent
    handlers = 0
    for path in sorted(package.rglob("*.py")):
        if "cli" in path.relative_to(package).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                handlers += 1
                last = node.body[-1]
                if isinstance(last, ast.Raise) and last.exc is None:
                    continue
                waiting = [
                    ast.unparse(each)
                    for part in node.body
                    for each in ast.walk(part)
                    if _waits(each)
                ]
                assert not waiting, f"{path}: in the handler of line {node.lineno}: {waiting}"
    assert handlers > 50
