"""What TLS, and bytes that come one by one, may cost before the session begins."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import ProtocolError
from pgrepl.transport import clock
from pgrepl.transport.clock import Deadline, Pace
from tests.hostile.sessions import address, answers_a_query, assert_usable, refused
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scripted import Peer, ScriptedServer, handshake, negotiate

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]


def hears_nothing_more(peer: Peer) -> None:
    negotiate(peer)
    while peer.recv_exactly(1):
        pass


@pytest.mark.parametrize("sslmode", ["prefer", "require"])
def test_v7_tickets_without_end(
    connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    """OpenSSL takes in any number of them, within one call as long as they come."""
    tls = certificates.server.server_context()
    tls.num_tickets = 20_000
    with ScriptedServer(hears_nothing_more, tls=tls) as server:
        error = refused(connect, server, sslmode=sslmode)
        assert server.connections == 1
    assert type(error) is ProtocolError
    assert "expected TLS to take at most 131072 bytes for itself" in str(error)


def test_tickets_are_no_harm_once_the_session_has_begun(
    connect: Connect, certificates: CertificateSet
) -> None:
    """What is counted is TLS's own: many bytes by TLS are none of it."""

    def script(peer: Peer) -> None:
        handshake(peer, before_ready=[builders.notice_response("x" * 20_000)] * 40)
        answers_a_query(peer)

    tls = certificates.server.server_context()
    tls.num_tickets = 100
    with (
        ScriptedServer(script, tls=tls) as server,
        connect(**address(server, sslmode="require")) as connection,
    ):
        assert_usable(connection)


def test_garbage_right_behind_the_handshake(connect: Connect, certificates: CertificateSet) -> None:
    """In the same segment as the handshake's last message."""

    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(b"S")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = tls.wrap_bio(incoming, outgoing, server_side=True)
        header = peer.recv_exactly(5)
        incoming.write(header + peer.recv_exactly(int.from_bytes(header[3:], "big")))
        with contextlib.suppress(ssl.SSLWantReadError):
            session.do_handshake()
        peer.send(outgoing.read() + b"\x17\3\3\0\x20" + bytes(32))
        while peer.recv_exactly(1):
            pass

    tls = certificates.server.server_context()
    with ScriptedServer(script) as server:
        error = refused(connect, server, sslmode="require")
    assert "bad record mac" in str(error).lower()
    assert type(error).__module__ == "pgrepl"


def test_bytes_that_come_one_by_one(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads them takes ever longer pauses, and comes to the end of an honest start-up."""
    taken = []
    pause = Pace.pause

    def watched(pace: Pace) -> float:
        taken.append(pause(pace))
        return taken[-1]

    monkeypatch.setattr(clock, "_FREE_READS", 10)
    monkeypatch.setattr(Pace, "pause", watched)

    def script(peer: Peer) -> None:
        negotiate(peer)
        said = builders.authentication(0) + builders.parameter_status("a", "b" * 40)
        peer.send_slowly(said + builders.backend_key_data() + builders.ready_for_query())
        answers_a_query(peer)

    with ScriptedServer(script) as server, connect(**address(server)) as connection:
        so_many = len(taken)
        assert so_many > 10
        assert taken == [max(i - 10, 0) * clock._STEP for i in range(1, so_many + 1)]
        assert_usable(connection)
        assert len(taken) == so_many, "a session that has begun is read without"


def test_pauses_grow_and_end_with_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pace = Pace()
    for _ in range(10_000):
        pace.wait(Deadline(None))
    assert slept[0] == clock._STEP
    assert slept == sorted(slept)
    assert slept[-1] == 0.25
    # Fewer than 5000 reads, the first 1000 included, in ten minutes.
    assert sum(slept[: 4000 - 1]) > 600
    pace.wait(Deadline(0.0))
    assert slept[-1] == 0.0
