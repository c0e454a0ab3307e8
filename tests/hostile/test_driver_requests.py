"""What a conversation asks of its driver beside sending and receiving: the server's certificate,
and work that takes long."""

from __future__ import annotations

import inspect
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.protocol.conversation import Compute, Conversation, Exchange, PeerCertificate
from pgrepl.transport.clock import Deadline
from tests.hostile.sessions import PATIENCE, address, answers_a_query, assert_usable
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.inside import transport_of
from tests.support.scripted import Peer, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]


def session(peer: Peer) -> None:
    handshake(peer)
    answers_a_query(peer)


def run(connection: Any, conversation: Conversation[Any]) -> Any:
    """Let the connection's driver run a conversation, in either flavour."""
    exchange, deadline = Exchange(conversation), Deadline(PATIENCE)
    running = transport_of(connection).run(exchange, deadline)
    return connection.wait_for(running) if inspect.isawaitable(running) else running


def ask_for_certificate() -> Conversation[bytes | None]:
    return (yield PeerCertificate())


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_the_servers_certificate(
    connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    shown = ssl.PEM_cert_to_DER_cert(certificates.server.certificate.read_text())
    with (
        ScriptedServer(session, tls=certificates.server.server_context()) as server,
        connect(**address(server, sslmode=sslmode)) as connection,
    ):
        found = run(connection, ask_for_certificate())
        assert found == (shown if sslmode == "require" else None)
        assert_usable(connection)


class OwnError(Exception):
    """Nothing that anybody else raises."""


def compute(*calls: Callable[[], object]) -> Conversation[list[object]]:
    """Have all of it called; what goes wrong is part of the result."""
    results: list[object] = []
    for call in calls:
        try:
            results.append((yield Compute(call)))
        except OwnError as error:
            results.append(error)
    return results


def test_work_comes_back_with_its_result_or_its_error(connect: Connect) -> None:
    error = OwnError()

    def fail() -> None:
        raise error

    with ScriptedServer(session) as server, connect(**address(server)) as connection:
        results = run(connection, compute(lambda: 6 * 7, fail, lambda: None, lambda: "last"))
        assert results == [42, error, None, "last"]
        assert_usable(connection)


def test_an_error_that_the_conversation_does_not_expect_ends_it(connect: Connect) -> None:
    with ScriptedServer(session) as server, connect(**address(server)) as connection:
        with pytest.raises(ZeroDivisionError):
            run(connection, compute(lambda: 1 // 0))
        assert_usable(connection)


def test_where_work_is_done(connect: Connect) -> None:
    """In this thread by the blocking flavour; in another one by that of an event loop."""
    with ScriptedServer(session) as server, connect(**address(server)) as connection:
        [thread] = run(connection, compute(threading.get_ident))
        is_asynchronous = hasattr(connection, "_runner")
        assert (thread == threading.get_ident()) != is_asynchronous
        assert_usable(connection)
