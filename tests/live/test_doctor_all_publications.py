"""What a doctor's remedy for one publication does to the others that have the table: writers are
refused for any of them, so that no remedy may break another, whichever of them is asked about."""

from __future__ import annotations

import pytest

from pgrepl.doctor.finding import Finding, Level
from tests.live.refusals import (
    FILTER,
    GENERATED,
    LIST,
    MISSING,
    NOT_LISTED,
    NOT_PUBLISHED,
    STORED,
    WRITES,
)
from tests.live.test_doctor_refusals import examined, prepared, problems, refused
from tests.support.clusters import Database

TABLE = "CREATE TABLE t (id int PRIMARY KEY, a int)"


def mend(database: Database, finding: Finding) -> None:
    for statement in finding.sql:
        database.execute(statement)


def written(database: Database) -> None:
    for write in WRITES:
        database.execute(write)


def test_full_for_a_row_filter_stays(database: Database) -> None:
    prepared(
        database,
        (15, 99),
        f"{TABLE}; CREATE PUBLICATION p FOR TABLE t WHERE (a > 0);"
        "CREATE PUBLICATION q FOR ALL TABLES",
    )
    [finding] = problems(examined(database, "p"))
    assert finding.id == FILTER
    mend(database, finding)
    for names in ((), ("p",), ("q",), ("p", "q")):
        [finding] = [each for each in examined(database, *names) if each.level is not Level.OK]
        assert (finding.id, finding.level) == ("replica_identity_full", Level.HINT)
        assert (finding.sql, finding.then) == ((), "")
    written(database)


def test_no_key_and_a_row_filter(database: Database) -> None:
    """A key of other columns would break the filter: so it is said which it takes."""
    prepared(
        database,
        (15, 99),
        "CREATE TABLE t (id int, a int); CREATE PUBLICATION p FOR TABLE t;"
        "CREATE PUBLICATION q FOR TABLE t WHERE (a > 0)",
    )
    for finding in problems(examined(database, "p")):
        assert finding.id == MISSING
        assert finding.then == (
            "or give it a primary key with a among its columns, which costs less"
        )
    mend(database, finding)
    assert problems(examined(database)) == []
    written(database)


def test_a_row_filter_and_the_column_list_of_another(database: Database) -> None:
    prepared(
        database,
        (15, 99),
        f"{TABLE}; CREATE PUBLICATION p FOR TABLE t WHERE (a > 0);"
        "CREATE PUBLICATION q FOR TABLE t (id)",
    )
    [finding] = problems(examined(database, "p"))
    assert (finding.id, finding.sql) == (FILTER, ())
    assert "no replica identity suits all of 'p', 'q'" in finding.then
    # As it is said: the columns of the filter to the key, those of the key to the list.
    database.execute("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, a)")
    [finding] = problems(examined(database, "p"))
    assert (finding.id, finding.subject["publication"]) == (LIST, "q")
    mend(database, finding)
    assert problems(examined(database)) == []
    written(database)


@pytest.mark.parametrize("others", ["ALL TABLES", "TABLE t"])
def test_another_publication_refuses_writers(others: str, database: Database) -> None:
    prepared(
        database,
        (18, 99),
        f"CREATE TABLE t (id int, a int, {STORED}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored);"
        f"CREATE PUBLICATION q FOR {others}",
    )
    assert NOT_PUBLISHED in refused(database, WRITES[0])
    [finding] = problems(examined(database, "p"))
    assert finding.id == GENERATED
    assert finding.subject == {"publication": "q", "schema": "public", "table": "t"}
    mend(database, finding)
    assert problems(examined(database, "p")) == []
    written(database)


def test_writers_of_a_publication_of_inserts(database: Database) -> None:
    """They are refused as well, and those of other tables are nobody's who asks."""
    prepared(
        database,
        (15, 99),
        f"{TABLE}; CREATE TABLE other (id int); CREATE PUBLICATION q FOR TABLE t (a), other;"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert')",
    )
    assert NOT_LISTED in refused(database, WRITES[0])
    [finding] = problems(examined(database, "p"))
    assert (finding.id, finding.subject["publication"]) == (LIST, "q")
    mend(database, finding)
    written(database)
