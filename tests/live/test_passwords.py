"""Passwords, and what servers make of them: any characters, any salt, any iteration count."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import random
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

import pgrepl
from pgrepl.protocol.saslprep import prepared
from pgrepl.secret import Secret
from tests.live.streams import Connect
from tests.support.clusters import Cluster
from tests.support.flavours import DRIVERS
from tests.support.scram import keys, salted_password

pytestmark = pytest.mark.flavours(*DRIVERS)

# What SASLprep changes, refuses, or leaves alone.
TRICKY = [
    "\u2168",
    "a\u00adb",
    "\u00a0\u3000",
    "\u00ad",
    "\u0007\u2168",
    "\u06271\u2168",
    "\u0627\u00a01\u0627",
    "\U0001f642\u2168",
    "\U0001f130\u2168",
    "\ue000\u2168",
    "\u0340\u2168",
    "e\u0301",
    "\udcff\u2168",
    "\udcc3\udca9",
    "' \\ \" =",
    "x" * 500,
]


def is_bytes(password: str) -> bool:
    """Whether it stands for bytes that are no text, as os.environ has them."""
    return any("\udc80" <= character <= "\udcff" for character in password)


def verifier(password: bytes, salt: bytes = bytes(range(16)), iterations: int = 4096) -> str:
    """What a server remembers of a password."""
    stored, server = (base64.b64encode(key).decode() for key in keys(password, salt, iterations))
    return f"SCRAM-SHA-256${iterations}:{base64.b64encode(salt).decode()}${stored}:{server}"


@contextlib.contextmanager
def role(cluster: Cluster, password: str | None, name: str = "u_somebody") -> Iterator[str]:
    """A role that logs in by SCRAM; `password` may be a verifier."""
    role_name = sql.Identifier(name)
    cluster.execute(
        sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(
            role_name, sql.Literal(password)
        )
    )
    try:
        yield name
    finally:
        cluster.execute(sql.SQL("DROP ROLE {}").format(role_name))


def connects(connect: Connect, cluster: Cluster, user: str, password: str, **more: str) -> bool:
    conninfo = cluster.dsn(user=user, password=None, require_auth="scram-sha-256")
    with connect(conninfo, password=password, **more) as connection:
        return connection.identify_system().dbname == "postgres"


def encrypted(password: str) -> str:
    """The verifier that libpq makes, as psql's \\password does; no connection is needed."""
    library = psycopg.pq.PGconn.connect_start(b"host=/no/such/folder")
    try:
        raw = password.encode("utf-8", "surrogateescape")
        return library.encrypt_password(raw, b"somebody", b"scram-sha-256").decode()
    finally:
        library.finish()


# What is hashed is the same in every flavour; that each of them logs in, the other tests show.
hashed = pytest.mark.flavours("blocking-c")


@hashed
@pytest.mark.parametrize("password", TRICKY, ids=range(len(TRICKY)))
def test_any_characters(own_cluster: Cluster, connect: Connect, password: str) -> None:
    """What SASLprep refuses, and what is no UTF-8, is taken as it is."""
    with role(own_cluster, encrypted(password)) as user:
        assert connects(connect, own_cluster, user, password)
        with pytest.raises(pgrepl.AuthenticationRejected) as caught:
            connects(connect, own_cluster, user, f"{password}x")
        assert caught.value.sqlstate == "28P01"


@hashed
@pytest.mark.parametrize("password", [p for p in TRICKY if not is_bytes(p)], ids=ascii)
def test_a_password_that_the_server_has_prepared(
    own_cluster: Cluster, connect: Connect, password: str
) -> None:
    with role(own_cluster, password) as user:
        assert connects(connect, own_cluster, user, password)


