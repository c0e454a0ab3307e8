"""The proxy: every byte arrives, whole and in order, however it is cut; and each knob does its."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy, Slicing, coalesce, one_byte, random_pieces, whole
from tests.support.scripted import HangUp, Peer, ScriptedServer

PAYLOAD = random.Random(1).randbytes(20_000)


def echo(peer: Peer) -> None:
    """Send back what comes, 100 bytes at a time, until the client is done."""
    with contextlib.suppress(HangUp):
        while True:
            peer.send(peer.recv_exactly(100))


@contextlib.contextmanager
def through(slicing: Slicing | None = None) -> Iterator[tuple[Proxy, socket.socket]]:
    """A client's connection through a proxy to an echo."""
    with (
        ScriptedServer(echo) as server,
        Proxy((server.host, server.port), slicing=slicing) as proxy,
        client_of(proxy) as client,
    ):
        yield proxy, client


def client_of(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=10)


def exchange(client: socket.socket, data: bytes) -> list[bytes]:
    """Send `data` and read as much, returning the pieces as they came."""
    client.sendall(data)
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < len(data):
        pieces.append(client.recv(65536))
        assert pieces[-1], "the connection ended early"
    return pieces


@pytest.mark.parametrize(
    "slicing",
    [whole(), one_byte(), random_pieces(seed=3), coalesce(5_000)],
    ids=["whole", "one byte", "random", "coalesce"],
)
def test_all_bytes_arrive_in_order(slicing: Slicing) -> None:
    with through(slicing) as (proxy, client):
        assert b"".join(exchange(client, PAYLOAD)) == PAYLOAD
    assert (proxy.to_client, proxy.to_server) == (len(PAYLOAD), len(PAYLOAD))
    assert proxy.connections == 1


def test_one_byte_comes_in_tiny_pieces() -> None:
    cut = one_byte()()
    assert [cut(100, False) for _ in range(50)] == [1] * 50
    with through(one_byte()) as (_, client):
        pieces = exchange(client, PAYLOAD[:2_000])
    # How many arrive is the kernel's to say, which puts some together while the reader is busy.
    assert b"".join(pieces) == PAYLOAD[:2_000]


def test_coalesced_bytes_wait_for_each_other() -> None:
    with through(coalesce(5_000)) as (_, client):
        pieces = exchange(client, PAYLOAD)
    assert len(pieces) < 20, "20000 bytes, sent in pieces of 100, were not put together"


def test_random_pieces_follow_the_seed() -> None:
    first, again, other = (random_pieces(seed)() for seed in (7, 7, 8))
    sizes = [first(100, False) for _ in range(50)]
    assert sizes == [again(100, False) for _ in range(50)]
    assert sizes != [other(100, False) for _ in range(50)]
    assert set(sizes) <= set(range(1, 65))


def test_stall_holds_everything_until_resume() -> None:
    with through() as (proxy, client):
        proxy.stall()
        client.sendall(PAYLOAD[:100])
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert proxy.to_server == 0
        proxy.resume()
        client.settimeout(10)
        assert b"".join(exchange(client, b"")) == b""
        assert client.recv(100, socket.MSG_WAITALL) == PAYLOAD[:100]


def test_cut_resets_the_client_and_takes_the_next() -> None:
    with through() as (proxy, client):
        exchange(client, PAYLOAD[:100])
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with client_of(proxy) as again:
            assert b"".join(exchange(again, PAYLOAD)) == PAYLOAD
        assert proxy.connections == 2


@pytest.mark.parametrize("slicing", [whole(), one_byte()], ids=["whole", "one byte"])
def test_close_after_stops_at_that_very_byte(slicing: Slicing) -> None:
    with through(slicing) as (proxy, client):
        exchange(client, PAYLOAD[:100])
        proxy.close_after(250)
        client.sendall(PAYLOAD[100:1_000])
        received = b""
        while piece := client.recv(1_000):
            received += piece
        assert received == PAYLOAD[100:350]
        with client_of(proxy) as again:
            assert b"".join(exchange(again, PAYLOAD)) == PAYLOAD


def test_ends_of_streams_pass_on_their_own() -> None:
    def until_the_end(peer: Peer) -> None:
        with contextlib.suppress(HangUp):
            while True:
                peer.recv_exactly(1)
        peer.send(b"that was all")

    with (
        ScriptedServer(until_the_end) as server,
        Proxy((server.host, server.port)) as proxy,
        client_of(proxy) as client,
    ):
        client.sendall(b"abc")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100, socket.MSG_WAITALL) == b"that was all"


def test_last_words_arrive_before_a_reset() -> None:
    proxy_has_them, server_is_gone = threading.Event(), threading.Event()

    def leaving(peer: Peer) -> None:
        peer.send(PAYLOAD[:5_000])
        assert proxy_has_them.wait(10)
        peer.reset()
        server_is_gone.set()

    def held_back(waiting: int, idle: bool) -> int:
        if waiting == 5_000:
            proxy_has_them.set()
        return waiting if server_is_gone.is_set() else 0

    with (
        ScriptedServer(leaving) as server,
        Proxy((server.host, server.port), slicing=lambda: held_back) as proxy,
        client_of(proxy) as client,
    ):
        assert client.recv(5_000, socket.MSG_WAITALL) == PAYLOAD[:5_000]
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_nobody_behind_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = unused.getsockname()
    with Proxy(address) as proxy, pytest.raises(ConnectionResetError), client_of(proxy) as client:
        client.recv(1)
