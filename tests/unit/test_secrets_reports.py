"""A password is in no report: of a program that fails, of libraries that print variables, of a
debugger that walks from object to object."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import pgrepl
import pgrepl.aio
from pgrepl.codec import FrameReader
from pgrepl.conninfo import resolve
from pgrepl.protocol.conversation import RECEIVE, Conversation, Exchange, Send
from pgrepl.transport.aio.driver import AsyncTransport
from pgrepl.transport.clock import Deadline
from tests.support import builders
from tests.support.canary import (
    CANARY,
    CLEARTEXT,
    MD5,
    OK,
    READY,
    REJECTED,
    SASL,
    SCRIPTS,
    USER,
    Look,
    found_in,
    no_chance,
    sends,
    watching,
)
from tests.support.disclosure import as_libraries_show, everything_about
from tests.support.event_loops import LOOPS, loop_factory
from tests.support.scripted import Peer, Script, ScriptedServer

ROOT = Path(__file__).parents[2]
PATIENCE = 20


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("PG") and not name.startswith("PGREPL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Iterator[Look]:
    with watching(caplog) as look:
        yield look


def address(*servers: ScriptedServer, **more: Any) -> dict[str, Any]:
    return {
        "host": ",".join(each.host for each in servers),
        "port": ",".join(str(each.port) for each in servers),
        **{"user": USER, "password": CANARY, "sslmode": "disable", "connect_timeout": PATIENCE},
        **more,
    }


def waits(*messages: bytes) -> Script:
    """A script that says this, and then nothing until it is hung up on."""

    def script(peer: Peer) -> None:
        peer.recv_startup()
        for message in messages:
            peer.send(message)
        while peer.recv_exactly(1):
            pass

    return script


def session(peer: Peer) -> None:
    peer.recv_startup()
    peer.send(CLEARTEXT)
    peer.expect(b"p")
    peer.send(OK + builders.backend_key_data() + READY)
    while peer.recv_exactly(1):
        pass


# Libraries that print variables


def test_v17_what_libraries_print() -> None:
    pytest.importorskip("rich")
    with no_chance():
        # It takes its time: one of each kind.
        for name, script in list(SCRIPTS.items())[3::7]:
            with ScriptedServer(script) as server, pytest.raises(pgrepl.Error) as caught:
                pgrepl.connect(**address(server))
            shown = as_libraries_show(caught.value)
            assert "pgrepl" in shown
            assert found_in(shown) == [], name


def test_what_libraries_print_would_be_noticed(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    namespace: dict[str, Any] = {}
    source = "def outer(secret):\n    held = [secret]\n    raise ValueError('held')\n"
    # rich shows variables beside the lines of a file, and cgitb left with Python 3.13.
    file = tmp_path / "outer.py"
    file.write_text(source)
    exec(compile(source, file, "exec"), namespace)
    with pytest.raises(ValueError, match="held") as caught:
        namespace["outer"](CANARY)
    assert "Zq7" in as_libraries_show(caught.value)


# Objects


def reachable(start: object) -> Iterator[tuple[str, object]]:
    """What a debugger gets to from an object, by attributes and the elements of containers."""
    seen: dict[int, object] = {}
    left = [(type(start).__name__, start)]
    while left:
        path, each = left.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        yield path, each
        slots = [name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ())]
        inside: dict[object, object] = {**getattr(each, "__dict__", {})}
        inside |= {name: getattr(each, name) for name in slots if hasattr(each, name)}
        if isinstance(each, dict):
            inside |= each
        elif isinstance(each, list | tuple | set | frozenset):
            inside |= dict(enumerate(each))
        left += [
            (f"{path}.{name}", value)
            for name, value in inside.items()
            if type(value).__module__.startswith(("pgrepl", "builtins", "socket", "ssl"))
        ]


def _assert_nothing_shows(start: object) -> int:
    count = 0
    for path, each in reachable(start):
        count += 1
        shown = f"{each!r} {each!s}"
        try:
            shown += pickle.dumps(each).decode("latin-1")
        except Exception as refused:
            shown += f"{refused} {everything_about(refused)}"
        assert found_in(shown) == [], path
    return count


def test_v17_what_can_be_reached_from_a_connection() -> None:
    with no_chance(), ScriptedServer(session) as server:
        with pgrepl.connect(**address(server)) as connection:
            assert _assert_nothing_shows(connection) > 50

        async def main() -> None:
            async with pgrepl.aio.connect(**address(server)) as connection:
                assert _assert_nothing_shows(connection) > 50

        asyncio.run(main())


def test_what_can_be_reached_from_parameters() -> None:
    parameters = resolve(f"postgresql://{USER}:{quote(CANARY, safe='')}@h/d?sslpassword=Zq7Xk9", {})
    assert _assert_nothing_shows(parameters) > 20
    assert "Zq7" in "".join(repr(each) for _, each in reachable({"a": [CANARY]}))


# Failures of more than one attempt


def test_several_hosts(watch: Look) -> None:
    scripts = [
        sends(CLEARTEXT, hears=1),
        sends(MD5, hears=1),
        sends(SASL, hears=1),
        SCRIPTS["the password rejected"],
    ]
    servers = [ScriptedServer(script) for script in scripts]
    with servers[0], servers[1], servers[2], servers[3]:
        with pytest.raises(pgrepl.ConnectionFailed, match="could not connect to any") as caught:
            pgrepl.connect(**address(*servers[:3]))
        watch(caught.value, CANARY)
        with pytest.raises(pgrepl.AuthenticationRejected) as rejected:
            pgrepl.connect(**address(*servers))
        assert rejected.value.__notes__
        watch(rejected.value, CANARY)


def test_a_password_for_each_host_in_a_file(watch: Look, tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    scripts = [sends(CLEARTEXT, hears=1), SCRIPTS["SCRAM rejected"]]
    with ScriptedServer(scripts[0]) as one, ScriptedServer(scripts[1]) as other:
        file.write_text(f"*:{one.port}:*:*:{CANARY}\n*:{other.port}:*:*:{CANARY}\n", "utf-8")
        file.chmod(0o600)
        with pytest.raises(pgrepl.AuthenticationRejected) as caught:
            pgrepl.connect(**address(one, other, password=None, passfile=file))
        watch(caught.value, CANARY)


def test_a_request_to_cancel_that_fails(watch: Look) -> None:
    def refuses(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(REJECTED)

    def falls_silent(peer: Peer) -> None:
        peer.recv_startup()
        while peer.recv_exactly(1):
            pass

    with (
        ScriptedServer(session, refuses, falls_silent) as server,
        pgrepl.connect(**address(server)) as connection,
    ):
        with pytest.raises(pgrepl.ServerError) as refused:
            connection.cancel(timeout=PATIENCE)
        watch(refused.value, CANARY)
        with pytest.raises((pgrepl.Error, TimeoutError)) as late:
            connection.cancel(timeout=0.1)
        watch(late.value, CANARY)


# Tasks


@pytest.mark.parametrize("ending", ["cancellation", "time limit"])
def test_a_task_that_is_cut_off(watch: Look, ending: str) -> None:
    async def cut_off(server: ScriptedServer) -> BaseException:
        task = asyncio.ensure_future(pgrepl.aio.connect(**address(server)))
        assert found_in(repr(task)) == []
        if ending == "time limit":
            try:
                async with asyncio.timeout(0.05):
                    await task
            except TimeoutError as error:
                return error
        await asyncio.sleep(0.05)
        assert found_in(f"{task!r} {task.get_stack()} {task.get_coro()}") == []
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            return error
        raise AssertionError("it was cut off")

    for messages in ((), (CLEARTEXT,), (MD5,), (SASL,), (OK,)):
        with ScriptedServer(waits(*messages)) as server:
            watch(asyncio.run(cut_off(server)), CANARY)


@pytest.mark.parametrize("loop", LOOPS)
def test_v17_what_an_event_loop_could_not_send(watch: Look, loop: str) -> None:
    """The loop's functions have it in their local variables."""

    def says_and_waits() -> Conversation[None]:
        yield Send(CANARY.encode())
        yield RECEIVE

    async def fails() -> BaseException:
        here, there = socket.socketpair()
        here.setblocking(False)
        transport = AsyncTransport(here, FrameReader())
        await transport.attach()
        there.close()
        with pytest.raises(pgrepl.ConnectionFailed) as caught:
            await transport.run(Exchange(says_and_waits()), Deadline(PATIENCE))
        transport.close()
        await transport.wait_closed()
        return caught.value

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        watch(runner.run(fails()), CANARY)


