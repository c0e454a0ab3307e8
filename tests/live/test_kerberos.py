"""Kerberos in earnest: a KDC, a server with a keytab, a client with a ticket and no password."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from pgrepl.testing import TemporaryServer, TemporaryServerError
from pgrepl.testing.addresses import HOST
from tests.live.streams import Connect
from tests.support import kdc, servers
from tests.support.clusters import Cluster
from tests.support.flavours import DRIVERS
from tests.support.versions import majors

ANN: Final = "ann"
_DELEGATION: Final = 16
_HBA: Final = f"""\
local all,replication all trust
host all,replication postgres {HOST}/32 trust
host all,replication all {HOST}/32 gss include_realm=0
"""

pytestmark = [pytest.mark.live, pytest.mark.flavours(*DRIVERS)]


@dataclass
class Realm:
    """A KDC, and a server that asks it who somebody is."""

    kdc: kdc.KDC
    cluster: Cluster

    def keywords(self, **more: Any) -> dict[str, Any]:
        """How to connect as ann; the server's principal has the name localhost."""
        server = self.cluster.own
        return {
            **{"host": "localhost", "hostaddr": HOST, "port": server.port},
            **{"user": ANN, "dbname": "postgres", "sslmode": "disable"},
            **more,
        }

    def log(self) -> str:
        return self.cluster.own.log_file.read_text(errors="replace")


@pytest.fixture(scope="module", params=majors())
def realm(request: pytest.FixtureRequest) -> Iterator[Realm]:
    """On each major version of which the build has GSSAPI."""
    try:
        importlib.import_module("gssapi")
    except ImportError as error:
        pytest.skip(f"needs gssapi: run  pip install pgrepl[kerberos]  ({error})")
    installation = servers.find(request.param)
    if installation is None:
        pytest.skip(f"no PostgreSQL {request.param}")
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(kdc.KDC())
        except kdc.NoKDC as error:
            pytest.skip(str(error))
        running.keytab("ann", ANN)
        keytab = running.keytab("server", "postgres/localhost", "other/localhost")
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("KRB5_CONFIG", str(running.configuration))
        settings: dict[str, str | int | bool] = {"krb_server_keyfile": "server.keytab"}
        if int(request.param) >= _DELEGATION:
            settings["gss_accept_delegation"] = True
        server = TemporaryServer(
            installation.bin_directory,
            settings=settings | {"log_connections": True},
            hba=_HBA,
            files={"server.keytab": keytab.read_bytes()},
        )
        try:
            stack.enter_context(server)
        except TemporaryServerError as error:
            if "not supported by this build" not in str(error):
                raise
            pytest.skip(f"this build of PostgreSQL {request.param} has no GSSAPI")
        parameters = {"host": server.host, "port": server.port, "user": "postgres"}
        cluster = Cluster(parameters, server=server)
        cluster.execute(f"CREATE ROLE {ANN} LOGIN REPLICATION; CREATE ROLE bob LOGIN REPLICATION")
        yield Realm(running, cluster)


@pytest.fixture(autouse=True)
def ticket(realm: Realm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ann's key, by which a ticket is got when one is needed, and a place for it."""
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'tickets'}")
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(realm.kdc.folder / "ann.keytab"))


def principal(realm: Realm, connection: pgrepl.Connection) -> tuple[bool, str]:
    """What the server thinks who that is."""
    [row] = realm.cluster.execute(
        "SELECT gss_authenticated, principal FROM pg_stat_gssapi WHERE pid = %s", [connection.pid]
    )
    return row[0], row[1]


@pytest.mark.parametrize("replication", ["database", "physical"])
def test_a_ticket_is_enough(realm: Realm, connect: Connect, replication: str) -> None:
    with connect(replication=replication, **realm.keywords()) as connection:
        assert connection.identify_system().timeline == 1
        assert principal(realm, connection) == (True, f"{ANN}@{kdc.REALM}")


def test_require_auth_takes_it_for_gss(realm: Realm, connect: Connect) -> None:
    with connect(**realm.keywords(require_auth="gss")) as connection:
        assert principal(realm, connection)[0]
    before = realm.log().count("connection authorized")
    for require_auth in ("scram-sha-256", "password,md5,none", "!gss"):
        with pytest.raises(pgrepl.AuthenticationError, match="asks for gss; nothing was sent"):
            connect(**realm.keywords(require_auth=require_auth))
    assert realm.log().count("connection authorized") == before


def test_channel_binding_cannot_be_had(realm: Realm, connect: Connect) -> None:
    with pytest.raises(pgrepl.AuthenticationError, match="channel_binding=require"):
        connect(**realm.keywords(channel_binding="require"))


def test_the_service_may_have_another_name(realm: Realm, connect: Connect) -> None:
    with connect(**realm.keywords(krbsrvname="other")) as connection:
        assert principal(realm, connection)[0]
    with pytest.raises(pgrepl.AuthenticationError, match="nosuch@localhost failed: .*not found"):
        connect(**realm.keywords(krbsrvname="nosuch"))


def test_no_ticket(realm: Realm, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", "/no/such/keytab")
    with pytest.raises(pgrepl.AuthenticationError, match="kinit gets one") as caught:
        connect(**realm.keywords(password="pencil"))
    assert not isinstance(caught.value, pgrepl.ServerError)
    assert caught.value.__context__ is None


def test_the_ticket_of_somebody_else(realm: Realm, connect: Connect) -> None:
    with pytest.raises(pgrepl.AuthenticationRejected) as caught:
        connect(**realm.keywords(user="bob"))
    assert caught.value.sqlstate == "28000"


def test_an_address_is_no_name(realm: Realm, connect: Connect) -> None:
    with pytest.raises(pgrepl.AuthenticationError, match=r"postgres@127\.0\.0\.1 failed"):
        connect(**realm.keywords(host=HOST))


def test_delegation(realm: Realm, connect: Connect) -> None:
    if realm.cluster.major < _DELEGATION:
        pytest.skip(f"PostgreSQL takes delegated tickets from {_DELEGATION} on")
    for delegation in (0, 1):
        with connect(**realm.keywords(gssdelegation=delegation)) as connection:
            [(delegated,)] = realm.cluster.execute(
                "SELECT credentials_delegated FROM pg_stat_gssapi WHERE pid = %s", [connection.pid]
            )
            assert delegated is bool(delegation)
