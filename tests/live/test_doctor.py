"""`pgrepl.doctor.examine`, as a service calls it: what it needs, leaves behind and raises, in both
flavours; and the programs of docs/doctor.md.

What it finds is in the files that begin with test_doctor_, and test_cli_doctor.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from pgrepl.doctor import Finding, Level, examine
from tests.live.streams import PATIENCE, Connect, create_slot, start_pgoutput
from tests.support.clusters import Database
from tests.support.event_loops import Awaited

PAGE: Final = Path(__file__).parents[2] / "docs" / "doctor.md"
SETTINGS: Final = "SELECT current_setting('search_path'), current_setting('TimeZone')"


pytestmark = pytest.mark.flavours("blocking-c", "asyncio-python")


def examined(connection: Any, *arguments: Any, **keywords: Any) -> list[Finding]:
    """What is found by a connection of either flavour."""
    if isinstance(connection, Awaited):
        call = examine(connection.asynchronous, *arguments, **keywords)
        found: list[Finding] = connection.wait_for(call)
        return found
    return examine(connection, *arguments, **keywords)


@pytest.fixture
def connection(connect: Connect, database: Database) -> Iterator[Any]:
    with connect(database.dsn()) as made:
        yield made


def rows(connection: Any, sql: str) -> list[tuple[str | None, ...]]:
    """The rows of the last statement."""
    found: list[tuple[str | None, ...]] = connection.query(sql)[-1].rows
    return found


def of_tables(found: Sequence[Finding]) -> list[tuple[str, Level, str]]:
    """What is found of tables: the server's other databases have slots, too."""
    return [
        (each.id, each.level, each.subject["table"]) for each in found if "table" in each.subject
    ]


def test_what_is_found(connection: Any, database: Database) -> None:
    database.execute("CREATE TABLE item (id int); CREATE PUBLICATION p FOR TABLE item")
    slot = create_slot(database)
    missing = [("replica_identity_missing", Level.PROBLEM, "item")]
    assert of_tables(examined(connection)) == missing
    found = examined(connection, ["p"], slot)
    assert of_tables(found) == missing
    assert found[0].id == "connection"
    assert [each.level for each in found if each.id == "slot"] == [Level.OK]
    by_id = {each.id: each for each in examined(connection, iter(["q"]), "no_such_slot")}
    assert by_id["publication_missing"].subject == {"publication": "q"}
    assert by_id["slot_missing"].subject == {"slot": "no_such_slot"}
    database.execute(by_id["publication_missing"].sql[0] + "ALTER TABLE item ADD PRIMARY KEY (id)")
    assert not any(each.level is Level.PROBLEM for each in examined(connection, ["p", "q"], slot))


def test_a_finding_is_a_value(connection: Any, database: Database) -> None:
    found = examined(connection)
    assert len({*found, *found}) == len(found)
    with pytest.raises(AttributeError):
        found[0].level = Level.PROBLEM  # type: ignore[misc]


# The session


def test_the_session_stays_as_it_was(connection: Any, database: Database) -> None:
    connection.query("SET search_path = elsewhere, public; SET TimeZone = 'Asia/Tokyo'")
    examined(connection)
    assert rows(connection, SETTINGS) == [("elsewhere, public", "Asia/Tokyo")]


def test_an_open_transaction_goes_on_as_it_was(connection: Any, database: Database) -> None:
    """One that is read-only, too: the server would refuse what writes."""
    database.execute("CREATE TABLE item (id int); CREATE PUBLICATION p FOR TABLE item")
    connection.query("BEGIN READ ONLY")
    connection.query("SET LOCAL search_path = elsewhere; SET LOCAL TimeZone = 'Asia/Tokyo'")
    assert of_tables(examined(connection)) == [("replica_identity_missing", Level.PROBLEM, "item")]
    assert rows(connection, SETTINGS) == [("elsewhere", "Asia/Tokyo")]
    connection.query("COMMIT")
    assert rows(connection, SETTINGS) != [("elsewhere", "Asia/Tokyo")]


def test_a_transaction_that_has_failed(connection: Any) -> None:
    connection.query("BEGIN")
    with pytest.raises(pgrepl.ServerError):
        connection.query("SELECT 1 / 0")
    with pytest.raises(pgrepl.ServerError) as caught:
        examined(connection)
    assert caught.value.sqlstate == "25P02"
    connection.query("ROLLBACK")
    assert examined(connection)


def test_no_operator_of_the_role_is_asked(connection: Any, database: Database) -> None:
    database.execute(
        "CREATE SCHEMA evil; CREATE TABLE item (id int); CREATE PUBLICATION p FOR TABLE item;"
        "CREATE VIEW evil.pg_publication AS SELECT 1 / 0 AS pubname;"
        "CREATE FUNCTION evil.no(name, text) RETURNS bool LANGUAGE sql AS 'SELECT 1 / 0 = 1';"
        "CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, PROCEDURE = evil.no)"
    )
    connection.query("SET search_path = evil, pg_catalog, public")
    assert of_tables(examined(connection, ["p"])) == [
        ("replica_identity_missing", Level.PROBLEM, "item")
    ]


# What it cannot do


def test_a_physical_connection(connect: Connect, database: Database) -> None:
    with connect(database.dsn(dbname=None), replication="physical") as connection:
        with pytest.raises(pgrepl.UsageError, match="expected a connection to a database"):
            examined(connection)
        assert connection.identify_system().dbname is None


def test_a_connection_that_streams(connection: Any, database: Database) -> None:
    slot = create_slot(database)
    start_pgoutput(connection, slot)
    with pytest.raises(pgrepl.UsageError, match="expected no stream to be on"):
        examined(connection)
    connection.stop_streaming()
    assert examined(connection)


def test_a_connection_that_is_closed(connect: Connect, database: Database) -> None:
    with connect(database.dsn()) as connection:
        connection.disconnect()
        with pytest.raises(pgrepl.UsageError, match="this one is closed"):
            examined(connection)


def test_a_time_limit_leaves_the_connection_usable(connection: Any, database: Database) -> None:
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE pg_catalog.pg_publication IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            examined(connection, timeout=0.2)
        other.execute("ROLLBACK")
    assert examined(connection, timeout=PATIENCE)[0].id == "connection"


# The page


@pytest.fixture(scope="module")
def program() -> str:
    """The page's blocks of Python, one behind the other."""
    return "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


def test_a_type_checker_accepts_the_page(program: str, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    path = tmp_path / "program.py"
    path.write_text(program)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)],
        capture_output=True,
        text=True,
        cwd=PAGE.parents[1],
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_page(program: str, database: Database) -> None:
    slot = database.slot("changes")
    assert program.count('"changes"') == 2
    names: dict[str, Any] = {}
    exec(program.replace('"changes"', repr(slot)), names)
    told = names["readiness"](database.dsn())
    assert not told["ready"]
    assert {"publication_missing", "slot_missing"} <= {each["id"] for each in told["findings"]}
    found: list[Finding] = asyncio.run(names["findings_of"](database.dsn()))
    for finding in found:
        if finding.id in ("publication_missing", "slot_missing"):
            database.execute(finding.sql[0])
    assert names["readiness"](database.dsn())["ready"]
    refused = names["readiness"](database.dsn(dbname="no_such_database"))
    assert not refused["ready"]
    assert "no_such_database" in refused["error"]