def test_libpq_prepares_passwords_in_the_same_way(own_cluster: Cluster) -> None:
    """A few hundred at random, of the characters that are told apart."""
    chosen = random.Random(7)
    kinds = "a1 \u00a0\u00ad\u0627\u05d0\u2168\u0301\u00c5\u0007\U0001f600\ue000\u3000\u200b\u200d"
    texts = ["".join(chosen.choices(kinds, k=chosen.randint(1, 6))) for _ in range(300)]
    texts += [chr(chosen.randint(0x80, 0xD7FF)) + "\u2168" for _ in range(300)]
    for text in texts:
        iterations, salt, stored, server = (
            encrypted(text).removeprefix("SCRAM-SHA-256$").replace("$", ":").split(":")
        )
        made = keys(prepared(Secret(text)), base64.b64decode(salt), int(iterations))
        assert made == (base64.b64decode(stored), base64.b64decode(server)), ascii(text)


@hashed
@pytest.mark.parametrize(
    ("salt_size", "iterations"),
    [(1, 4096), (11, 4096), (255, 4096), (16, 1), (16, 256), (16, 100_000), (255, 100_000)],
)
def test_any_salt_and_iteration_count(
    own_cluster: Cluster, connect: Connect, iterations: int, salt_size: int
) -> None:
    """There is no lower bound: some services use a few hundred iterations."""
    with role(own_cluster, verifier(b"pencil", bytes(salt_size), iterations)) as user:
        assert connects(connect, own_cluster, user, "pencil")


@pytest.mark.parametrize("iterations", [1, 256])
def test_a_server_that_is_set_to_few_iterations(
    own_cluster: Cluster, connect: Connect, iterations: int
) -> None:
    if own_cluster.major < 16:
        pytest.skip("PostgreSQL has the setting scram_iterations from 16 on")
    with role(own_cluster, None) as user:
        own_cluster.execute(
            f"SET scram_iterations = {iterations}; ALTER ROLE {user} PASSWORD 'pencil'"
        )
        assert connects(connect, own_cluster, user, "pencil")


def test_too_many_iterations(own_cluster: Cluster, connect: Connect) -> None:
    """The server cannot make a client work for long: the count is checked before any hashing."""
    with role(own_cluster, verifier(b"pencil", iterations=100_001)) as user:
        with pytest.raises(pgrepl.AuthenticationError, match="got '100001'.*scram_max_iterations"):
            connects(connect, own_cluster, user, "pencil")
        assert connects(connect, own_cluster, user, "pencil", scram_max_iterations="100001")
        with pytest.raises(pgrepl.AuthenticationError, match="between 1 and 4096, got '100001'"):
            connects(connect, own_cluster, user, "pencil", scram_max_iterations="4096")


def test_keys_in_place_of_the_password(own_cluster: Cluster, connect: Connect) -> None:
    salt = b"salt of this one"
    salted = salted_password(b"pencil", salt, 4096)
    made = {
        name: base64.b64encode(hmac.digest(salted, f"{name} Key".encode(), "sha256")).decode()
        for name in ("Client", "Server")
    }
    given = {"scram_client_key": made["Client"], "scram_server_key": made["Server"]}
    with role(own_cluster, verifier(b"pencil", salt)) as user:
        conninfo = own_cluster.dsn(user=user, password=None)
        with connect(conninfo, **given) as connection:
            assert connection.identify_system().dbname == "postgres"
        other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
        with pytest.raises(pgrepl.AuthenticationRejected):
            connect(conninfo, **(given | {"scram_client_key": other}))
        with pytest.raises(pgrepl.AuthenticationError, match="expected a signature"):
            connect(conninfo, **(given | {"scram_server_key": other}))


@pytest.mark.parametrize("name", ["n" * 63, "é" * 31 + "x", "q\" \\'; --", "Ünïcode 😀"], ids=ascii)
def test_any_name(own_cluster: Cluster, connect: Connect, name: str) -> None:
    """As long as names can be (NAMEDATALEN), and with whatever is in them."""
    with role(own_cluster, "pencil", name):
        assert connects(connect, own_cluster, name, "pencil")
        with pytest.raises(pgrepl.AuthenticationRejected) as caught:
            connects(connect, own_cluster, name, "pen")
        assert caught.value.sqlstate == "28P01"
