"""A password shows nowhere, whatever it was given as, and in nothing that waits or never ran."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import pgrepl
import pgrepl.aio
from pgrepl.conninfo import parse
from tests.support.canary import CANARY, CLEARTEXT, MD5, SASL, USER, Look, found_in, watching
from tests.support.disclosure import everything_about
from tests.support.scripted import Peer, Script, ScriptedServer

PACKAGE = str(Path(pgrepl.__file__).parent)


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Iterator[Look]:
    with watching(caplog) as look:
        yield look


class Telling:
    """Says what it holds, whoever asks."""

    def __repr__(self) -> str:
        return CANARY


class TellingText(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{self}>"


GIVEN: tuple[Any, ...] = (
    TellingText(CANARY),
    Telling(),
    CANARY.encode(),
    bytearray(CANARY.encode()),
    [CANARY],
    {"password": CANARY},
    ValueError(CANARY),
    Path(CANARY),
)


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: type(given).__name__)
def test_what_is_given_in_place_of_a_password(
    connect: Callable[..., Any], watch: Look, given: Any
) -> None:
    where = {"host": "127.0.0.1", "port": 1, "user": USER}
    for arguments, keywords in (
        ((), {**where, "password": given}),
        ((), {**where, "sslpassword": given, "sslmode": "require"}),
        ((), {**where, "scram_client_key": given}),
        ((given,), where),
    ):
        with pytest.raises((pgrepl.Error, TypeError)) as caught:
            connect(*arguments, **keywords)
        watch(caught.value, CANARY)


def test_what_stands_where_something_else_belongs(
    connect: Callable[..., Any], watch: Look, tmp_path: Path
) -> None:
    for conninfo, keywords in (
        ("postgresql://ann:Zq7Xk9@127.0.0.1:1/d?password=Zq7Xk9&connect_timeout=x", {}),
        (f"host=127.0.0.1 port=1 passfile='{CANARY}'", {}),
        ("host=127.0.0.1 port=1", {"passfile": tmp_path, "password": CANARY}),
        ("host=127.0.0.1 port=1", {CANARY: 1}),
    ):
        with pytest.raises(pgrepl.Error) as caught:
            connect(conninfo, **keywords)
        watch(caught.value, CANARY)


def test_a_copy_of_what_was_read_masks_it_too() -> None:
    parsed = parse(f"user={USER} password='{CANARY}'")
    for each in (parsed, parsed.copy(), parsed | {"host": "h"}):
        assert found_in(repr(each)) == []
        assert each["password"] == CANARY
    assert type(dict(parsed)) is dict


# What waits, and what never ran


def told_by_frames() -> list[str]:
    """What is in the variables of every suspended function of pgrepl, and of what they hold."""
    told = []
    for each in gc.get_objects():
        frame = None
        if inspect.isgenerator(each):
            frame = each.gi_frame
        elif inspect.iscoroutine(each):
            frame = each.cr_frame
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            held = list(frame.f_locals.values())
            held += [vars(value) for value in held if hasattr(value, "__dict__")]
            told.append(f"{frame.f_code.co_qualname} {held}")
    return told


@pytest.mark.parametrize("request_", [b"", CLEARTEXT, MD5, SASL], ids=range(4))
def test_frames_of_a_connection_that_is_being_made(watch: Look, request_: bytes) -> None:
    async def main(server: ScriptedServer) -> BaseException:
        where: dict[str, Any] = {"host": server.host, "port": server.port, "sslmode": "disable"}
        task = asyncio.ensure_future(
            pgrepl.aio.connect(**where, user=USER, password=CANARY, connect_timeout=20)
        )
        while not heard:
            await asyncio.sleep(0.01)
        told = told_by_frames()
        assert any("authenticate" in each for each in told)
        assert found_in("".join(told)) == []
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return caught.value

    heard: list[bool] = []

    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(request_)
        if request_:
            peer.expect(b"p")
        heard.append(True)
        while peer.recv_exactly(1):
            pass

    scripted: Script = script
    with ScriptedServer(scripted) as server:
        watch(asyncio.run(main(server)), CANARY)


def test_a_connection_that_nobody_awaits(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: told.append(f"{each} {each.exc_value}"))
    tracemalloc.start(25)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            making = pgrepl.aio.connect(user=USER, password=CANARY)
            told += [repr(making), str(making), repr(vars(making)), *told_by_frames()]
            for take in (pickle.dumps, copy.deepcopy):
                with pytest.raises(TypeError) as caught:
                    take(making)
                told.append(everything_about(caught.value))
                del caught
            del making
            gc.collect()
            assert any("never awaited" in str(each.message) for each in warned)
            told += [f"{each} {each.message!r} {each.source!r}" for each in warned]
    finally:
        tracemalloc.stop()
    assert found_in("".join(told)) == []


def test_a_frame_that_tells_would_be_noticed() -> None:
    code = compile("def held(x):\n    yield\n", f"{PACKAGE}/held.py", "exec")
    namespace: dict[str, Any] = {}
    assert isinstance(code, CodeType)
    exec(code, namespace)
    suspended = namespace["held"]([CANARY])
    next(suspended)
    assert found_in("".join(told_by_frames()))
    suspended.close()
