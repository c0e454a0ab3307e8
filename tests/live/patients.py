"""Servers for the doctor: healthy, until a test makes them ill, with names as bad as they can be.

The servers are of their own, since their settings change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

import pgrepl
from pgrepl.doctor.drivers import examine
from pgrepl.doctor.finding import Finding, Level
from pgrepl.testing import TemporaryServer
from tests.live.streams import eventually
from tests.support.clusters import Cluster

BAD: Final = 'B"a\'d \\ \x1b[31m \u202e, $$; --\nDROP TABLE "x"'
"""A name that is written to mislead whoever quotes or shows it."""

HEALTHY: Final[dict[str, str | int | bool]] = {"max_slot_wal_keep_size": "20GB"}
RESTART: Final = "restart the server"


class Patient:
    """A server with a database whose name is bad, and what the doctor says of it."""

    def __init__(self, server: TemporaryServer, database: str = BAD) -> None:
        self.server = server
        self.database = database
        [(number,)] = self.on_server("SELECT current_setting('server_version_num')::int")
        self.major: int = number // 10000

    def dsn(self, **parameters: str) -> str:
        return self.server.dsn(**{"dbname": self.database, **parameters})

    def run(self, *statements: str | sql.Composed) -> list[tuple[Any, ...]]:
        """Run statements in the database, each on its own; returns the last rows."""
        return _run(self.dsn(), statements)

    def on_server(self, *statements: str | sql.Composed) -> list[tuple[Any, ...]]:
        """The same in the database `postgres`."""
        return _run(self.server.dsn(), statements)

    def configure(self, **settings: str | int | None) -> None:
        """Change settings of the server, None for their values in postgresql.conf."""
        for name, value in settings.items():
            change = f"SET {name} = '{value}'" if value is not None else f"RESET {name}"
            self.on_server(f"ALTER SYSTEM {change}")
        with self.reloading():
            self.on_server("SELECT pg_reload_conf()")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Wait until new sessions begin with what the block has the server load."""
        loaded = self.on_server("SELECT pg_conf_load_time()")
        yield
        eventually(
            lambda: self.on_server("SELECT pg_conf_load_time()") != loaded,
            "the settings are in force",
        )

    def examined(self, *publications: str, slot: str | None = None) -> list[Finding]:
        """The findings, those that are ok left out."""
        with pgrepl.connect(self.dsn()) as connection:
            found = examine(connection, publications, slot)
        assert found[0].id == "connection"
        return [each for each in found if each.level is not Level.OK]

    def mend(self, finding: Finding) -> None:
        """Do what a finding says, as somebody who copies it from a terminal."""
        reloads = "SELECT pg_reload_conf();" in finding.sql
        with self.reloading() if reloads else contextlib.nullcontext():
            for statement in finding.sql:
                assert statement.isprintable()
                assert statement.endswith(";")
                self.run(statement)
        if finding.then == RESTART:
            self.server.restart()


def _run(dsn: str, statements: Sequence[str | sql.Composed]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            query = statement.encode() if isinstance(statement, str) else statement
            cursor = connection.execute(query)
            rows = cursor.fetchall() if cursor.description else []
    return rows


@pytest.fixture(scope="module")
def hospital(cluster: Cluster) -> Iterator[TemporaryServer]:
    """A server whose settings may be changed."""
    settings = HEALTHY if cluster.major >= 13 else {}
    with TemporaryServer(cluster.own.bin_directory, settings=settings) as server:
        yield server


@pytest.fixture
def patient(hospital: TemporaryServer) -> Iterator[Patient]:
    """A healthy server with a healthy publication `p`; afterwards it is healthy again."""
    name = sql.Identifier(BAD)
    _run(hospital.dsn(), [sql.SQL("CREATE DATABASE {}").format(name)])
    made = Patient(hospital)
    made.run(
        sql.SQL("CREATE SCHEMA {}").format(name),
        "CREATE TABLE item (id int PRIMARY KEY, note text)",
        "CREATE PUBLICATION p FOR TABLE item",
    )
    assert made.examined() == []
    yield made
    made.on_server("ALTER SYSTEM RESET ALL")
    hospital.restart()  # without this, sessions and what they hold would be left
    for (slot,) in made.on_server("SELECT slot_name FROM pg_replication_slots"):
        made.on_server(sql.SQL("SELECT pg_drop_replication_slot({})").format(sql.Literal(slot)))
    made.on_server(sql.SQL("DROP DATABASE {}").format(name))
    made.on_server("DROP ROLE IF EXISTS bad_role", sql.SQL("DROP ROLE IF EXISTS {}").format(name))


def only(found: Sequence[Finding], kind: str, level: Level) -> Finding:
    """The one finding there is."""
    assert [(each.id, each.level) for each in found] == [(kind, level)]
    return found[0]


def since(patient: Patient, major: int) -> None:
    if patient.major < major:
        pytest.skip(f"needs PostgreSQL {major}")


def quoted(text: str) -> sql.Composed:
    """SQL with {bad} for the bad name, and {worse} for another, quoted by somebody else's code."""
    return sql.SQL(text).format(bad=sql.Identifier(BAD), worse=sql.Identifier(f"{BAD}!"))
