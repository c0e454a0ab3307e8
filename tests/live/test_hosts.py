"""Several hosts, a primary and its standby among them: which one a connection ends up at."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from pgrepl.testing.addresses import HOST
from pgrepl.testing.data_directory import TRUST_EVERYONE
from pgrepl.testing.server_account import give, server_account
from tests.live.streams import Connect, eventually
from tests.live.test_connecting import full_backlog
from tests.support import builders
from tests.support.clusters import Cluster
from tests.support.flavours import DRIVERS
from tests.support.scripted import Peer, ScriptedServer, negotiate

pytestmark = pytest.mark.flavours(*DRIVERS)

Pair: TypeAlias = tuple[TemporaryServer, TemporaryServer]

TARGETS: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")


@contextlib.contextmanager
def standby_of(primary: TemporaryServer) -> Iterator[TemporaryServer]:
    with TemporaryServer(primary.bin_directory) as server:
        server.stop()
        shutil.rmtree(server.data_directory)
        subprocess.run(
            [str(server.bin_directory / "pg_basebackup"), "--dbname", primary.dsn()]
            + ["--pgdata", str(server.data_directory), "--checkpoint", "fast", "--no-sync"],
            check=True,
            capture_output=True,
        )
        Path(server.data_directory, "standby.signal").touch()
        add_setting(server, "primary_conninfo", primary.dsn())
        give(server.data_directory, server_account())
        server.start()
        yield server


def add_setting(server: TemporaryServer, name: str, value: str) -> None:
    with Path(server.data_directory, "postgresql.auto.conf").open("a") as settings:
        settings.write(f"{name} = '{value}'\n")


@contextlib.contextmanager
def new_pair(cluster: Cluster) -> Iterator[Pair]:
    settings = {"listen_addresses": f"{HOST},::1"}  # those that the machine has
    hba = f"{TRUST_EVERYONE}host all,replication all ::1/128 trust\n"
    with (
        TemporaryServer(cluster.own.bin_directory, settings=settings, hba=hba) as primary,
        standby_of(primary) as standby,
    ):
        yield primary, standby


@pytest.fixture(scope="module")
def pair(cluster: Cluster) -> Iterator[Pair]:
    """A primary and a standby of it; tests leave them as they are."""
    with new_pair(cluster) as made:
        yield made


def unused_port() -> int:
    with socket.create_server((HOST, 0)) as unused:
        return int(unused.getsockname()[1])


def at(*ports: int, **more: Any) -> dict[str, Any]:
    """Keywords for `connect`: a list of hosts that differ in their ports."""
    return {
        "host": ",".join(HOST for _ in ports),
        "port": ",".join(map(str, ports)),
        "user": "postgres",
        "dbname": "postgres",
        "connect_timeout": 20,
        **more,
    }


def port_of(connection: pgrepl.Connection) -> int:
    return int(connection.show("port"))


def reached(connect: Connect, *ports: int, **more: Any) -> int:
    """The port of the server that the connection ends up at."""
    with connect(**at(*ports, **more)) as connection:
        return port_of(connection)


# Which server


@pytest.mark.parametrize("replication", ["database", "physical"])
@pytest.mark.parametrize("target", TARGETS)
def test_primary_and_standby(connect: Connect, pair: Pair, target: str, replication: Any) -> None:
    primary, standby = (server.port for server in pair)
    for ports in ((primary, standby), (standby, primary)):
        expected = {"any": ports[0], "read-write": primary, "primary": primary}.get(target, standby)
        found = reached(connect, *ports, target_session_attrs=target, replication=replication)
        assert found == expected


@pytest.mark.parametrize("target", ["read-only", "standby"])
def test_there_is_no_standby(connect: Connect, pair: Pair, target: str) -> None:
    primary = pair[0].port
    with pytest.raises(pgrepl.ConnectionFailed) as caught:
        connect(**at(primary, target_session_attrs=target))
    assert str(caught.value).startswith(
        f"{HOST}:{primary} is not what target_session_attrs={target} asks for: "
    )
    nobody = unused_port()
    with pytest.raises(pgrepl.ConnectionFailed) as caught:
        connect(**at(nobody, primary, target_session_attrs=target))
    assert len(str(caught.value).splitlines()) == 3
    assert f"{HOST}:{nobody}" in str(caught.value)
    assert "refused" in str(caught.value)


def test_a_standby_is_preferred_and_not_required(connect: Connect, pair: Pair) -> None:
    primary = pair[0].port
    wanted = {"target_session_attrs": "prefer-standby"}
    assert reached(connect, primary, **wanted) == primary
    assert reached(connect, unused_port(), primary, **wanted) == primary


def test_a_primary_whose_sessions_are_read_only(connect: Connect, pair: Pair) -> None:
    primary, standby = (server.port for server in pair)
    frozen = {"options": "-c default_transaction_read_only=on"}
    assert reached(connect, primary, target_session_attrs="read-only", **frozen) == primary
    assert reached(connect, primary, target_session_attrs="primary", **frozen) == primary
    with pytest.raises(pgrepl.ConnectionFailed) as caught:
        connect(**at(primary, standby, target_session_attrs="read-write", **frozen))
    assert str(caught.value).count("the session is read-only") == 2


def test_the_primary_fails_and_the_standby_is_promoted(cluster: Cluster, connect: Connect) -> None:
    with new_pair(cluster) as (primary, standby):
        wanted = {"target_session_attrs": "primary"}
        ports = (primary.port, standby.port)
        assert reached(connect, *ports, **wanted) == primary.port
        primary.stop("immediate")
        with pytest.raises(pgrepl.ConnectionFailed) as caught:
            connect(**at(*ports, **wanted))
        assert "refused" in str(caught.value)
        assert "the server is a standby" in str(caught.value)
        assert caught.value.retryable
        with psycopg.connect(standby.dsn(), autocommit=True) as other:
            other.execute("SELECT pg_promote()")
        eventually(lambda: _primary_at(connect, ports) == standby.port, "the new primary is found")
        assert reached(connect, *ports, target_session_attrs="prefer-standby") == standby.port


def _primary_at(connect: Connect, ports: tuple[int, ...]) -> int | None:
    with contextlib.suppress(pgrepl.ConnectionFailed):
        return reached(connect, *ports, target_session_attrs="primary")
    return None


# What goes on to the next host, and what does not


@contextlib.contextmanager
def setting(server: TemporaryServer, name: str, value: str, usually: str) -> Iterator[None]:
    """Run the server with a setting that takes a restart."""
    try:
        server.stop()
        add_setting(server, name, value)
        server.start()
        yield
    finally:
        server.stop()
        add_setting(server, name, usually)
        server.start()


def test_a_server_that_takes_no_connections_now(connect: Connect, pair: Pair) -> None:
    """57P03: a standby that is not open for queries says so to everybody."""
    primary, standby = pair
    with setting(standby, "hot_standby", "off", usually="on"):
        assert reached(connect, standby.port, primary.port) == primary.port
        with pytest.raises(pgrepl.ServerError) as caught:
            connect(**at(standby.port))
        assert caught.value.sqlstate == "57P03"
        assert caught.value.retryable


def starting_up(peer: Peer) -> None:
    assert negotiate(peer).code >> 16 == 3
    peer.send(builders.error_response("starting up", sqlstate="57P03", severity="FATAL"))
    peer.expect_hang_up()


def test_a_server_that_is_starting_up(connect: Connect, pair: Pair) -> None:
    with ScriptedServer(starting_up) as server:
        assert reached(connect, server.port, pair[0].port) == pair[0].port
        assert server.connections == 1


def test_what_a_server_says_ends_the_search(own_cluster: Cluster, connect: Connect) -> None:
    """Whoever is turned away by one server does not try his password on the others."""

    def never(peer: Peer) -> None:
        raise AssertionError("the search should have ended before")

    with ScriptedServer(never, timeout=2) as server:
        ports = (own_cluster.port, server.port)
        for who, sqlstate in (
            ({"user": "u_scram", "password": "wrong"}, "28P01"),
            ({"user": "u_reject"}, "28000"),
            ({"dbname": "no_such_database"}, "3D000"),
        ):
            with pytest.raises(pgrepl.ServerError) as caught:
                connect(**at(*ports, sslmode="disable", **who))
            assert caught.value.sqlstate == sqlstate
        assert server.connections == 0


def silent(peer: Peer) -> None:
    """Nothing comes from there, and what the client says goes nowhere."""
    while peer.recv_exactly(1):
        pass


def test_each_address_has_the_time_limit_to_itself(connect: Connect, pair: Pair) -> None:
    """One that is not reached, as behind a firewall that drops, and one that says nothing use up
    twice the limit, and the third one still has all of it."""
    with full_backlog() as dropping, ScriptedServer(silent) as second:
        ports = (dropping, second.port, pair[0].port)
        assert reached(connect, *ports, connect_timeout=1) == pair[0].port
        with pytest.raises(pgrepl.ConnectionFailed) as caught:
            connect(**at(*ports[:2], connect_timeout=1))
        assert str(caught.value).count("within connect_timeout, 1.0 s") == 2
        for port in ports[:2]:
            assert f"{HOST}:{port}" in str(caught.value)


def test_load_balancing_reaches_both(connect: Connect, pair: Pair) -> None:
    ports = {server.port for server in pair}
    found: set[int] = set()
    for _ in range(100):
        found.add(reached(connect, *sorted(ports), load_balance_hosts="random"))
        if found == ports:
            return
    pytest.fail(f"of {ports} only {found} were reached")


def test_every_address_of_a_name(
    connect: Connect, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody, primary = unused_port(), pair[0].port
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", nobody)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, nobody)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, primary)),
    ]
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host == "several.example" and not keywords.get("flags"):
            return found
        return real(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    wanted = {"host": "several.example", "port": "5432", "user": "postgres", "connect_timeout": 20}
    with connect(**wanted) as connection:
        assert port_of(connection) == primary
    found.pop()
    with pytest.raises(pgrepl.ConnectionFailed) as caught:
        connect(**wanted)
    for address in ("127.0.0.2", HOST):
        assert f"several.example:5432 ({address})" in str(caught.value)
    assert str(caught.value).count("refused") == 2


# Addresses


def test_an_address_of_ipv6(connect: Connect, pair: Pair) -> None:
    primary = pair[0].port
    try:
        socket.create_connection(("::1", primary)).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 ({error})")
    for conninfo in (
        f"postgresql://postgres@[::1]:{primary}/postgres",
        f"host=::1 port={primary} user=postgres dbname=postgres",
        f"host=nowhere.invalid hostaddr=::1 port={primary} user=postgres dbname=postgres",
    ):
        with connect(conninfo) as connection:
            assert connection.query("SELECT host(inet_server_addr())")[0].rows == [("::1",)]
            connection.cancel()


def test_hostaddr_goes_before_the_name(connect: Connect, pair: Pair) -> None:
    primary = pair[0].port
    wanted = at(primary, host="no-such-host.invalid", hostaddr=HOST)
    with connect(**wanted) as connection:
        assert port_of(connection) == primary
    with pytest.raises(pgrepl.ConnectionFailed, match="could not find the address"):
        connect(**at(primary, host="no-such-host.invalid"))


def test_hostaddr_is_connected_to_and_the_name_is_verified(
    tls_cluster: Cluster, connect: Connect
) -> None:
    dsn = tls_cluster.dsn(sslmode="verify-full", sslrootcert=str(tls_cluster.ca_file), host=None)
    with connect(dsn, host="localhost", hostaddr=HOST) as connection:
        assert connection.show("ssl") == "on"
    # By its address nobody would ask for this name.
    with pytest.raises(pgrepl.TLSError, match="other-host.invalid"):
        connect(dsn, host="other-host.invalid", hostaddr=HOST)
    with pytest.raises(pgrepl.UsageError, match="verify-full"):
        connect(dsn, hostaddr=HOST)


def test_a_socket_in_the_abstract_namespace(cluster: Cluster, connect: Connect) -> None:
    with TemporaryServer(cluster.own.bin_directory) as server:
        name = f"@pgrepl-{server.port}"
        server.stop()
        add_setting(server, "unix_socket_directories", name)
        give(server.data_directory, server_account())
        server.start()
        with connect(host=name, port=server.port, user="postgres", sslmode="require") as made:
            assert made.identify_system().dbname == "postgres"
            [result] = made.query("SELECT inet_server_port()")
            assert result.rows == [(None,)]
            made.cancel()
        with pytest.raises(pgrepl.ConnectionFailed, match=r"the socket @nobody/.s.PGSQL.5432"):
            connect(host="@nobody", user="postgres")
