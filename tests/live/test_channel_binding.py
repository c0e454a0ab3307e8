"""What authentication is bound to: the server's certificate, however it is signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import pytest
from cryptography.hazmat.primitives import hashes

import pgrepl
from tests.live.streams import Connect
from tests.support.certificates import Authority, Certificate, CertificateSet
from tests.support.clusters import Cluster, throw_away_cluster
from tests.support.flavours import DRIVERS
from tests.support.servers import find
from tests.support.versions import majors

PASSWORD: Final = "pencil"
ED25519: Final = "Ed25519"
SIGNED: Final[dict[str, tuple[str, Any]]] = {
    "ECDSA with SHA-256": ("ec", hashes.SHA256()),
    "ECDSA with SHA-384": ("ec", hashes.SHA384()),
    "ECDSA with SHA-512": ("ec", hashes.SHA512()),
    "RSA with SHA-256": ("rsa", hashes.SHA256()),
    "RSA with SHA-512": ("rsa", hashes.SHA512()),
    "RSA-PSS with SHA-384": ("rsa-pss", hashes.SHA384()),
    ED25519: ("ed25519", None),
}

pytestmark = [pytest.mark.live, pytest.mark.flavours(*DRIVERS)]


def issued(kind: Any, digest: Any) -> Certificate:
    return Authority("pgrepl CA", kind=kind).issue("localhost", names=["localhost"], digest=digest)


@pytest.fixture(scope="module", params=majors())
def presenting(
    request: pytest.FixtureRequest, certificates: CertificateSet
) -> Iterator[Callable[[Certificate], Cluster]]:
    """Starts a server again with another certificate; on each major version that has TLS."""
    installation = find(request.param)
    if installation is None or not installation.has_tls:
        pytest.skip(f"no PostgreSQL {request.param} with TLS")
    with throw_away_cluster(installation, certificates) as server:
        parameters = {"host": server.host, "port": server.port, "user": "postgres"}
        cluster = Cluster(parameters, server=server, ca_file=certificates.ca)
        cluster.execute(
            "SET password_encryption = 'scram-sha-256';"
            f"CREATE ROLE somebody LOGIN REPLICATION PASSWORD '{PASSWORD}'"
        )

        def restart(certificate: Certificate) -> Cluster:
            for name, content in (("crt", certificate.certificate), ("key", certificate.key)):
                # Written over, so that they keep their owner and permissions.
                (server.data_directory / f"server.{name}").write_bytes(content)
            server.restart()
            return cluster

        yield restart


def conninfo(cluster: Cluster, channel_binding: str) -> str:
    return cluster.dsn(
        user="somebody",
        password=PASSWORD,
        sslmode="require",
        channel_binding=channel_binding,
    )


@pytest.mark.parametrize("name", [name for name in SIGNED if name != ED25519])
def test_it_is_bound_however_the_certificate_is_signed(
    presenting: Callable[[Certificate], Cluster], connect: Connect, name: str
) -> None:
    cluster = presenting(issued(*SIGNED[name]))
    for channel_binding in ("require", "prefer", "disable"):
        with connect(conninfo(cluster, channel_binding)) as connection:
            assert connection.identify_system().dbname == "postgres"
        psycopg.connect(conninfo(cluster, channel_binding)).close()


def test_a_signature_without_a_hash_of_its_own(
    presenting: Callable[[Certificate], Cluster],
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing can be bound to Ed25519; who does not insist on it is let in, and told."""
    cluster = presenting(issued(*SIGNED[ED25519]))
    with pytest.raises(pgrepl.AuthenticationError, match="channel_binding=disable") as caught:
        connect(conninfo(cluster, "require"))
    assert not isinstance(caught.value, pgrepl.ServerError)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(conninfo(cluster, "require"))
    assert not caplog.records
    for channel_binding in ("prefer", "disable"):
        with connect(conninfo(cluster, channel_binding)) as connection:
            assert connection.identify_system().dbname == "postgres"
        assert ("not bound to the TLS connection" in caplog.text) == (channel_binding == "prefer")
        caplog.clear()
