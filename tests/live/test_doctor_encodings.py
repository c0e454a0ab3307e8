"""``pgrepl doctor`` in a database without an encoding, whose names need not be text."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

import pgrepl
from pgrepl.doctor.drivers import examine
from tests.live.program import run
from tests.support.clusters import Cluster

NAME = "doctor_sql_ascii"


@pytest.fixture
def dsn(cluster: Cluster) -> Iterator[str]:
    """A database with names in Latin 1 and in UTF-8."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {NAME} TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LC_COLLATE 'C' LC_CTYPE 'C'".encode()
        )
        try:
            made = cluster.dsn(dbname=NAME)
            with psycopg.connect(f"{made} client_encoding=SQL_ASCII", autocommit=True) as inside:
                inside.execute(b'CREATE TABLE "caf\xe9" (a int)')
                inside.execute('CREATE TABLE "café" (a int)'.encode())
                inside.execute(b'CREATE PUBLICATION "p\xe9" FOR ALL TABLES')
            yield made
        finally:
            connection.execute(f"DROP DATABASE {NAME}".encode())


def test_names_that_are_no_text(dsn: str) -> None:
    for publications in ((), ("p\udce9",)):
        with pgrepl.connect(dsn) as connection:
            found = examine(connection, publications)
        missing = {each.subject["table"]: each for each in found if each.id.endswith("missing")}
        assert missing.keys() == {"caf\udce9", "café"}
        assert missing["caf\udce9"].sql == ()
        assert "no SQL is shown" in missing["caf\udce9"].then
        [sql] = missing["café"].sql
        with psycopg.connect(f"{dsn} client_encoding=SQL_ASCII", autocommit=True) as connection_:
            connection_.execute(sql.encode())
            connection_.execute('ALTER TABLE "café" REPLICA IDENTITY DEFAULT'.encode())


def test_the_report(dsn: str) -> None:
    status, out, err = run("doctor", dsn)
    assert (status, err) == (1, "")
    assert r"public.caf\xe9 has no primary key" in out
    assert "public.café has no primary key" in out
    told = json.loads(run("doctor", dsn, "--json")[1])
    assert {each["subject"].get("table") for each in told} >= {"caf\udce9", "café"}
