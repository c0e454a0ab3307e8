"""What PostgreSQL refuses writers and streams of published tables for: all of it, provoked, and
told of by the doctor beforehand; and set-ups that look like it, work, and are no problem.

The checks of the server's own: that a row can be named (`CheckCmdReplicaIdentity`), by what each
publication makes of it (`pub_rf_contains_invalid_column`, `pub_contains_invalid_column`), and that
the publications of a stream agree (`check_and_init_gencol`, `pgoutput_column_list_init`). A row
filter that fails for a value, by zero for instance, ends a stream too: nobody knows that before.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import psycopg
import pytest

import pgrepl
from pgrepl.doctor.drivers import answered
from pgrepl.doctor.finding import Finding, Level
from pgrepl.doctor.publications import check_publications
from tests.live.streams import create_slot
from tests.support.clusters import Database

WRITES: Final = ("UPDATE t SET a = 3", "DELETE FROM t")
NEWEST: Final = 99

MISSING, FILTER, LIST = "replica_identity_missing", "row_filter_identity", "column_list_identity"
GENERATED = "generated_identity"

NO_IDENTITY: Final = "does not have a replica identity and publishes"
NOT_FILTERED: Final = "WHERE expression is not part of the replica identity"
NOT_LISTED: Final = "olumn list used by the publication does not cover the replica identity"
NOT_PUBLISHED: Final = "Replica identity must not contain unpublished generated columns"

PARTITIONED: Final = "CREATE TABLE t (id int, a int) PARTITION BY RANGE (id)"
PART: Final = "CREATE TABLE part PARTITION OF t {} FOR VALUES FROM (1) TO (9)"
# The same columns in another order.
ATTACHED: Final = (
    "CREATE TABLE part (a int, id int NOT NULL PRIMARY KEY);"
    "ALTER TABLE t ATTACH PARTITION part FOR VALUES FROM (1) TO (9)"
)
VIA_ROOT: Final = "WITH (publish_via_partition_root)"
STORED: Final = "g int GENERATED ALWAYS AS (a * 2) STORED"
VIRTUAL: Final = "g int GENERATED ALWAYS AS (a * 2) VIRTUAL"


@dataclass(frozen=True)
class Case:
    """`refused`: what the server says. `mended` False: no SQL would do, words have to."""

    name: str
    versions: tuple[int, int]
    sql: str
    refused: str
    kind: str
    mended: bool = True
    table: str = "t"

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


WRITERS: Final = (
    Case(
        "no key",
        (10, NEWEST),
        "CREATE TABLE t (id int, a int); CREATE PUBLICATION p FOR TABLE t",
        NO_IDENTITY,
        MISSING,
    ),
    Case(
        "a filter and no key",
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); CREATE PUBLICATION p FOR TABLE t WHERE (a > 0)",
        NOT_FILTERED,
        MISSING,
    ),
    Case(
        "a list and no key",
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); CREATE PUBLICATION p FOR TABLE t (id)",
        NO_IDENTITY,
        MISSING,
        mended=False,
    ),
    Case(
        "a filter by another column",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);CREATE PUBLICATION p FOR TABLE t WHERE (a > 0)",
        NOT_FILTERED,
        FILTER,
    ),
    Case(
        "a filter by another column, and a list",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int);"
        "CREATE PUBLICATION p FOR TABLE t (id, a) WHERE (a > 0)",
        NOT_FILTERED,
        FILTER,
        mended=False,
    ),
    Case(
        "a filter and a list that another index fits",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int, UNIQUE (a, id));"
        "CREATE PUBLICATION p FOR TABLE t (id, a) WHERE (a > 0)",
        NOT_FILTERED,
        FILTER,
    ),
    Case(
        "a list without the key",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE PUBLICATION p FOR TABLE t (a)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list and the identity FULL",
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id, a)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list, FULL, and a key that is listed",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list, and a generated column in the key",
        (15, 17),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
        mended=False,
    ),
    Case(
        "a list without a generated column of the key",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list, FULL, and a virtual column",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {VIRTUAL}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
        mended=False,
    ),
    Case(
        "a partition without its root's FULL",
        (13, NEWEST),
        f"{PARTITIONED}; {PART.format('')}; ALTER TABLE t REPLICA IDENTITY FULL;"
        f"CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}",
        NO_IDENTITY,
        MISSING,
        table="part",
    ),
    Case(
        "a root's list without a partition's key",
        (15, NEWEST),
        f"{PARTITIONED}; {PART.format('(PRIMARY KEY (id, a))')};"
        f"CREATE PUBLICATION p FOR TABLE t (id) {VIA_ROOT}",
        NOT_LISTED,
        LIST,
        table="part",
    ),
    Case(
        "a root's filter by what is no partition's key",
        (15, NEWEST),
        f"{PARTITIONED}; {ATTACHED}; CREATE PUBLICATION p FOR TABLE t WHERE (a > 0) {VIA_ROOT}",
        NOT_FILTERED,
        FILTER,
        table="part",
    ),
    Case(
        "FULL and a stored column of all tables",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR ALL TABLES",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "FULL, a stored column and a key",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "ALTER TABLE t REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "FULL and a virtual column",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {VIRTUAL}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored)",
        NOT_PUBLISHED,
        GENERATED,
        mended=False,
    ),
    Case(
        "FULL, a virtual column and a key",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {VIRTUAL});"
        "ALTER TABLE t REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "a generated column in the key",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "a partition's FULL and a stored column",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}) PARTITION BY RANGE (id); {PART.format('')};"
        f"ALTER TABLE part REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}",
        NOT_PUBLISHED,
        GENERATED,
        table="part",
    ),
)

COLUMNS_DIFFER: Final = "cannot use different column lists for table"
GENERATED_DIFFER: Final = "cannot use different values of publish_generated_columns for table"

STREAMS: Final = (
    Case(
        "lists that differ",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int);"
        "CREATE PUBLICATION p FOR TABLE t (id, a); CREATE PUBLICATION q FOR TABLE t (id, b)",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list and all tables",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);"
        "CREATE PUBLICATION p FOR ALL TABLES; CREATE PUBLICATION q FOR TABLE t (id)",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list and all tables of a schema",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);"
        "CREATE PUBLICATION p FOR TABLE t (id);"
        "CREATE PUBLICATION q FOR TABLES IN SCHEMA public",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list of all columns, of which some were dropped",
        (15, 15),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); ALTER TABLE t DROP b;"
        "CREATE PUBLICATION p FOR TABLE t (a, id); CREATE PUBLICATION q FOR ALL TABLES",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list of all columns, of which some are generated",
        (15, 15),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t (id, a); CREATE PUBLICATION q FOR TABLE t",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list without what the other generates",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored);"
        "CREATE PUBLICATION q FOR TABLE t (id, a)",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "generated columns published and not",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored);"
        "CREATE PUBLICATION q FOR ALL TABLES",
        GENERATED_DIFFER,
        "generated_columns_differ",
    ),
    Case(
        "virtual columns that nobody publishes",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {VIRTUAL});"
        "CREATE PUBLICATION p FOR TABLE t;"
        "CREATE PUBLICATION q FOR TABLE t WITH (publish_generated_columns = stored)",
        GENERATED_DIFFER,
        "generated_columns_differ",
    ),
    Case(
        "partitions of roots that differ",
        (15, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); {PART.format('')};"
        f"CREATE PUBLICATION p FOR TABLE t (id) {VIA_ROOT};"
        f"CREATE PUBLICATION q FOR TABLE t {VIA_ROOT}",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
)

SOUND: Final = {
    "a list of all columns, and none": (
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);"
        "CREATE PUBLICATION p FOR TABLE t (a, id); CREATE PUBLICATION q FOR ALL TABLES",
    ),
    "a list of all columns but dropped ones": (
        (16, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); ALTER TABLE t DROP b;"
        "CREATE PUBLICATION p FOR TABLE t (a, id); CREATE PUBLICATION q FOR ALL TABLES",
    ),
    "a list of all but what is generated, and none": (
        (16, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t (id, a); CREATE PUBLICATION q FOR TABLE t",
    ),
    "a list of all, with what is generated": (
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t (id, a, g);"
        "CREATE PUBLICATION q FOR TABLE t WITH (publish_generated_columns = stored)",
    ),
    "a list with a generated column of the key": (
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t (id, a, g)",
    ),
    "FULL and a generated column that is published": (
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored)",
    ),
    "FULL and a generated column": (
        (12, 17),
        f"CREATE TABLE t (id int, a int, {STORED}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR ALL TABLES",
    ),
    "inserts alone": (
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id) WHERE (a > 0) WITH (publish = 'insert, truncate')",
    ),
    "a filter by the key, and a list with it": (
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int);"
        "CREATE PUBLICATION p FOR TABLE t (id, a) WHERE (id > 0)",
    ),
    "FULL and a filter": (
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t WHERE (a > 0)",
    ),
    "no partition yet": (
        (13, NEWEST),
        f"{PARTITIONED}; CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}",
    ),
    "columns in another order": (
        (15, NEWEST),
        f"{PARTITIONED}; {ATTACHED};"
        f"CREATE PUBLICATION p FOR TABLE t (id) WHERE (id > 0) {VIA_ROOT}",
    ),
    "a root's list, and another of the partition": (
        (15, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); {PART.format('')};"
        f"CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}; CREATE PUBLICATION q FOR TABLE part (id)",
    ),
}


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
