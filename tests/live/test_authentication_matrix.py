"""Every way to log in, with every demand on it.

What is allowed connects, the rest is refused before anything that is made of a secret was sent; and
libpq decides in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

import psycopg
import pytest

import pgrepl
from tests.live.streams import Connect, eventually
from tests.support.certificates import CertificateSet
from tests.support.clusters import CLIENT_CERTIFICATE_USER, PASSWORDS, Cluster
from tests.support.flavours import DRIVERS

pytestmark = pytest.mark.flavours(*DRIVERS)

WORDS: Final = {
    "u_trust": "none",
    "u_password": "password",
    "u_md5": "md5",
    "u_scram": "scram-sha-256",
    CLIENT_CERTIFICATE_USER: "none",
}
BINDINGS: Final = ("disable", "prefer", "require")
REQUIRED: Final = (
    "",
    "none",
    "password",
    "md5",
    "scram-sha-256",
    "gss",
    "scram-sha-256,none",
    "!none",
    "!password,!md5",
)
EVERYTHING: Final = frozenset({"none", "password", "md5", "scram-sha-256", "gss", "sspi", "oauth"})


class Case(NamedTuple):
    """One attempt to log in."""

    user: str
    sslmode: str
    require_auth: str
    channel_binding: str

    @property
    def is_allowed(self) -> bool:
        words = frozenset(self.require_auth.replace("!", "").split(",")) - {""}
        if not words or self.require_auth.startswith("!"):
            words = EVERYTHING - words
        is_bound = self.user == "u_scram" and self.sslmode == "require"
        return WORDS[self.user] in words and (self.channel_binding != "require" or is_bound)


def keywords(case: Case, certificates: CertificateSet) -> dict[str, str | int | None]:
    made: dict[str, str | int | None] = dict(case._asdict())
    made["require_auth"] = case.require_auth or None
    if case.user == CLIENT_CERTIFICATE_USER:
        made |= {
            "sslcert": str(certificates.client.certificate),
            "sslkey": str(certificates.client.key),
        }
    return made


def libpq_connects(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="module")
def logging_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of ours that writes down who was let in."""
    assert cluster.own.is_running
    cluster.execute("ALTER SYSTEM SET log_connections = on")
    reload(cluster, "log_connections", "on")
    yield cluster
    cluster.execute("ALTER SYSTEM RESET log_connections")
    cluster.execute("SELECT pg_reload_conf()")


def reload(cluster: Cluster, name: str, value: str) -> None:
    cluster.execute("SELECT pg_reload_conf()")
    eventually(
        lambda: cluster.execute(f"SHOW {name}")[0][0] == value, f"{name} of new sessions is {value}"
    )


def logins(cluster: Cluster, user: str) -> int:
    """How often the server let a user in, to its knowledge."""
    text = cluster.own.log_file.read_text(errors="replace")
    return text.count(f"connection authorized: user={user} ")


@pytest.mark.parametrize("user", WORDS)
@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_what_is_demanded_is_what_is_done(
    logging_cluster: Cluster,
    connect: Connect,
    certificates: CertificateSet,
    user: str,
    sslmode: str,
) -> None:
    """require_auth and channel_binding are not satisfied by anything less, and what is refused has
    sent nothing that the server could let it in for."""
    if sslmode == "require" and not logging_cluster.has_tls:
        pytest.skip(f"this build of PostgreSQL {logging_cluster.version} has no TLS")
    if user == CLIENT_CERTIFICATE_USER and sslmode == "disable":
        pytest.skip("a client certificate is shown in TLS")
    allowed = 0
    for require_auth, channel_binding in itertools.product(REQUIRED, BINDINGS):
        case = Case(user, sslmode, require_auth, channel_binding)
        conninfo = logging_cluster.dsn(**keywords(case, certificates))
        before = logins(logging_cluster, user)
        if case.is_allowed:
            with connect(conninfo) as connection:
                assert connection.identify_system().dbname == "postgres"
            allowed += 1
            assert logins(logging_cluster, user) == before + 1
        else:
            with pytest.raises(pgrepl.AuthenticationError) as caught:
                connect(conninfo)
            assert not isinstance(caught.value, pgrepl.ServerError), case
            assert "channel_binding" in str(caught.value) or "require_auth" in str(caught.value)
            # A server that asks for nothing lets anybody in, as far as it knows.
            assert WORDS[user] == "none" or logins(logging_cluster, user) == before, case
    assert 0 < allowed < len(REQUIRED) * len(BINDINGS)


@pytest.mark.parametrize("user", WORDS)
def test_libpq_decides_in_the_same_way(
    own_cluster: Cluster, certificates: CertificateSet, user: str
) -> None:
    if psycopg.pq.version() < 160000:
        pytest.skip(f"this libpq, {psycopg.pq.version()}, has no require_auth")
    for sslmode in ["disable", "require"] if own_cluster.has_tls else ["disable"]:
        if user == CLIENT_CERTIFICATE_USER and sslmode == "disable":
            continue
        for demands in itertools.product(REQUIRED, BINDINGS):
            case = Case(user, sslmode, *demands)
            conninfo = own_cluster.dsn(**keywords(case, certificates))
            assert libpq_connects(conninfo) == case.is_allowed, case


def test_a_password_for_everybody(own_cluster: Cluster, connect: Connect) -> None:
    """With a list that has no "none", nobody gets in without the exchange."""
    for user, password in PASSWORDS.items():
        conninfo = own_cluster.dsn(user=user, password=password, require_auth="!none")
        with connect(conninfo) as connection:
            assert connection.identify_system().timeline == 1
    with pytest.raises(pgrepl.AuthenticationError, match="without asking for anything"):
        connect(own_cluster.dsn(user="u_trust", require_auth="!none"))


@pytest.mark.parametrize("replication", ["database", "physical"])
def test_channel_binding_is_used_wherever_it_can_be(
    tls_cluster: Cluster, connect: Connect, replication: str
) -> None:
    for channel_binding in ("prefer", "require"):
        conninfo = tls_cluster.dsn(
            user="u_scram", sslmode="require", channel_binding=channel_binding
        )
        with connect(conninfo, replication=replication) as connection:
            assert connection.identify_system().timeline == 1
