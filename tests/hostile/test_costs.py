"""Whatever a server sends costs no more than an error: little memory, little CPU time, no thread
and no descriptor.

Measured in processes of their own, which have done the same before: CPU time is the process's, not
the clock's, and memory is what the system gave it at the peak.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.sessions import address, begin_stream, data
from tests.support import builders
from tests.support.authenticating import OK, SASL
from tests.support.flavours import BLOCKING, Flavour
from tests.support.scram import ScramServer
from tests.support.scripted import Peer, Script, ScriptedServer, negotiate

ROOT = Path(__file__).parents[2]
MEMORY = 16 << 20
# Before authentication, all in all; the most that SCRAM may take at its limit is the password's.
CPU_SECONDS = 0.2

pytestmark = pytest.mark.flavours(*BLOCKING, "asyncio-c", "asyncio-python")


def sends(*messages: bytes, forever: bytes = b"") -> Script:
    """A script that says this, goes on with `forever`, and waits to be hung up on."""

    def script(peer: Peer) -> None:
        negotiate(peer)
        for message in messages:
            peer.send(message)
        while forever:
            peer.send(forever)
        while peer.recv_exactly(1):
            pass

    return script


def in_scram(change: Callable[[bytes], bytes], *, password: bytes = b"pencil") -> Script:
    """A script whose first message of SCRAM was changed."""

    def script(peer: Peer) -> None:
        server = ScramServer(password)
        negotiate(peer)
        peer.send(SASL)
        first = server.first(peer.expect(b"p").partition(b"\0")[2][4:])
        peer.send(builders.authentication(11, change(first)))
        peer.expect_hang_up()

    return script


def counts(count: bytes) -> Script:
    return in_scram(lambda first: first.replace(b"i=4096", b"i=" + count))


def settings_without_end(peer: Peer) -> None:
    negotiate(peer)
    peer.send(OK)
    for number in itertools.count():
        peer.send(builders.parameter_status(f"name{number}", "x" * 60_000))


def claim(tag: bytes, length: int) -> bytes:
    return struct.pack("!ci", tag, length)


NOTICE = builders.notice_response("x" * 20_000, severity="DEBUG1")

BEFORE: dict[str, Script] = {
    "nothing but notices": sends(forever=NOTICE),
    "nothing but small notices": sends(forever=builders.notice_response("x") * 500),
    "nothing but settings": settings_without_end,
    "nothing but negotiations": sends(forever=builders.negotiate_protocol_version() * 500),
    "nothing but requests": sends(forever=SASL * 500),
    "nothing but steps of SCRAM": sends(SASL, forever=builders.authentication(11, b"r=x") * 500),
    "mechanisms": sends(builders.sasl_mechanisms(*["X" * 10] * 180)),
    "no end of mechanisms": sends(builders.authentication(10, b"X\0" * 900)),
    "a GiB that is claimed": sends(claim(b"R", 2**30 - 1), forever=bytes(65536)),
    "2 GiB that are claimed": sends(claim(b"E", 2**31 - 1), forever=bytes(65536)),
    "4 GiB that are claimed": sends(claim(b"N", -1), forever=bytes(65536)),
    "as much as may be claimed": sends(claim(b"N", 65536), forever=bytes(65536)),
    "other bytes": sends(forever=bytes(range(255, -1, -1)) * 256),
    "a count of nothing": counts(b"0"),
    "a negative count": counts(b"-1"),
    "a count with a sign": counts(b"+1"),
    "a count and more": counts(b"4096x"),
    "a count of 31 bits": counts(b"2147483647"),
    "a count of ten thousand millions": counts(b"10000000000"),
    "a count above the limit": counts(b"100001"),
    "no count": counts(b""),
    "a count of a thousand digits": counts(b"9" * 1000),
    "a salt of a MiB": in_scram(lambda first: first.replace(b"s=", b"s=" + b"A" * (1 << 20))),
    "a nonce as long as can be": in_scram(lambda first: first.replace(b",", b"x" * 1800 + b",")),
}


def in_stream(*messages: bytes, forever: bytes = b"") -> Script:
    def script(peer: Peer) -> None:
        begin_stream(peer)
        for message in messages:
            peer.send(message)
        while forever:
            peer.send(forever)
        while peer.recv_exactly(1):
            pass

    return script


def trickle(peer: Peer) -> None:
    begin_stream(peer)
    peer.send(data(1) + claim(b"d", 2**30 - 1) + b"w" + bytes(5000))
    while True:
        peer.send_slowly(bytes(100), 1, 0.01)


STREAMS: dict[str, tuple[Script, str]] = {
    "a GiB that is claimed and trickles": (trickle, "TimeoutError"),
    "notices without end": (in_stream(forever=NOTICE), "TimeoutError"),
    "settings without end": (
        in_stream(forever=builders.parameter_status("TimeZone", "x" * 9_000) * 20),
        "TimeoutError",
    ),
    "a length below what a length takes": (in_stream(claim(b"d", 3)), "ProtocolError"),
    "a negative length": (in_stream(claim(b"d", -(2**31))), "ProtocolError"),
    "a length beyond all": (in_stream(claim(b"d", 2**31 - 1)), "ProtocolError"),
}


@contextlib.contextmanager
def serving(scripts: list[Script]) -> Iterator[list[ScriptedServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ScriptedServer(script)) for script in scripts]


def costs(flavour: Flavour, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the cases cost a process of their own, one after the other."""
    pytest.importorskip("resource", reason="this system does not tell what a process costs")
    _ = flavour.codec  # or a skip
    words = [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.support.expenses"]
    done = subprocess.run(
        [*words, *flavour.name.split("-")],
        input="".join(json.dumps(case) + "\n" for case in cases),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_cheap(names: Collection[str], found: list[dict[str, Any]], errors: set[str]) -> None:
    """Each of these cases has ended in one of these errors, cost little, and left nothing."""
    for name, cost in zip(names, found, strict=True):
        assert cost["error"] in errors, (name, cost)
        assert cost["memory"] < MEMORY, (name, cost)
        assert cost["cpu"] < CPU_SECONDS, (name, cost)
        assert (cost["threads"], cost["descriptors"]) == (
            found[0]["threads"],
            found[0]["descriptors"],
        ), (name, cost)


def test_v4_v7_before_authentication_is_over(flavour: Flavour) -> None:
    """Memory below 16 MiB, CPU time below 200 ms, nothing left."""
    with serving(list(BEFORE.values())) as servers:
        found = costs(flavour, [address(each, password="pencil") for each in servers])
        assert [each.connections for each in servers] == [2] + [1] * (len(servers) - 1)
    assert_cheap(BEFORE, found, {"ProtocolError", "AuthenticationError"})
    assert all("expected " in cost["text"] for cost in found)


def test_v7_in_a_stream(flavour: Flavour) -> None:
    """Whatever is claimed and whatever goes on: memory below 16 MiB, and the time limit holds."""
    with serving([script for script, _ in STREAMS.values()]) as servers:
        found = costs(flavour, [address(each, stream=0.5) for each in servers])
    for name, cost in zip(STREAMS, found, strict=True):
        assert cost["error"] == STREAMS[name][1], (name, cost)
        assert cost["memory"] < MEMORY, (name, cost)
        assert (cost["threads"], cost["descriptors"]) == (
            found[0]["threads"],
            found[0]["descriptors"],
        ), (name, cost)


def test_v4_scram_at_its_limit(flavour: Flavour) -> None:
    """100000 rounds are what a server may ask for; a caller may allow less, and more."""

    def answers(peer: Peer) -> None:
        server = ScramServer(b"pencil", iterations=100_000)
        negotiate(peer)
        peer.send(SASL)
        peer.send(
            builders.authentication(11, server.first(peer.expect(b"p").partition(b"\0")[2][4:]))
        )
        try:
            peer.send(builders.authentication(12, server.final(peer.expect(b"p"))))
            peer.send(OK + builders.ready_for_query())
        finally:
            peer.expect_hang_up()

    with serving([answers, counts(b"100000")]) as (honest, stingy):
        cases = [
            address(honest, password="pencil"),
            address(stingy, password="pencil", scram_max_iterations=99_999),
        ]
        found = costs(flavour, cases)
    assert found[0]["error"] == ""
    assert found[0]["memory"] < MEMORY
    assert found[1]["error"] == "AuthenticationError"
    assert "between 1 and 99999, got '100000'" in found[1]["text"]
    assert found[1]["cpu"] < CPU_SECONDS


def test_what_is_measured_is_there(flavour: Flavour) -> None:
    """A server that may make the client work, or keep something, is found to have done so."""

    def all_but_a_byte(peer: Peer) -> None:
        begin_stream(peer)
        peer.send(data(1, bytes(64 << 20))[:-1])

    with serving([sends(OK, b"?"), all_but_a_byte]) as servers:
        cheap, dear = costs(flavour, [address(each, stream=60.0) for each in servers])
    assert (cheap["error"], dear["error"]) == ("ProtocolError", "ConnectionFailed")
    assert cheap["memory"] < MEMORY < 60 << 20 < dear["memory"]
    assert cheap["cpu"] < dear["cpu"]
