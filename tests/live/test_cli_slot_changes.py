"""The program's commands that drop, alter and advance slots."""

from __future__ import annotations

import os
import signal

import pytest

import pgrepl
from tests.live.program import (
    answer,
    complaint,
    on_terminal,
    output,
    read_until,
    running,
)
from tests.live.streams import (
    PATIENCE,
    TABLE,
    confirmed,
    create_slot,
    eventually,
    peek,
    start_pgoutput,
    wait_until_free,
)
from tests.live.test_cli_operations import exists, listed
from tests.support.clusters import Database


def test_drop(database: Database) -> None:
    name = create_slot(database)
    words = ("slots", "drop", database.dsn(), "--slot", name)
    said = complaint(*words, status=2)
    assert "This needs --yes where nobody can be asked" in said
    assert f"of database {database.name}" in said
    assert exists(database, name)
    assert answer(*words, "--yes") == {"slot": name, "dropped": True}
    assert not exists(database, name)
    assert "42704" in complaint(*words, "--yes")
    assert answer(*words, "--if-exists") == {"slot": name, "dropped": False}
    assert output(*words, "--if-exists") == f"there is no slot {name}\n"


def test_drop_by_a_physical_connection(database: Database) -> None:
    name = create_slot(database)
    words = ("slots", "drop", database.dsn(), "--slot", name, "--replication", "physical")
    assert "needs --yes" in complaint(*words, status=2)
    assert output(*words, "--yes") == f"dropped the slot {name}\n"
    assert answer(*words, "--yes", "--if-exists") == {"slot": name, "dropped": False}


def test_drop_a_slot_in_use(database: Database) -> None:
    database.execute(TABLE)
    name = create_slot(database)
    words = ("slots", "drop", database.dsn(), "--slot", name, "--yes")

    def waits() -> bool:
        return bool(
            database.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'ReplicationSlotDrop'"
            )
        )

    with pgrepl.connect(database.dsn()) as connection:
        start_pgoutput(connection, name)
        said = complaint(*words)
        assert "55006" in said
        assert "pgrepl slots drop --wait" in said
        with running(*words, "--wait") as process:
            eventually(waits, "it waits")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == ("", "")
            assert process.returncode == 130
            eventually(lambda: not waits(), "the server has given up as well")
        with running(*words, "--wait") as process:
            eventually(waits, "it waits")
            connection.disconnect()
            out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, f"dropped the slot {name}\n", "")
    assert not exists(database, name)


@pytest.mark.parametrize(("reply", "status"), [("y\n", 0), ("n\n", 130), ("\x03", 130)])
def test_drop_asks_on_a_terminal(database: Database, reply: str, status: int) -> None:
    name = create_slot(database)
    with on_terminal("slots", "drop", database.dsn(), "--slot", name) as (process, terminal):
        shown = read_until(terminal, "[y/N]: ")
        assert f"The slot {name} is to be dropped" in shown
        assert exists(database, name)
        os.write(terminal, reply.encode())
        assert process.wait(PATIENCE) == status
    assert exists(database, name) is (status != 0)


def test_a_table_in_colours_fits_the_terminal(database: Database) -> None:
    create_slot(database)
    with on_terminal("slots", "list", database.dsn()) as (process, terminal):
        shown = read_until(terminal, "pgoutput")
        assert process.wait(PATIENCE) == 0
    assert "\x1b[1m" in shown  # the headings


def test_alter(database: Database) -> None:
    name = create_slot(database)
    words = ("slots", "alter", database.dsn(), "--slot", name)
    if database.cluster.major < 17:
        assert "PostgreSQL 17" in complaint(*words, "--failover")
        return
    assert answer(*words, "--failover") == {"slot": name, "failover": True, "two_phase": None}
    assert listed(database, name)["failover"] is True
    assert output(*words, "--no-failover") == f"altered the slot {name}: failover off\n"
    assert listed(database, name)["failover"] is False
    if database.cluster.major < 18:
        assert "PostgreSQL 18" in complaint(*words, "--two-phase")
        return
    assert output(*words, "--two-phase", "--failover").endswith("failover on, two_phase on\n")
    assert listed(database, name)["two_phase"] is True


def fill(database: Database) -> str:
    """A slot with two transactions; its name."""
    database.execute(TABLE)
    name = create_slot(database)
    for number in (1, 2):
        database.execute("INSERT INTO item VALUES (%s, 'x')", [number])
    return name


def inserted(database: Database, slot: str) -> int:
    return sum(payload[:1] == b"I" for payload in peek(database, slot))


def test_advance(database: Database) -> None:
    name = fill(database)
    words = ("slots", "advance", database.dsn(), "--slot", name, "--to")
    before = pgrepl.Lsn(confirmed(database, name))
    said = complaint(*words, "current", status=2)
    assert "there is no way back. This needs --yes" in said
    assert inserted(database, name) == 2
    [(middle,)] = database.execute(
        "SELECT max(lsn)::text FROM (SELECT lsn FROM pg_logical_slot_peek_binary_changes(%s,"
        " NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
        " WHERE get_byte(data, 0) = 67 ORDER BY lsn LIMIT 1) AS first",
        [name],
    )
    moved = answer(*words, middle, "--yes")
    assert moved == {"slot": name, "from": str(before), "to": middle}
    assert inserted(database, name) == 1
    assert output(*words, "current", "--yes").startswith(f"moved the slot {name} from {middle} to ")
    assert inserted(database, name) == 0
    here = pgrepl.Lsn(confirmed(database, name))
    assert f"is at {here} and cannot go back to {before}" in complaint(*words, str(before), "--yes")
    assert output(*words, str(here)) == f"the slot {name} stays at {here}\n"
    assert "WAL ends at" in complaint(*words, "FF/0", "--yes")


def test_advance_a_physical_slot(database: Database) -> None:
    name = database.slot("physical")
    words = ("slots", "advance", database.dsn(), "--slot", name, "--to", "current", "--yes")
    database.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
    assert "has no position to move on from" in complaint(*words)
    database.execute("SELECT pg_drop_replication_slot(%s)", [name])
    database.execute("SELECT pg_create_physical_replication_slot(%s, true)", [name])
    database.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    moved = answer(*words)
    assert pgrepl.Lsn(moved["from"]) < pgrepl.Lsn(moved["to"])
    assert listed(database, name)["restart_lsn"] == moved["to"]


def test_what_cannot_be_advanced(database: Database) -> None:
    words = ("slots", "advance", database.dsn(), "--to", "current", "--yes", "--slot")
    assert "the slot 'nowhere' does not exist" in complaint(*words, "nowhere")
    name = fill(database)
    with pgrepl.connect(database.dsn()) as connection:
        start_pgoutput(connection, name)
        assert "55006" in complaint(*words, name)
    wait_until_free(database, name)
    elsewhere = ("slots", "advance", database.cluster.dsn(), "--to", "current", "--yes", "--slot")
    if database.cluster.major < 17:
        assert "55000" in complaint(*elsewhere, name)


@pytest.mark.parametrize("name", ["x'; DROP TABLE item; --", 'a"b', "\x1b[2J", "\\", "A", "é", " "])
def test_hostile_slot_names(database: Database, name: str) -> None:
    """They are nowhere, and nothing else happens."""
    database.execute(TABLE)
    for words in (
        ("create", "--slot", name),
        ("drop", "--yes", "--slot", name),
        ("advance", "--to", "current", "--yes", "--slot", name),
    ):
        said = complaint("slots", *words, database.dsn())
        assert said.rstrip("\n").isprintable()
    assert database.execute("SELECT count(*) FROM item") == [(0,)]
