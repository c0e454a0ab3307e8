"""``pgrepl doctor`` on servers whose settings, slots or roles are wrong: each ailment is caused for
real, found, and gone after the SQL that is printed for it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgrepl
from pgrepl.doctor.drivers import examine
from pgrepl.doctor.finding import Level
from pgrepl.testing import TemporaryServer
from pgrepl.testing.server_account import give, server_account
from tests.live.patients import BAD, RESTART, Patient, only, quoted, since
from tests.live.program import run
from tests.live.streams import PATIENCE, eventually
from tests.support.clusters import Cluster

pytest.importorskip("click")


# Settings


@pytest.mark.parametrize(
    ("name", "value", "level", "major"),
    [
        ("wal_sender_timeout", "0", Level.WARNING, 10),
        ("wal_sender_timeout", "1s", Level.WARNING, 10),
        ("wal_sender_timeout", "1h", Level.WARNING, 10),
        ("max_slot_wal_keep_size", "-1", Level.WARNING, 13),
        ("max_slot_wal_keep_size", "10MB", Level.WARNING, 13),
        ("logical_decoding_work_mem", "64kB", Level.HINT, 13),
        ("idle_replication_slot_timeout", "1h", Level.WARNING, 18),
    ],
)
def test_settings(patient: Patient, name: str, value: str, level: Level, major: int) -> None:
    since(patient, major)
    patient.configure(**{name: value})
    finding = only(patient.examined(), name, level)
    patient.mend(finding)
    assert patient.examined() == []


@pytest.mark.parametrize(
    ("where", "undo"),
    [
        ("DATABASE {bad}", "ALTER DATABASE {bad} RESET ALL"),
        ("ROLE postgres", "ALTER ROLE postgres RESET ALL"),
        ("ROLE postgres IN DATABASE {bad}", "ALTER ROLE postgres IN DATABASE {bad} RESET ALL"),
    ],
)
def test_a_setting_is_mended_where_it_was_made(patient: Patient, where: str, undo: str) -> None:
    since(patient, 12)
    patient.run(quoted(f"ALTER {where} SET wal_sender_timeout = 0"))
    try:
        finding = only(patient.examined(), "wal_sender_timeout", Level.WARNING)
        assert finding.then == "connect again"
        patient.mend(finding)
        assert patient.examined() == []
    finally:
        patient.run(quoted(undo))


def test_a_setting_of_the_conninfo(patient: Patient) -> None:
    since(patient, 12)
    with pgrepl.connect(patient.dsn(options="-c wal_sender_timeout=0")) as connection:
        found = [each for each in examine(connection) if each.level is not Level.OK]
    finding = only(found, "wal_sender_timeout", Level.WARNING)
    assert (finding.sql, finding.then) == (
        (),
        "leave wal_sender_timeout out of the options of the conninfo",
    )


def test_wal_level(patient: Patient) -> None:
    patient.configure(wal_level="replica")
    patient.server.restart()
    finding = only(patient.examined(), "wal_level", Level.PROBLEM)
    patient.run(finding.sql[0])
    patient.on_server("SELECT pg_reload_conf()")
    eventually(
        lambda: patient.on_server(
            "SELECT 1 FROM pg_settings WHERE name = 'wal_level' AND pending_restart"
        ),
        "the server knows of the other value",
    )
    waiting = only(patient.examined(), "wal_level", Level.PROBLEM)
    assert waiting.sql == ()
    assert waiting.then.startswith(RESTART)
    patient.server.restart()
    assert patient.examined() == []


def test_a_slot_is_made_after_the_restart(patient: Patient) -> None:
    patient.configure(wal_level="replica", max_replication_slots=0)
    patient.server.restart()
    found = patient.examined(slot="s")
    assert [each.id for each in found] == ["wal_level", "max_replication_slots", "slot_missing"]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        patient.run(*found[2].sql)
    assert found[2].then.startswith("run it after the restart")
    patient.run(*found[0].sql, *found[1].sql)
    patient.server.restart()
    patient.mend(only(patient.examined(slot="s"), "slot_missing", Level.PROBLEM))
    assert patient.examined(slot="s") == []


def test_no_free_slot(patient: Patient) -> None:
    patient.configure(max_replication_slots=1)
    patient.server.restart()
    patient.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    only(patient.examined(slot="s"), "max_replication_slots", Level.WARNING)
    finding = only(patient.examined(), "max_replication_slots", Level.PROBLEM)
    patient.mend(finding)
    assert patient.examined() == []


def test_the_last_wal_sender(patient: Patient) -> None:
    patient.configure(max_wal_senders=2)
    patient.server.restart()
    with pgrepl.connect(patient.dsn()):
        finding = only(patient.examined(), "max_wal_senders", Level.WARNING)
    patient.mend(finding)
    with pgrepl.connect(patient.dsn()):
        assert patient.examined() == []


# At the door: as its users run it, since there is no session to look with


def doctor(dsn: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and complaint."""
    return run("doctor", dsn, *arguments)