# Programs

PROGRAM = """
import asyncio, faulthandler, logging, os, sys, threading
import pgrepl, pgrepl.aio

logging.basicConfig(level=logging.DEBUG)
how, host, port, password = sys.argv[1], sys.argv[2], sys.argv[3], os.environ["CANARY"]
address = {"host": host, "port": port, "user": "ann", "sslmode": "disable", "connect_timeout": 20}


def connect():
    return pgrepl.connect(password=password, **address)


async def connect_in_a_loop():
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    return await pgrepl.aio.connect(password=password, **address)


async def never_retrieved():
    task = asyncio.ensure_future(connect_in_a_loop())
    await asyncio.wait([task])


async def forgotten_in_a_loop():
    connection = await connect_in_a_loop()
    del connection


async def left_running():
    asyncio.ensure_future(connect_in_a_loop())
    await asyncio.sleep(0.2)
    faulthandler.dump_traceback(all_threads=True)
    raise RuntimeError("left")


match how:
    case "an error":
        connect()
    case "an error in a thread":
        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
    case "an error in a loop":
        asyncio.run(connect_in_a_loop())
    case "an error that nobody asks for":
        asyncio.run(never_retrieved())
    case "a connection that is forgotten":
        connection = connect()
        print(connection)
        del connection
    case "a connection that is forgotten in a loop":
        asyncio.run(forgotten_in_a_loop())
    case "a task that is left":
        asyncio.run(left_running())
    case "a crash":
        threading.Timer(0.3, os.abort).start()
        connect()
"""

