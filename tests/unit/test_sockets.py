"""Sockets: their addresses and options, and who is at the other end."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgrepl.conninfo.parameters import TCPSettings
from pgrepl.errors import AuthenticationError, UsageError
from pgrepl.transport.sockets import (
    check_peer_user,
    distinct,
    is_local,
    new_socket,
    numeric_addresses,
    unix_address,
)

needs_unix_sockets = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here"
)
INET = int(socket.AF_INET)


@contextlib.contextmanager
def connected(listener: socket.socket) -> Iterator[socket.socket]:
    with listener, socket.socket(listener.family) as made:
        made.connect(listener.getsockname())
        yield made


# Addresses


def test_numbers_are_addresses_and_names_are_not() -> None:
    assert numeric_addresses("127.0.0.1", 5432) == [(INET, ("127.0.0.1", 5432))]
    [(family, address)] = numeric_addresses("::1", 6432) or []
    assert (family, address[:2]) == (int(socket.AF_INET6), ("::1", 6432))
    for name in ("localhost", "example.invalid", "1.2.3.4.5", "a" * 70 + ".invalid", "a..b", ""):
        assert not numeric_addresses(name, 5432)


def test_each_address_comes_once_and_in_order() -> None:
    two, one = ((INET, 1, 6, "", (host, 5432)) for host in ("10.0.0.2", "10.0.0.1"))
    assert distinct([two, one, two]) == [(INET, ("10.0.0.2", 5432)), (INET, ("10.0.0.1", 5432))]


@needs_unix_sockets
def test_the_longest_path_can_be_connected_to(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        unix_address("/" + "x" * 200)
    assert "got 201" in str(caught.value)
    longest = int(str(caught.value).split("at most ")[1].split()[0])
    folder = Path("/tmp", f"p{os.getpid()}")
    folder.mkdir()
    path = str(folder / "x")
    path += "x" * (longest - len(path))
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            family, address = unix_address(path)
            with socket.socket(family) as made:
                made.connect(address)
    finally:
        Path(path).unlink()
        folder.rmdir()
    with pytest.raises(UsageError):
        unix_address(path + "x")


# Options


def option(made: socket.socket, name: str) -> int:
    return made.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


def has_keepalives(made: socket.socket) -> bool:
    return made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux's options")
def test_options_of_tcp() -> None:
    settings = TCPSettings(
        keepalives_idle=11, keepalives_interval=12, keepalives_count=13, tcp_user_timeout=14_000
    )
    with new_socket(socket.AF_INET, settings) as made:
        assert has_keepalives(made)
        assert option(made, "TCP_NODELAY")
        assert option(made, "TCP_KEEPIDLE") == 11
        assert option(made, "TCP_KEEPINTVL") == 12
        assert option(made, "TCP_KEEPCNT") == 13
        assert option(made, "TCP_USER_TIMEOUT") == 14_000


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux's options")
def test_what_is_not_given_is_left_to_the_system() -> None:
    with socket.socket() as plain, new_socket(socket.AF_INET, TCPSettings()) as made:
        assert has_keepalives(made)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
            assert option(made, name) == option(plain, name)
    zeros = TCPSettings(keepalives_idle=0, keepalives_count=0, tcp_user_timeout=0)
    with socket.socket() as plain, new_socket(socket.AF_INET, zeros) as made:
        assert option(made, "TCP_KEEPIDLE") == option(plain, "TCP_KEEPIDLE")


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="needs Linux's options")
def test_without_keepalives_their_options_have_no_meaning() -> None:
    settings = TCPSettings(keepalives=False, keepalives_idle=11)
    with socket.socket() as plain, new_socket(socket.AF_INET, settings) as made:
        assert not has_keepalives(made)
        assert option(made, "TCP_NODELAY")
        assert option(made, "TCP_KEEPIDLE") == option(plain, "TCP_KEEPIDLE")


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="needs Linux's options")
@pytest.mark.parametrize("value", [40_000, 2**31 - 1])
def test_a_value_that_the_system_refuses(value: int) -> None:
    with pytest.raises(UsageError, match=f"expected a keepalives_idle .*, got {value}: "):
        new_socket(socket.AF_INET, TCPSettings(keepalives_idle=value))


def test_an_option_that_the_platform_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in libpq, it is passed over."""
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    with new_socket(socket.AF_INET, TCPSettings(tcp_user_timeout=9)) as made:
        assert has_keepalives(made)


@needs_unix_sockets
def test_unix_sockets_have_none_of_them() -> None:
    with new_socket(socket.AF_UNIX, TCPSettings(keepalives_idle=11, tcp_user_timeout=9)) as made:
        assert not has_keepalives(made)


# Who is there


def test_the_loopback_interface_is_local() -> None:
    with connected(socket.create_server(("127.0.0.1", 0))) as made:
        assert is_local(made)
    with connected(socket.create_server(("127.9.9.9", 0))) as made:
        assert is_local(made)


def test_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here ({error})")
    with connected(listener) as made:
        assert is_local(made)


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("::ffff:10.0.0.1", 1, 0, 0), False),
        (("10.0.0.1", 1), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        (("localhost", 1), False),  # no address, so it proves nothing
        (("0.0.0.0", 1), False),
    ],
)
def test_v19_it_is_the_address_that_counts(peer: tuple[object, ...], local: bool) -> None:
    class Somewhere(socket.socket):
        def getpeername(self) -> tuple[object, ...]:
            return peer

    with Somewhere() as made:
        assert is_local(made) is local


def test_nobody_is_not_local() -> None:
    with socket.socket() as unconnected:
        assert not is_local(unconnected)


@needs_unix_sockets
def test_a_unix_socket_is_local() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert is_local(here)


@needs_unix_sockets
def test_the_user_at_the_other_end() -> None:
    import pwd

    here, there = socket.socketpair()
    own = pwd.getpwuid(os.geteuid()).pw_name
    with here, there:
        check_peer_user(here, None)
        check_peer_user(here, own)
        with pytest.raises(AuthenticationError) as caught:
            check_peer_user(here, "somebody")
        assert str(caught.value) == (
            "expected a server that runs as the user 'somebody', which requirepeer asks for, got "
            f"one that runs as {own}"
        )


@needs_unix_sockets
def test_a_platform_that_does_not_tell_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair()
    monkeypatch.setattr("sys.platform", "sunos5")
    monkeypatch.delattr(socket, "LOCAL_PEERCRED", raising=False)
    with here, there, pytest.raises(AuthenticationError, match="take requirepeer out"):
        check_peer_user(here, "postgres")


def test_by_tcp_there_is_no_user_to_check() -> None:
    with connected(socket.create_server(("127.0.0.1", 0))) as made:
        check_peer_user(made, "somebody")
