"""Who is who on real servers: every password method, with TLS and without, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

import pgrepl
from tests.live.streams import Connect
from tests.support.certificates import CertificateSet
from tests.support.clusters import CLIENT_CERTIFICATE_USER, PASSWORDS, Cluster
from tests.support.flavours import DRIVERS

pytestmark = pytest.mark.flavours(*DRIVERS)

USERS: Final = ("u_trust", "u_password", "u_md5", "u_scram")

# Resolves to 127.0.0.1 everywhere, and is in no certificate.
OTHER_NAME: Final = "127.1"


def session(cluster: Cluster, connection: pgrepl.Connection) -> tuple[str, bool]:
    """The user and whether there is TLS, as another session sees it."""
    [(user, tls)] = cluster.execute(
        "SELECT usename, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE pid = %s",
        [connection.pid],
    )
    return user, tls


# Methods


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("replication", ["database", "physical"])
def test_method_without_tls(
    own_cluster: Cluster, connect: Connect, user: str, replication: str
) -> None:
    conninfo = own_cluster.dsn(user=user, sslmode="disable")
    with connect(conninfo, replication=replication) as connection:
        assert session(own_cluster, connection) == (user, False)
        assert connection.identify_system().timeline == 1


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("replication", ["database", "physical"])
def test_method_with_tls(
    tls_cluster: Cluster, connect: Connect, user: str, replication: str
) -> None:
    conninfo = tls_cluster.dsn(user=user, sslmode="require")
    with connect(conninfo, replication=replication) as connection:
        assert session(tls_cluster, connection) == (user, True)
        assert connection.identify_system().timeline == 1


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-full"])
def test_method_on_a_unix_socket(
    own_cluster: Cluster, connect: Connect, user: str, sslmode: str
) -> None:
    # There is no TLS on a Unix socket, whatever the sslmode.
    folder = own_cluster.own.socket_directory
    with connect(own_cluster.dsn(user=user), host=folder, sslmode=sslmode) as connection:
        assert session(own_cluster, connection) == (user, False)


def test_password_from_the_environment(
    own_cluster: Cluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORDS["u_scram"])
    with connect(own_cluster.dsn(user="u_scram", password=None)) as connection:
        assert session(own_cluster, connection)[0] == "u_scram"


@pytest.mark.parametrize("user", PASSWORDS)
@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
def test_wrong_password(own_cluster: Cluster, connect: Connect, user: str, sslmode: str) -> None:
    conninfo = own_cluster.dsn(user=user, password="not it", sslmode=sslmode)
    with pytest.raises(pgrepl.AuthenticationRejected, match=user) as caught:
        connect(conninfo)
    assert caught.value.sqlstate == "28P01"
    assert "not it" not in str(caught.value)


@pytest.mark.parametrize("user", PASSWORDS)
def test_no_password(own_cluster: Cluster, connect: Connect, user: str) -> None:
    with pytest.raises(pgrepl.AuthenticationError, match="PGPASSWORD") as caught:
        connect(own_cluster.dsn(user=user, password=None))
    assert not isinstance(caught.value, pgrepl.ServerError)


def test_unknown_role(own_cluster: Cluster, connect: Connect) -> None:
    with pytest.raises(pgrepl.AuthenticationRejected, match="no_such_role") as caught:
        connect(own_cluster.dsn(user="no_such_role", password="some"))
    assert caught.value.sqlstate == "28P01"


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
def test_line_that_rejects(own_cluster: Cluster, connect: Connect, sslmode: str) -> None:
    with pytest.raises(pgrepl.AuthenticationRejected, match="u_reject") as caught:
        connect(own_cluster.dsn(user="u_reject", sslmode=sslmode))
    assert caught.value.sqlstate == "28000"
    assert caught.value.severity == "FATAL"


def test_certificate_that_the_server_wants(tls_cluster: Cluster, connect: Connect) -> None:
    conninfo = tls_cluster.dsn(user=CLIENT_CERTIFICATE_USER, sslmode="require")
    with pytest.raises(pgrepl.AuthenticationRejected, match="certificate") as caught:
        connect(conninfo)
    assert caught.value.sqlstate == "28000"


# sslmode


def test_prefer_takes_tls_where_there_is_some(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn(sslmode="prefer")) as connection:
        assert session(cluster, connection)[1] == cluster.has_tls
    with connect(cluster.dsn()) as connection:
        assert session(cluster, connection)[1] == cluster.has_tls


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_tls_is_required_and_the_server_has_none(
    cluster: Cluster, connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    if cluster.has_tls:
        pytest.skip(f"this PostgreSQL {cluster.version} has TLS")
    with pytest.raises(pgrepl.TLSError, match="does not offer TLS"):
        connect(cluster.dsn(sslmode=sslmode, sslrootcert=str(certificates.ca)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-ca", "verify-full"])
def test_right_authority(tls_cluster: Cluster, connect: Connect, sslmode: str, host: str) -> None:
    keywords = {"sslmode": sslmode, "sslrootcert": str(tls_cluster.ca_file), "host": host}
    with connect(tls_cluster.dsn(user="u_trust", **keywords)) as connection:
        assert session(tls_cluster, connection) == ("u_trust", True)


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_wrong_authority(
    tls_cluster: Cluster, connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    # A root certificate that is given is used in `require` as well.
    with pytest.raises(pgrepl.TLSError, match="certificate is not acceptable"):
        connect(tls_cluster.dsn(sslmode=sslmode, sslrootcert=str(certificates.other_ca)))


def test_prefer_goes_on_without_tls_where_the_certificate_is_wrong(
    tls_cluster: Cluster, connect: Connect, certificates: CertificateSet
) -> None:
    keywords = {"sslmode": "prefer", "sslrootcert": str(certificates.other_ca)}
    with connect(tls_cluster.dsn(**keywords)) as connection:
        assert not session(tls_cluster, connection)[1]


def test_host_that_the_certificate_is_not_for(tls_cluster: Cluster, connect: Connect) -> None:
    keywords = {"sslrootcert": str(tls_cluster.ca_file), "host": OTHER_NAME}
    with pytest.raises(pgrepl.TLSError, match=r"certificate is not .*127\.1"):
        connect(tls_cluster.dsn(sslmode="verify-full", **keywords))
    with connect(tls_cluster.dsn(sslmode="verify-ca", **keywords)) as connection:
        assert session(tls_cluster, connection)[1]


def test_root_certificates_of_the_home(
    tls_cluster: Cluster, connect: Connect, certificates: CertificateSet, tmp_path: Path
) -> None:
    for sslmode in ("verify-ca", "verify-full"):
        with pytest.raises(pgrepl.UsageError, match=r"root\.crt"):
            connect(tls_cluster.dsn(sslmode=sslmode))
    root = tmp_path / ".postgresql" / "root.crt"
    root.parent.mkdir()
    root.write_bytes(certificates.ca.read_bytes())
    with connect(tls_cluster.dsn(sslmode="verify-full")) as connection:
        assert session(tls_cluster, connection)[1]
    root.write_bytes(certificates.other_ca.read_bytes())
    with pytest.raises(pgrepl.TLSError, match="certificate is not acceptable"):
        connect(tls_cluster.dsn(sslmode="require"))


ONLY: Final[Mapping[str, bool]] = {"u_ssl": True, "u_nossl": False}


@pytest.mark.parametrize("user", ONLY)
def test_prefer_takes_what_the_user_is_allowed(
    tls_cluster: Cluster, connect: Connect, user: str
) -> None:
    with connect(tls_cluster.dsn(user=user, sslmode="prefer")) as connection:
        assert session(tls_cluster, connection) == (user, ONLY[user])


@pytest.mark.parametrize(("user", "sslmode"), [("u_ssl", "disable"), ("u_nossl", "require")])
def test_user_who_is_allowed_the_other_way_only(
    tls_cluster: Cluster, connect: Connect, user: str, sslmode: str
) -> None:
    with pytest.raises(pgrepl.AuthenticationRejected, match=user) as caught:
        connect(tls_cluster.dsn(user=user, sslmode=sslmode))
    assert caught.value.sqlstate == "28000"