def turned_away(dsn: str, kind: str) -> dict[str, Any]:
    """The one finding of a session that did not begin."""
    status, out, err = doctor(dsn, "--json")
    assert (status, err) == (1, "")
    [finding] = json.loads(out)
    assert (finding["id"], finding["level"]) == (kind, "problem")
    assert isinstance(finding, dict)
    return finding


@pytest.mark.parametrize("settings", [{"max_wal_senders": 1}, {"max_wal_senders": 0}])
def test_no_free_wal_sender(patient: Patient, settings: dict[str, int]) -> None:
    level = "minimal" if not settings["max_wal_senders"] else "logical"
    patient.configure(wal_level=level, **settings)
    patient.server.restart()
    with contextlib.ExitStack() as held:
        if settings["max_wal_senders"]:
            held.enter_context(pgrepl.connect(patient.dsn()))
        finding = turned_away(patient.dsn(), "max_wal_senders")
    patient.run(*finding["sql"])
    assert finding["then"] == RESTART
    patient.server.restart()
    with pgrepl.connect(patient.dsn()):
        assert patient.examined() == []


def test_a_role_that_may_not_replicate(patient: Patient) -> None:
    patient.run(quoted("CREATE ROLE {bad} LOGIN"))
    dsn = patient.dsn(user=BAD)
    finding = turned_away(dsn, "role_replication")
    assert finding["subject"] == {"role": BAD}
    patient.run(*finding["sql"])
    status, out, err = doctor(dsn)
    assert (status, err) == (0, "")
    assert "no problems, no warnings, no hints" in out


def test_a_role_that_may_not_connect(patient: Patient) -> None:
    patient.run(
        quoted("CREATE ROLE {bad} LOGIN REPLICATION"),
        quoted("REVOKE CONNECT ON DATABASE {bad} FROM PUBLIC"),
    )
    finding = turned_away(patient.dsn(user=BAD), "database_connect")
    patient.run(*finding["sql"])
    assert doctor(patient.dsn(user=BAD))[0] == 0
    patient.run(quoted("REVOKE CONNECT ON DATABASE {bad} FROM {bad}"))


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({"dbname": "nowhere"}, 3, "3D000"),
        ({"user": "nobody_at_all"}, 3, "28000"),
        ({"port": "1"}, 3, "127.0.0.1"),
        ({"sslmode": "maybe"}, 2, "sslmode"),
    ],
)
def test_what_cannot_be_examined(
    patient: Patient, parameters: dict[str, str], status: int, words: str
) -> None:
    got, out, err = doctor(patient.dsn(**parameters), "--json")
    assert (got, out) == (status, "")
    assert err.startswith("pgrepl: ")
    assert err.count("\n") == 1
    assert words in err


def test_pg_hba_turns_away(own_cluster: Cluster) -> None:
    status, out, err = doctor(own_cluster.dsn(user="u_reject"))
    assert (status, out) == (3, "")
    assert "pg_hba.conf must let this role in" in err
    assert err.count("\n") == 1


