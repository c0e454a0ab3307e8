"""``pgrepl doctor`` on publications and tables that are wrong: each ailment is caused for real,
found, and gone after the SQL that is printed for it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

import pgrepl
from pgrepl.doctor.drivers import examine
from pgrepl.doctor.finding import Finding, Level
from tests.live.patients import BAD, Patient, only, quoted, since

# Publications


def test_a_missing_publication(patient: Patient) -> None:
    finding = only(patient.examined(BAD, "p"), "publication_missing", Level.PROBLEM)
    assert finding.subject == {"publication": BAD}
    patient.mend(finding)
    assert patient.examined(BAD, "p") == []


def test_no_publication(patient: Patient) -> None:
    patient.run("DROP PUBLICATION p")
    patient.mend(only(patient.examined(), "publication_none", Level.WARNING))
    assert patient.examined() == []


def test_a_publication_of_nothing(patient: Patient) -> None:
    patient.run(quoted("CREATE PUBLICATION {bad}"))
    finding = only(patient.examined(), "publication_empty", Level.WARNING)
    assert finding.then.isprintable()
    patient.run(finding.then.replace("...", "item").partition(" for each")[0])
    assert patient.examined() == []


def test_operations(patient: Patient) -> None:
    patient.run(quoted("CREATE PUBLICATION {bad} FOR TABLE item WITH (publish = 'insert, update')"))
    patient.mend(only(patient.examined(), "publication_operations", Level.HINT))
    assert patient.examined() == []
    told = {each.found for each in all_of(patient, BAD) if each.id == "publication"}
    operations = "insert, update, delete" + (", truncate" if patient.major > 10 else "")
    assert told == {f"the publication {BAD!r} publishes {operations} of public.item"}


def test_what_would_have_writers_refused_is_not_proposed(patient: Patient) -> None:
    patient.run(
        quoted("CREATE TABLE {bad} (id int)"),
        quoted("CREATE PUBLICATION {bad} FOR TABLE {bad} WITH (publish = 'insert')"),
        "CREATE UNLOGGED TABLE loose (id int)",
        "CREATE PUBLICATION q FOR ALL TABLES",
    )
    by_id = {each.id: each for each in patient.examined()}
    operations, loose = by_id["publication_operations"], by_id["table_unlogged"]
    assert (operations.sql, loose.sql) == ((), ())
    assert f"for public.{BAD}: without it" in operations.then
    assert loose.then.startswith("give it a primary key, and then ALTER TABLE")
    patient.run(
        quoted("ALTER TABLE {bad} ADD PRIMARY KEY (id)"), "ALTER TABLE loose ADD PRIMARY KEY (id)"
    )
    for finding in patient.examined():
        assert finding.sql
        patient.mend(finding)
    assert patient.examined() == []


def test_restrictions_are_told(patient: Patient) -> None:
    since(patient, 15)
    patient.run(
        "ALTER TABLE item ADD more int",
        quoted("CREATE PUBLICATION {bad} FOR TABLE item (id, more) WHERE (id > 5)"),
    )
    assert patient.examined(BAD) == []
    [told] = [each.found for each in all_of(patient, BAD) if each.id == "publication"]
    assert "of public.item the columns id, more" in told
    assert "of public.item rows where (id > 5)" in told


def test_partitions(patient: Patient) -> None:
    since(patient, 13)
    patient.run(
        quoted("CREATE TABLE {bad} (id int PRIMARY KEY) PARTITION BY RANGE (id)"),
        quoted("CREATE TABLE part PARTITION OF {bad} FOR VALUES FROM (1) TO (9)"),
        quoted("ALTER PUBLICATION p ADD TABLE {bad}"),
    )
    patient.mend(only(patient.examined(), "partitions", Level.HINT))
    assert patient.examined() == []


def test_an_identity_that_a_partition_lacks(patient: Patient) -> None:
    since(patient, 13)
    patient.run(
        quoted("CREATE TABLE {bad} (id int) PARTITION BY RANGE (id)"),
        quoted("CREATE TABLE part PARTITION OF {bad} FOR VALUES FROM (1) TO (9)"),
        quoted("INSERT INTO {bad} VALUES (1)"),
        quoted("ALTER PUBLICATION p ADD TABLE {bad}"),
        "ALTER PUBLICATION p SET (publish_via_partition_root)",
    )
    finding = only(patient.examined(), "replica_identity_missing", Level.PROBLEM)
    assert finding.subject == {"publication": "p", "schema": "public", "table": "part"}
    update = quoted("UPDATE {bad} SET id = 2")
    refused(patient, update)
    patient.mend(finding)
    patient.run(update)
    kinds = {each.id: each.level for each in patient.examined()}
    assert kinds == {"replica_identity_full": Level.HINT, "partition_identity": Level.WARNING}


def test_generated_columns(patient: Patient) -> None:
    since(patient, 12)
    patient.run(
        "CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",
        quoted("CREATE PUBLICATION {bad} FOR TABLE g"),
    )
    finding = only(patient.examined(), "generated_columns", Level.HINT)
    assert "public.g.twice" in finding.found
    if patient.major < 18:
        assert finding.sql == ()
        assert "PostgreSQL 18 can" in finding.why
    else:
        patient.mend(finding)
        assert patient.examined() == []


@pytest.mark.parametrize("scope", ["ALL TABLES", "TABLES IN SCHEMA {bad}"])
def test_unlogged_and_foreign_tables(patient: Patient, scope: str) -> None:
    since(patient, 15 if "SCHEMA" in scope else 10)
    patient.run(
        quoted("CREATE PUBLICATION q FOR " + scope),
        quoted("CREATE TABLE {bad}.one (id int PRIMARY KEY)"),
        quoted("CREATE UNLOGGED TABLE {bad}.{bad} (id int PRIMARY KEY)"),
    )
    patient.mend(only(patient.examined(), "table_unlogged", Level.WARNING))
    assert patient.examined() == []
    patient.run(
        "CREATE FOREIGN DATA WRAPPER w",
        "CREATE SERVER s FOREIGN DATA WRAPPER w",
        quoted("CREATE FOREIGN TABLE {bad}.far (id int) SERVER s"),
    )
    finding = only(patient.examined(), "table_foreign", Level.HINT)
    assert finding.subject == {"publication": "q", "schema": BAD, "table": "far"}


def test_a_publication_of_all_tables_where_there_is_none(patient: Patient) -> None:
    patient.run("DROP TABLE item", "CREATE PUBLICATION q FOR ALL TABLES")
    kinds = {each.subject["publication"]: each.level for each in patient.examined()}
    assert kinds == {"p": Level.WARNING, "q": Level.HINT}


def all_of(patient: Patient, *publications: str) -> list[Finding]:
    """The findings, ok ones too."""
    with pgrepl.connect(patient.dsn()) as connection:
        return examine(connection, publications)


def refused(patient: Patient, update: sql.Composed) -> None:
    """That a finding is no false alarm: the server refuses what it says."""
    with pytest.raises(
        (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.InvalidColumnReference)
    ):
        patient.run(update)


# Tables


@pytest.mark.parametrize(
    ("definition", "alteration", "mended"),
    [
        ("id int", "", "FULL;"),
        ("id int PRIMARY KEY", "ALTER TABLE {bad}.{bad} REPLICA IDENTITY NOTHING", "DEFAULT;"),
        ("id int NOT NULL, CONSTRAINT {worse} UNIQUE (id)", "", "USING INDEX"),
        ("id int UNIQUE", "", "FULL;"),
        (
            "id int NOT NULL",
            "CREATE UNIQUE INDEX i ON {bad}.{bad} (id);"
            "ALTER TABLE {bad}.{bad} REPLICA IDENTITY USING INDEX i; DROP INDEX {bad}.i",
            "FULL;",
        ),
        ("id int PRIMARY KEY DEFERRABLE", "", "FULL;"),
    ],
)
def test_no_replica_identity(
    patient: Patient, definition: str, alteration: str, mended: str
) -> None:
    patient.run(quoted(f"CREATE TABLE {{bad}}.{{bad}} ({definition})"))
    patient.run(quoted("INSERT INTO {bad}.{bad} VALUES (1)"))
    if alteration:
        patient.run(quoted(alteration))
    patient.run(quoted("ALTER PUBLICATION p ADD TABLE {bad}.{bad}"))
    finding = only(patient.examined(), "replica_identity_missing", Level.PROBLEM)
    assert finding.subject == {"publication": "p", "schema": BAD, "table": BAD}
    assert mended in finding.sql[0]
    update = quoted("UPDATE {bad}.{bad} SET id = 2")
    refused(patient, update)
    patient.mend(finding)
    patient.run(update)
    if mended == "FULL;":
        assert only(patient.examined(), "replica_identity_full", Level.HINT).sql == ()
    else:
        assert patient.examined() == []


@pytest.mark.parametrize("full", [False, True])
def test_a_deferrable_key(patient: Patient, full: bool) -> None:
    patient.run("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)", "ALTER PUBLICATION p ADD TABLE t")
    finding = only(patient.examined(), "replica_identity_missing", Level.PROBLEM)
    assert "has a primary key that is deferrable, which cannot be the replica id" in finding.found
    assert finding.then == "or make its primary key again, not deferrable, which costs less"
    if full:
        patient.mend(finding)
        finding = only(patient.examined(), "replica_identity_full", Level.HINT)
        assert finding.then == "a primary key that is not deferrable would do instead"
    else:
        patient.run("ALTER TABLE t DROP CONSTRAINT t_pkey", "ALTER TABLE t ADD PRIMARY KEY (id)")
        assert patient.examined() == []


def test_inserts_need_no_identity(patient: Patient) -> None:
    patient.run(
        quoted("CREATE TABLE {bad} (id int)"),
        quoted("CREATE PUBLICATION q FOR TABLE {bad} WITH (publish = 'insert')"),
    )
    only(patient.examined(), "publication_operations", Level.HINT)


def test_full_identity(patient: Patient) -> None:
    patient.run("ALTER TABLE item REPLICA IDENTITY FULL", "CREATE PUBLICATION q FOR TABLE item")
    finding = only(patient.examined(), "replica_identity_full", Level.WARNING)
    assert finding.subject == {"schema": "public", "table": "item"}
    patient.mend(finding)
    assert patient.examined() == []


def test_column_list_without_identity(patient: Patient) -> None:
    since(patient, 15)
    patient.run(
        quoted("CREATE TABLE {bad}.{bad} ({bad} int PRIMARY KEY, a int, b int)"),
        quoted("INSERT INTO {bad}.{bad} VALUES (1, 1, 1)"),
        quoted("ALTER PUBLICATION p ADD TABLE {bad}.{bad} (a) WHERE ({bad} > 0)"),
    )
    finding = only(patient.examined(), "column_list_identity", Level.PROBLEM)
    update = quoted("UPDATE {bad}.{bad} SET a = 2")
    refused(patient, update)
    # The row filter has the bad name in it as it is, and cannot be shown: so nothing is.
    assert finding.sql == ()
    patient.run(quoted("ALTER TABLE {bad}.{bad} RENAME {bad} TO k"))
    patient.mend(only(patient.examined(), "column_list_identity", Level.PROBLEM))
    patient.run(update)
    assert patient.examined() == []
    [(columns, row_filter)] = patient.run(
        "SELECT attnames::text[], rowfilter FROM pg_publication_tables WHERE tablename <> 'item'"
    )
    assert (sorted(columns), row_filter) == (["a", "k"], "(k > 0)")


def test_column_list_with_full_identity(patient: Patient) -> None:
    since(patient, 15)
    patient.run(
        quoted("CREATE TABLE {bad}.{bad} (a int, b int)"),
        quoted("INSERT INTO {bad}.{bad} VALUES (1, 1)"),
        quoted("ALTER TABLE {bad}.{bad} REPLICA IDENTITY FULL"),
        quoted("ALTER PUBLICATION p ADD TABLE {bad}.{bad} (a)"),
    )
    update = quoted("UPDATE {bad}.{bad} SET a = 2")
    refused(patient, update)
    patient.mend(only(patient.examined(), "column_list_identity", Level.PROBLEM))
    patient.run(update)
    only(patient.examined(), "replica_identity_full", Level.HINT)


def test_row_filter_without_identity(patient: Patient) -> None:
    since(patient, 15)
    patient.run(
        quoted("CREATE TABLE {bad}.{bad} (id int PRIMARY KEY, {bad} int)"),
        quoted("INSERT INTO {bad}.{bad} VALUES (1, 1)"),
        quoted("ALTER PUBLICATION p ADD TABLE {bad}.{bad} WHERE ({bad} > 0)"),
    )
    update = quoted("UPDATE {bad}.{bad} SET id = 2")
    refused(patient, update)
    patient.mend(only(patient.examined(), "row_filter_identity", Level.PROBLEM))
    patient.run(update)
    only(patient.examined(), "replica_identity_full", Level.HINT)


def test_different_column_lists(patient: Patient) -> None:
    since(patient, 15)
    patient.run(
        quoted("CREATE TABLE {bad}.{bad} (id int PRIMARY KEY, {bad} int, b int)"),
        quoted("CREATE PUBLICATION q FOR TABLE {bad}.{bad} (id, {bad})"),
        quoted("CREATE PUBLICATION {bad} FOR TABLE {bad}.{bad}"),
    )
    assert patient.examined() == []
    patient.mend(only(patient.examined("q", BAD), "column_lists_differ", Level.PROBLEM))
    assert patient.examined("q", BAD) == []


def test_long_values(patient: Patient) -> None:
    patient.run(
        "ALTER TABLE item ALTER note SET STORAGE EXTERNAL",
        "INSERT INTO item VALUES (1, repeat('x', 9000))",
        "CREATE PUBLICATION q FOR TABLE item",
    )
    finding = only(patient.examined(), "toast", Level.HINT)
    assert "UNCHANGED" in finding.why