FAILS = SCRIPTS["a wrong signature"]
PROGRAMS: dict[str, tuple[Script, str]] = {
    "an error": (FAILS, "pgrepl.AuthenticationError"),
    "an error in a thread": (FAILS, "pgrepl.AuthenticationError"),
    "an error in a loop": (FAILS, "pgrepl.AuthenticationError"),
    "an error that nobody asks for": (FAILS, "never retrieved"),
    "a connection that is forgotten": (session, "ResourceWarning"),
    "a connection that is forgotten in a loop": (session, "was not closed"),
    "a task that is left": (waits(SASL), "RuntimeError: left"),
    "a crash": (waits(CLEARTEXT), "Fatal Python error: Aborted"),
}


@pytest.mark.parametrize("how", PROGRAMS)
def test_a_program_that_fails(how: str) -> None:
    """With everything on that Python and asyncio have to look into a program."""
    script, words = PROGRAMS[how]
    options = ("-X", "dev", "-X", "faulthandler", "-W", "always")
    with ScriptedServer(script) as server:
        done = subprocess.run(
            [sys.executable, *options, "-c", PROGRAM, how, server.host, str(server.port)],
            env={**os.environ, "CANARY": CANARY, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=100,
            cwd=ROOT,
        )
    told = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert words in told
    assert found_in(told.replace(PROGRAM, "")) == []


# The program `pgrepl`

QUOTED = quote(CANARY, safe="")
COMMANDS = (
    ["identify"],
    ["doctor"],
    ["demo"],
    ["slots", "list"],
    ["slots", "drop", "--slot", "s"],
    ["stream", "--slot", "s", "-P", "p"],
)
MISTAKES: dict[str, list[str]] = {
    "a server that is not there": [f"postgresql://{USER}:{QUOTED}@127.0.0.1:1/d"],
    "a port that is none": [f"postgresql://{USER}:{QUOTED}@h:x/d"],
    "an at sign in the password": [f"postgresql://{USER}:{CANARY}@{CANARY}@h/d"],
    "a space in the password": ["host=127.0.0.1 password=Zq7 Xk9"],
    "no quotes": ["host=127.0.0.1", "password=Zq7Xk9"],
    "no quotes and a space": ["host=127.0.0.1", "password=Zq7", "Xk9"],
    "two URIs": [f"postgresql://{USER}:{QUOTED}@h/d"] * 2,
    "an option": ["--password=Zq7Xk9"],
    "an option and its value": ["--password", "Zq7Xk9"],
    "a short option": ["-pZq7Xk9"],
    "an unknown keyword": ["host=127.0.0.1 passwd=Zq7Xk9"],
    "help": ["password=Zq7Xk9", "--help"],
    "version": ["--version", "password=Zq7Xk9"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_v17_what_the_program_says(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("click")
    from pgrepl.cli import main

    for command in ([], ["slots"], *COMMANDS):
        if command == ["demo"] and mistake in ("help", "version"):
            continue
        with pytest.raises(SystemExit):
            main([*command, *MISTAKES[mistake]])
        said = capfd.readouterr()
        assert found_in(said.out + said.err) == [], command
        assert said.out + said.err, command
