"""``pgrepl identify`` and ``pgrepl slots`` as their users run them: a process each, on real
servers."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from tests.live.program import (
    PROGRAM,
    answer,
    complaint,
    output,
    running,
)
from tests.live.streams import (
    PATIENCE,
    TABLE,
    confirmed,
    create_slot,
    eventually,
    start_pgoutput,
)
from tests.support.clusters import Cluster, Database

pytest.importorskip("click")

SLOT_KEYS: Final = [
    *("slot", "slot_type", "plugin", "database", "temporary", "active_pid", "application_name"),
    *("client_addr", "restart_lsn", "confirmed_flush_lsn", "wal_held_bytes", "lag_bytes"),
    *("lag_seconds", "wal_status", "safe_wal_size", "two_phase", "failover", "synced"),
    *("conflicting", "invalidation_reason", "inactive_since", "inactive_seconds"),
]


def listed(database: Database, name: str) -> dict[str, Any]:
    """A slot as the program lists it."""
    [slot] = [each for each in answer("slots", "list", database.dsn()) if each["slot"] == name]
    assert list(slot) == SLOT_KEYS
    return dict(slot)


def exists(database: Database, name: str) -> bool:
    return bool(database.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [name]))


# identify


@pytest.mark.parametrize("replication", ["database", "physical"])
def test_identify(database: Database, replication: str) -> None:
    words = ("identify", database.dsn(), "--replication", replication)
    told = answer(*words)
    [(system, version)] = database.execute(
        "SELECT system_identifier::text, current_setting('server_version_num')::int"
        " FROM pg_control_system()"
    )
    position = told.pop("wal_position")
    assert str(pgrepl.Lsn(position)) == position
    assert re.match(rf"{database.cluster.major}\.", told.pop("server_version"))
    physical = replication == "physical"
    old = database.cluster.major < 14
    assert told == {
        "system_identifier": system,
        "timeline": 1,
        "database": None if physical else database.name,
        "server_version_num": version,
        "in_recovery": None if physical and old else False,
    }
    lines = dict(re.findall(r"(?m)^(.{20})(.+)$", output(*words)))
    assert lines["system identifier".ljust(20)] == system
    expected = "none: a physical connection" if physical else database.name
    assert lines["database".ljust(20)] == expected


def test_a_password_is_not_repeated(own_cluster: Cluster) -> None:
    dsn = own_cluster.dsn(user="u_scram", password="wrong, and secret")
    said = complaint("identify", dsn)
    assert "28P01" in said
    assert "secret" not in said


def test_connection_errors() -> None:
    assert "127.0.0.1" in complaint("identify", "host=127.0.0.1 port=1")
    assert "sslmode" in complaint("slots", "list", "sslmode=maybe", status=2)


def test_pg_hba_is_named(own_cluster: Cluster) -> None:
    dsn = own_cluster.dsn(user="u_reject")
    assert "let this role in to this database" in complaint("identify", dsn)
    said = complaint("identify", dsn, "--replication", "physical")
    assert "to the database 'replication'" in said


@pytest.mark.parametrize(
    "words", [("list",), ("advance", "--slot", "s", "--to", "current")], ids=lambda words: words[0]
)
def test_what_needs_sql(database: Database, words: tuple[str, ...]) -> None:
    said = complaint("slots", *words, database.dsn(), "--replication", "physical", status=2)
    assert "by SQL, which a physical replication connection does not have" in said


# list


def test_list_an_unused_slot(database: Database) -> None:
    name = create_slot(database)
    database.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    slot = listed(database, name)
    major = database.cluster.major
    assert slot["slot_type"] == "logical"
    assert (slot["plugin"], slot["database"]) == ("pgoutput", database.name)
    assert (slot["temporary"], slot["active_pid"], slot["lag_seconds"]) == (False, None, None)
    assert 0 < slot["lag_bytes"] <= slot["wal_held_bytes"]
    assert pgrepl.Lsn(slot["confirmed_flush_lsn"]) == confirmed(database, name)
    assert slot["wal_status"] == ("reserved" if major >= 13 else None)
    assert slot["two_phase"] is (False if major >= 14 else None)
    assert slot["failover"] is (False if major >= 17 else None)
    if major >= 17:
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]{15}Z", slot["inactive_since"])
        assert 0 <= slot["inactive_seconds"] < 3600
    else:
        assert slot["inactive_since"] is slot["inactive_seconds"] is None


def test_list_a_slot_in_use(database: Database) -> None:
    database.execute(TABLE)
    name = create_slot(database)
    with pgrepl.connect(database.dsn(application_name="a\tb \x1b[2J")) as connection:
        start_pgoutput(connection, name)
        slot = listed(database, name)
        [(application,)] = database.execute(
            "SELECT application_name FROM pg_stat_activity WHERE pid = %s", [connection.pid]
        )
        assert slot["active_pid"] == connection.pid
        assert slot["application_name"] == application
        assert slot["client_addr"] == "127.0.0.1"
        shown = output("slots", "list", database.dsn())
        assert f"pid {connection.pid} " in shown
        assert all(line.isprintable() for line in shown.splitlines())


def test_lag_in_time(database: Database) -> None:
    database.execute(TABLE)
    name = create_slot(database)
    lags: list[float] = []
    with pgrepl.connect(database.dsn()) as connection:
        start_pgoutput(connection, name)
        database.execute("INSERT INTO item VALUES (1, 'x')")

        def has_lag() -> bool:
            batch = connection.receive_wal_messages(PATIENCE)
            last = max(batch.wal_end, default=0)
            connection.send_standby_status(last, last, last, reply_requested=True)
            lag = listed(database, name)["lag_seconds"]
            lags.extend([] if lag is None else [lag])
            return bool(lags)

        eventually(has_lag, "the server knows a lag")
    assert 0 <= lags[0] < 3600


def test_list_a_physical_slot(database: Database) -> None:
    name = database.slot("physical")
    database.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
    slot = listed(database, name)
    assert (slot["slot_type"], slot["plugin"], slot["database"]) == ("physical", None, None)
    assert slot["restart_lsn"] is slot["wal_held_bytes"] is slot["lag_bytes"] is None
    [line] = [
        line.split() for line in output("slots", "list", database.dsn()).splitlines()
        if line.startswith(name)
    ]  # fmt: skip
    assert line[1:4] == ["physical", "-", "nobody"]


# create


def test_create(database: Database) -> None:
    name = database.slot("made")
    words = ("slots", "create", database.dsn(), "--slot", name)
    made = answer(*words)
    position = made.pop("consistent_point")
    assert pgrepl.Lsn(position) == confirmed(database, name)
    assert made == {"slot": name, "slot_type": "logical", "plugin": "pgoutput", "created": True}
    assert "42710" in complaint(*words)
    again = answer(*words, "--if-not-exists")
    assert (again["created"], again["consistent_point"]) == (False, None)
    assert output(*words, "--if-not-exists") == f"the logical slot {name} was there already\n"
    said = complaint(*words, "--if-not-exists", "--plugin", "wal2json")
    # Whether the server has that plugin is told by its own error, where it looks for that first.
    assert "wal2json" in said


def test_if_not_exists_wants_the_same_kind(database: Database) -> None:
    name = create_slot(database)
    words = ("slots", "create", "--slot", name, "--if-not-exists")
    said = complaint(*words, database.dsn(), "--physical")
    assert f"the replication slot '{name}' to be a physical slot, it is a logical slot" in said
    said = complaint(*words, database.cluster.dsn())
    assert f"the database '{database.name}'" in said


def test_if_not_exists_tells_what_the_slot_lacks(database: Database) -> None:
    if database.cluster.major < 15:
        pytest.skip("needs two_phase of PostgreSQL 15")
    name = create_slot(database)
    words = [database.dsn(), "--slot", name, "--if-not-exists", "--two-phase"]
    creates = ("slots", "create", *words)
    if database.cluster.major < 18:
        remedy = "drop it and create it again,"
    else:
        remedy = "add it with  pgrepl slots alter --slot NAME --two-phase,"
    assert f"was there already, without --two-phase: {remedy}" in complaint(*creates)
    if database.cluster.major >= 17:
        creates = ("slots", "create", *words[:-1], "--failover")
        assert "pgrepl slots alter --slot NAME --failover," in complaint(*creates)
        streams = ("stream", *words[:-1], "--failover", "-P", "p", "--create-slot")
        database.execute("CREATE PUBLICATION p FOR ALL TABLES")
        assert "without --failover" in complaint(*streams)
        output("slots", "alter", database.dsn(), "-S", name, "--failover")
        assert output(*creates) == f"the logical slot {name} was there already\n"


def test_a_slot_that_is_not_there(database: Database) -> None:
    commands: list[tuple[str, ...]]
    commands = [("slots", "drop", "--yes"), ("slots", "alter", "--no-failover")]
    for words in commands:
        if words[1] == "alter" and database.cluster.major < 17:
            continue
        said = complaint(*words, "-S", "nowhere_to_be_found", database.dsn())
        assert "pgrepl slots list  shows which there are" in said


@pytest.mark.parametrize("replication", ["database", "physical"])
def test_create_a_physical_slot(database: Database, replication: str) -> None:
    name = database.slot("physical")
    words = ("slots", "create", database.dsn(), "--slot", name, "--physical")
    made = answer(*words, "--reserve-wal", "--replication", replication)
    assert made == {
        "slot": name,
        "slot_type": "physical",
        "plugin": None,
        "created": True,
        "consistent_point": None,
    }
    assert listed(database, name)["restart_lsn"] is not None
    again = answer(*words, "--if-not-exists", "--replication", replication)
    assert again["created"] is False


def test_create_with_options(database: Database) -> None:
    name = database.slot("options")
    words = ("slots", "create", database.dsn(), "--slot", name, "--two-phase")
    if database.cluster.major < 15:
        assert "need PostgreSQL 15" in complaint(*words)
    elif database.cluster.major < 17:
        assert "need PostgreSQL 17" in complaint(*words, "--failover")
        assert output(*words).startswith(f"created the logical slot {name}; ")
        assert listed(database, name)["two_phase"] is True
    else:
        output(*words, "--failover")
        slot = listed(database, name)
        assert (slot["two_phase"], slot["failover"]) == (True, True)
        assert "two_phase, failover" in output("slots", "list", database.dsn())


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        ("slots create", signal.SIGINT, 130),
        ("slots create", signal.SIGTERM, 143),
        # A stream has no other end than this.
        ("stream --create-slot --format=raw --plugin=test_decoding", signal.SIGINT, 0),
    ],
)
def test_create_waits_for_transactions_and_can_be_interrupted(
    database: Database, command: str, number: int, status: int
) -> None:
    name = database.slot("waiting")
    database.execute("CREATE TABLE t (id int)")
    with database.connect() as writer:
        writer.execute("BEGIN; INSERT INTO t VALUES (1)")
        with running(*command.split(), database.dsn(), "--slot", name) as process:
            eventually(lambda: exists(database, name), "the slot is being made")
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (status, "", "")
        eventually(lambda: not exists(database, name), "the server has given up as well")


# drop


# alter


# advance


# The output


def test_a_reader_that_has_left(database: Database) -> None:
    create_slot(database)
    with running("slots", "list", database.dsn()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is Linux's")
def test_an_output_that_is_full(database: Database) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*PROGRAM, "identify", database.dsn()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "pgrepl: the output cannot be written: No space left on device\n"
