"""Ctrl-C shows no password, in whatever line of connecting it comes.

A signal's handler raises between any two instructions. Here it does so in every line, and from
where authentication begins in every line for each of its callers: so what is in a local variable
for a moment only is seen, too. PGREPL_LONG=1 goes through all of them, otherwise a third is drawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import random
import ssl
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

import pgrepl
import pgrepl.aio
from tests.support import builders
from tests.support.canary import (
    CANARY,
    CLEARTEXT,
    MD5,
    OK,
    PIECES,
    READY,
    SASL,
    USER,
    found_in,
    no_chance,
)
from tests.support.disclosure import everything_about, traces
from tests.support.scram import ScramServer
from tests.support.scripted import Peer, Script, ScriptedServer, negotiate

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

PACKAGE = str(Path(pgrepl.__file__).parent)
# What holds bytes to be sent, below the package.
BELOW = {importlib.import_module(name).__file__ for name in ("asyncio.selector_events", "ssl")}
# They have what the caller gave as their arguments, as the caller's own frame has.
ENTRANCES = ("connect", "resolve")
PATIENCE = 20
STRIDE = 1 if os.environ.get("PGREPL_LONG") == "1" else 3
PURE = importlib.import_module("pgrepl.codec._pure")


class Interruption:
    """A tracer that raises in the line that comes as number `at`, each place counted once.

    `first` is the number of the place where authentication began.
    """

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.first = 0
        self.places: dict[tuple[object, ...], None] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> Interruption | None:
        code = frame.f_code
        is_below = code.co_filename in BELOW and code.co_name == "write"
        if not (is_below or code.co_filename.startswith(PACKAGE)):
            return None
        if event == "line" and code.co_name not in ENTRANCES:
            if not self.first and code.co_name == "authenticate":
                self.first = len(self.places) + 1
            caller = frame.f_back if self.first else None
            place = (code, frame.f_lineno, caller and (caller.f_code, caller.f_lineno))
            if place not in self.places:
                self.places[place] = None
                if len(self.places) == self.at:
                    raise KeyboardInterrupt
        return self


@contextlib.contextmanager
def traced(tracer: Interruption) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


def password(peer: Peer) -> None:
    peer.send(CLEARTEXT)
    peer.expect(b"p")


def md5(peer: Peer) -> None:
    peer.send(MD5)
    peer.expect(b"p")


def scram(peer: Peer) -> None:
    server = ScramServer(CANARY.encode())
    peer.send(SASL)
    first = peer.expect(b"p").partition(b"\0")[2][4:]
    peer.send(builders.authentication(11, server.first(first)))
    peer.send(builders.authentication(12, server.final(peer.expect(b"p"))))


def session(method: Callable[[Peer], None]) -> Script:
    def script(peer: Peer) -> None:
        # Where nobody could hang up, that is left to the garbage collector.
        with contextlib.suppress(TimeoutError):
            negotiate(peer)
            method(peer)
            peer.send(OK + READY)

    return script


def blocking(**keywords: Any) -> None:
    pgrepl.connect(_codec=PURE, **keywords).close()


def asynchronous(**keywords: Any) -> None:
    async def main() -> None:
        connection = await pgrepl.aio.connect(_codec=PURE, **keywords)
        await connection.close()

    asyncio.run(main())


def shown_at(at: int, connect: Callable[..., None], keywords: dict[str, Any]) -> list[str]:
    """What an interruption at this place shows, nothing where none comes."""
    try:
        with traced(Interruption(at)):
            connect(**keywords)
    except (KeyboardInterrupt, pgrepl.Error, OSError) as error:
        return found_in(everything_about(error))
    return []


@pytest.fixture(autouse=True)
def aftermath(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An event loop that was interrupted leaves things to the garbage collector, which complains
    of them, and shows nothing either."""
    told: list[str] = []
    with (
        warnings.catch_warnings(record=True) as warned,
        monkeypatch.context() as patch,
        no_chance(),
    ):
        warnings.simplefilter("always")
        patch.setattr(
            *(sys, "unraisablehook"),
            lambda each: told.append(f"{each.object!r} {everything_about(each.exc_value)}"),
        )
        yield
        for _ in range(3):
            gc.collect()
    told += [str(each.message) for each in warned]
    assert found_in("".join(told)) == []


@pytest.mark.parametrize("connect", [blocking, asynchronous])
@pytest.mark.parametrize(
    ("method", "encryption"),
    [(password, "plain"), (md5, "plain"), (scram, "plain"), (password, "TLS")],
)
def test_v17_every_line(
    encryption: str,
    method: Callable[[Peer], None],
    connect: Callable[..., None],
    certificates: CertificateSet,
) -> None:
    context: ssl.SSLContext | None = None
    if encryption == "TLS":
        context = certificates.server.server_context()
    with ScriptedServer(session(method), tls=context, timeout=3) as server:
        keywords = {
            **{"host": server.host, "port": server.port, "user": USER, "password": CANARY},
            **{"sslmode": "require" if context else "disable", "connect_timeout": PATIENCE},
            "channel_binding": "disable",
        }
        everywhere = Interruption()
        with traced(everywhere):
            connect(**keywords)
        assert 200 < everywhere.first < len(everywhere.places)
        # What comes before is the same whatever the method.
        begin = 1 if (method, encryption) == (password, "plain") else everywhere.first
        begin += random.randrange(STRIDE)
        for at in range(begin, len(everywhere.places) + 1, STRIDE):
            assert (at, shown_at(at, connect, keywords)) == (at, [])


def test_an_interruption_would_be_noticed() -> None:
    """In a line of the package where a password is in a local variable."""

    def connect(**keywords: Any) -> None:
        source = "def says(text):\n    held = text\n    return held\n"
        namespace: dict[str, Any] = {}
        exec(compile(source, f"{PACKAGE}/elsewhere.py", "exec"), namespace)
        namespace["says"](keywords["password"])

    assert "Zq7" in shown_at(2, connect, {"password": CANARY})
    assert shown_at(1000, connect, {"password": CANARY}) == []
    assert len(traces(CANARY, USER, *PIECES)) > 10