# Slots


def test_a_missing_slot(patient: Patient) -> None:
    finding = only(patient.examined(slot="s"), "slot_missing", Level.PROBLEM)
    patient.mend(finding)
    assert patient.examined(slot="s") == []
    never = only(patient.examined(slot=BAD), "slot_missing", Level.PROBLEM)
    assert never.sql == ()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT pg_create_physical_replication_slot('s')", "is physical"),
        ("SELECT pg_create_logical_replication_slot('s', 'test_decoding')", "'test_decoding'"),
    ],
)
def test_a_slot_of_another_kind(patient: Patient, statement: str, words: str) -> None:
    with contextlib.suppress(psycopg.errors.UndefinedFile):
        patient.run(statement)
        assert words in only(patient.examined(slot="s"), "slot_kind", Level.PROBLEM).found
        return
    pytest.skip("this server lacks test_decoding")


def test_a_slot_of_another_database(patient: Patient) -> None:
    patient.on_server("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    assert "'postgres'" in only(patient.examined(slot="s"), "slot_kind", Level.PROBLEM).found


def test_a_slot_in_use(patient: Patient) -> None:
    patient.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    with pgrepl.connect(patient.dsn(application_name="c0nsumer")) as connection:
        connection.start_streaming(
            "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')",
            PATIENCE,
        )
        finding = only(patient.examined(slot="s"), "slot_active", Level.WARNING)
        assert f"pid {connection.pid}, 'c0nsumer'" in finding.found
        patient.mend(finding)
        eventually(lambda: patient.examined(slot="s") == [], "the slot is free")


# As a stream does, it waits for what it must wait for.
PEEK = (
    "BEGIN; SET LOCAL statement_timeout = '500ms'; SELECT pg_logical_slot_peek_binary_changes("
    "'s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p'); COMMIT"
)


def test_a_slot_that_waits_for_a_standby(patient: Patient) -> None:
    since(patient, 17)
    patient.run(
        "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, false, true)",
        "SELECT pg_create_physical_replication_slot('standby', true)",
    )
    patient.configure(synchronized_standby_slots="standby")
    for why in ("nobody uses", "does not exist"):
        with pytest.raises(psycopg.errors.QueryCanceled):
            patient.run(PEEK)
        finding = only(patient.examined(), "synchronized_standby_slots", Level.PROBLEM)
        assert why in finding.found
        assert patient.examined(slot="s") == [finding]
        if why == "nobody uses":
            patient.run("SELECT pg_drop_replication_slot('standby')")
    patient.mend(finding)
    assert patient.examined() == []
    patient.run(PEEK)


def write_segments(patient: Patient, count: int) -> None:
    for _ in range(count):
        patient.run("SELECT pg_logical_emit_message(false, 'x', 'y')", "SELECT pg_switch_wal()")


def test_slots_that_nobody_reads(patient: Patient) -> None:
    patient.configure(max_wal_size="64MB")
    patient.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    write_segments(patient, 2)
    finding = only(patient.examined(), "slot_inactive", Level.HINT)
    write_segments(patient, 4)
    finding = only(patient.examined(), "slot_inactive", Level.WARNING)
    assert " MB of WAL" in finding.found
    asked_about = only(patient.examined(slot="s"), "slot_inactive", Level.WARNING)
    assert (asked_about.sql, asked_about.then) == ((), "start its consumer")
    assert "drop" not in asked_about.why
    patient.mend(finding)
    assert patient.examined() == []


def test_a_slot_about_to_be_lost_and_then_lost(patient: Patient) -> None:
    since(patient, 13)
    patient.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    patient.configure(max_slot_wal_keep_size="16MB")
    write_segments(patient, 5)
    found = {each.id: each for each in patient.examined()}
    assert found.keys() == {"slot_wal_unreserved", "max_slot_wal_keep_size", "slot_inactive"}
    patient.mend(found["slot_wal_unreserved"])
    assert {each.id for each in patient.examined()} == {"slot_inactive"}
    patient.configure(max_slot_wal_keep_size="16MB")
    patient.run("CHECKPOINT")
    patient.configure(max_slot_wal_keep_size=None)
    only(patient.examined(), "slot_invalidated", Level.WARNING)
    finding = only(patient.examined(slot="s"), "slot_invalidated", Level.PROBLEM)
    assert "wal_removed" in finding.found
    patient.mend(finding)
    assert patient.examined(slot="s") == []


# A standby


@contextlib.contextmanager
def standby_of(primary: TemporaryServer) -> Iterator[TemporaryServer]:
    """A standby that streams from it."""
    with TemporaryServer(primary.bin_directory) as server:
        server.stop()
        shutil.rmtree(server.data_directory)
        subprocess.run(
            [
                *(server.bin_directory / "pg_basebackup", "--dbname", primary.dsn()),
                *("--pgdata", server.data_directory, "--checkpoint", "fast", "--no-sync"),
            ],
            check=True,
            capture_output=True,
        )
        Path(server.data_directory, "standby.signal").touch()
        with Path(server.data_directory, "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{primary.dsn()}'\n")
        give(server.data_directory, server_account())
        server.start()
        yield server


def test_a_standby(patient: Patient) -> None:
    with standby_of(patient.server) as server:
        standby = Patient(server)
        found = {each.id: each for each in standby.examined()}
        standby.mend(found.pop("hot_standby_feedback"))
        if standby.major < 16:
            assert found.pop("standby").level is Level.PROBLEM
            assert found == {}
            assert [each.id for each in standby.examined()] == ["standby"]
        else:
            assert found == {}
            assert standby.examined() == []


# As its users run it


def test_text(patient: Patient) -> None:
    patient.run(
        quoted("CREATE TABLE {bad} (id int)"), quoted("ALTER PUBLICATION p ADD TABLE {bad}")
    )
    status, out, err = doctor(patient.dsn(), "-P", "p")
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("problem  public.B\"a'd ")
    [statement] = [line.strip() for line in lines if line.strip().startswith("ALTER")]
    patient.run(statement)
    assert lines[-1] == "1 problem, no warnings, no hints"
    assert doctor(patient.dsn())[0] == 0


def test_json(patient: Patient) -> None:
    status, out, err = doctor(patient.dsn(), "--json", "--slot", "s")
    assert (status, err) == (1, "")
    assert all(line.isprintable() for line in out.splitlines())
    findings = json.loads(out)
    keys = ["id", "level", "subject", "found", "why", "sql", "then"]
    assert [list(each) for each in findings] == [keys] * len(findings)
    assert findings[0] == {
        "id": "slot_missing",
        "level": "problem",
        "subject": {"slot": "s"},
        "found": "the slot 's' does not exist",
        "why": "A consumer has what is committed after its slot was made, and nothing before.",
        "sql": ["SELECT pg_create_logical_replication_slot('s', 'pgoutput');"],
        "then": "",
    }
    levels = [each["level"] for each in findings]
    assert levels == sorted(levels, key=["problem", "warning", "hint", "ok"].index)
    assert next(each for each in findings if each["id"] == "connection")["subject"] == {
        "database": BAD,
        "role": "postgres",
    }


def test_a_hostile_search_path(patient: Patient) -> None:
    """A role whose schema has tables and operators of the catalogue's names is examined all the
    same."""
    patient.run(
        "CREATE SCHEMA evil",
        "CREATE VIEW evil.pg_publication AS SELECT 'gone'::name AS pubname",
        "CREATE VIEW evil.pg_settings AS SELECT 1 / 0 AS name",
        "CREATE FUNCTION evil.no(name, text) RETURNS bool LANGUAGE sql AS 'SELECT 1 / 0 = 1'",
        "CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, PROCEDURE = evil.no)",
        quoted("ALTER DATABASE {bad} SET search_path = evil, pg_catalog, public"),
    )
    assert patient.examined() == []
