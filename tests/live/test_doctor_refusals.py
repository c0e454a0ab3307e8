"""What PostgreSQL refuses writers and streams of published tables for: all of it, provoked, and
told of by the doctor beforehand; and set-ups that look like it, work, and are no problem.

The checks of the server's own: that a row can be named (`CheckCmdReplicaIdentity`), by what each
publication makes of it (`pub_rf_contains_invalid_column`, `pub_contains_invalid_column`), and that
the publications of a stream agree (`check_and_init_gencol`, `pgoutput_column_list_init`).
"""

from __future__ import annotations

import itertools
from typing import Final

import psycopg
import pytest

import pgrepl
from pgrepl.doctor.drivers import answered
from pgrepl.doctor.finding import Finding, Level
from pgrepl.doctor.publications import check_publications
from tests.live.refusals import (
    ATTACHED,
    GENERATED,
    NEWEST,
    PARTITIONED,
    SOUND,
    STORED,
    STREAMS,
    WRITERS,
    WRITES,
    Case,
)
from tests.live.streams import create_slot
from tests.support.clusters import Database


def examined(database: Database, *names: str) -> list[Finding]:
    with pgrepl.connect(database.dsn()) as connection:
        return answered(connection, check_publications(connection.server_version, names))


def problems(found: list[Finding]) -> list[Finding]:
    return [each for each in found if each.level is Level.PROBLEM]


def prepared(database: Database, versions: tuple[int, int], sql: str) -> None:
    if not versions[0] <= database.cluster.major <= versions[1]:
        pytest.skip("not of this version")
    for statement in sql.split(";"):
        database.execute(statement)
    if "PARTITION BY" not in sql or "part " in sql:
        database.execute("INSERT INTO t (id, a) VALUES (1, 1), (2, 2)")


def refused(database: Database, statement: str) -> str:
    with pytest.raises(psycopg.Error) as caught:
        database.execute(statement)
    return f"{caught.value.diag.message_primary}: {caught.value.diag.message_detail}"


@pytest.mark.parametrize("case", WRITERS, ids=str)
def test_writers(case: Case, database: Database) -> None:
    prepared(database, case.versions, case.sql)
    for write in WRITES:
        assert case.refused in refused(database, write)
    [finding] = problems(examined(database))
    assert finding.id == case.kind
    assert finding.subject == {"publication": "p", "schema": "public", "table": case.table}
    assert bool(finding.sql) == case.mended
    if not case.mended:
        assert finding.then
        return
    for statement in finding.sql:
        database.execute(statement)
    for write in WRITES:
        database.execute(write)
    assert problems(examined(database)) == []


_numbers: Final = itertools.count()


def stream(database: Database) -> None:
    """Have all of both publications decoded from here on."""
    slot = create_slot(database, f"s{next(_numbers)}")
    names = ",".join(name for (name,) in database.execute("SELECT pubname FROM pg_publication"))
    database.execute("INSERT INTO t (id, a) VALUES (3, 3)")
    for write in WRITES:
        database.execute(write)
    database.execute(
        "SELECT pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
        " 'publication_names', %s)",
        [slot, names],
    )


@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_streams(case: Case, database: Database) -> None:
    prepared(database, case.versions, case.sql)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=case.refused):
        stream(database)
    assert problems(examined(database)) == []  # nobody has said that they are of one stream
    [finding] = problems(examined(database, "p", "q"))
    assert finding.id == case.kind
    assert finding.subject["table"] == case.table
    for statement in finding.sql:
        database.execute(statement)
    stream(database)
    assert problems(examined(database, "p", "q")) == []


@pytest.mark.parametrize("name", SOUND)
def test_what_works_is_no_problem(name: str, database: Database) -> None:
    versions, sql = SOUND[name]
    prepared(database, versions, sql)
    names = [each for (each,) in database.execute("SELECT pubname FROM pg_publication")]
    assert problems(examined(database, *names)) == []
    if name != "no partition yet":
        stream(database)


@pytest.mark.parametrize("columns", [("a", "id, a"), ("id, a", "a")])
def test_lists_are_made_alike_so_that_writers_go_on(
    columns: tuple[str, str], database: Database
) -> None:
    """The one that leaves the key out publishes INSERT alone, the other one keeps the key."""
    if database.cluster.major < 15:
        pytest.skip("column lists need PostgreSQL 15")
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)")
    for name, listed in zip("pq", columns, strict=True):
        kinds = "insert" if listed == "a" else "insert, update, delete"
        database.execute(
            f"CREATE PUBLICATION {name} FOR TABLE t ({listed}) WITH (publish = '{kinds}')"
        )
    [differ] = [each for each in examined(database, "p", "q") if each.id == "column_lists_differ"]
    for statement in differ.sql:
        database.execute(statement)
    assert problems(examined(database, "p", "q")) == []
    for statement in WRITES:
        database.execute(statement)


def test_a_key_with_a_generated_column_before_18(database: Database) -> None:
    """Not refused, and worse: nothing tells which row was meant."""
    prepared(
        database,
        (12, 17),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t",
    )
    stream(database)
    [finding] = [each for each in examined(database) if each.id == GENERATED]
    assert (finding.level, finding.sql) == (Level.WARNING, ())


@pytest.mark.parametrize("via_root", [True, False])
def test_a_partition_with_another_identity_than_its_root(
    via_root: bool, database: Database
) -> None:
    prepared(
        database,
        (13, NEWEST),
        f"{PARTITIONED}; {ATTACHED}; CREATE PUBLICATION p FOR TABLE t"
        f" WITH (publish_via_partition_root = {via_root})",
    )
    stream(database)
    found = {each.id: each for each in examined(database)}
    assert ("partition_identity" in found) is via_root
    if via_root:
        finding = found["partition_identity"]
        assert finding.level is Level.WARNING
        assert "public.part are named by id" in finding.found
        assert "tells of no column" in finding.found
        database.execute("ALTER TABLE t REPLICA IDENTITY FULL")
        [finding] = [each for each in examined(database) if each.id == "partition_identity"]
        assert "tells of all columns" in finding.found
        for statement in finding.sql:
            database.execute(statement)
        assert "partition_identity" not in {each.id for each in examined(database)}
        stream(database)
