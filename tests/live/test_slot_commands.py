"""Physical slots, slots that are read and altered, and whatever names commands are given: the
server must be told exactly what was meant, which its log shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import pgrepl
from tests.live.streams import PATIENCE, Connect, create_slot, eventually, streaming
from tests.live.test_slots import slot_row
from tests.support.clusters import Cluster, Database

# Physical slots


@pytest.mark.parametrize("replication", ["physical", "database"])
@pytest.mark.parametrize("reserve_wal", [False, True])
def test_physical_slot(
    database: Database, connect: Connect, replication: str, reserve_wal: bool
) -> None:
    name = database.slot()
    with connect(database.dsn(), replication=replication) as connection:
        slot = connection.create_physical_slot(name, reserve_wal=reserve_wal)
        assert slot == pgrepl.Slot(name, pgrepl.Lsn(0), None, None)
        [(kind, temporary, reserved)] = slot_row(
            database, name, "slot_type, temporary, restart_lsn IS NOT NULL"
        )
        assert (kind, temporary, reserved) == ("physical", False, reserve_wal)
        connection.drop_slot(name)
    assert slot_row(database, name, "1") == []


def test_temporary_physical_slot(database: Database, connect: Connect) -> None:
    name = database.slot()
    with connect(database.dsn()) as connection:
        connection.create_physical_slot(name, temporary=True, reserve_wal=True)
        assert slot_row(database, name, "temporary, active_pid") == [(True, connection.pid)]
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.create_physical_slot(name)
        assert caught.value.sqlstate == "42710"
    eventually(lambda: not slot_row(database, name, "temporary"), "the slot goes")


def test_reading_slots(database: Database, connect: Connect) -> None:
    name, unused = database.slot(), database.slot("unused")
    logical = create_slot(database, "logical")
    with connect(database.dsn(), replication="physical") as connection:
        connection.create_physical_slot(name, reserve_wal=True)
        connection.create_physical_slot(unused)
        if database.cluster.major < 15:
            with pytest.raises(
                pgrepl.UsageError, match="READ_REPLICATION_SLOT needs PostgreSQL 15"
            ):
                connection.read_slot(name)
            return
        [(position,)] = slot_row(database, name, "restart_lsn::text")
        assert connection.read_slot(name) == pgrepl.PhysicalSlot(pgrepl.Lsn(position), 1)
        assert connection.read_slot(unused) == pgrepl.PhysicalSlot(None, None)
        for missing in (database.slot("missing"), "No Such; Slot"):
            assert connection.read_slot(missing) is None
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.read_slot(logical)
        assert caught.value.sqlstate == "0A000"
        assert connection.identify_system().timeline == 1


# Altering


def test_altering_slots(database: Database, connect: Connect) -> None:
    name = create_slot(database)
    with connect(database.dsn()) as connection:
        if database.cluster.major < 17:
            for options in ({"failover": True}, {"two_phase": False}):
                with pytest.raises(pgrepl.UsageError, match="needs PostgreSQL 17 or later"):
                    connection.alter_slot(name, **options)
        else:
            for value in (True, False, True):
                connection.alter_slot(name, failover=value)
                assert slot_row(database, name, "failover, two_phase") == [(value, False)]
        if database.cluster.major == 17:
            with pytest.raises(pgrepl.UsageError, match="two_phase is altered need PostgreSQL 18"):
                connection.alter_slot(name, two_phase=True)
        if database.cluster.major >= 18:
            connection.alter_slot(name, two_phase=True)
            assert slot_row(database, name, "failover, two_phase") == [(True, True)]
            connection.alter_slot(name, failover=False, two_phase=False)
            assert slot_row(database, name, "failover, two_phase") == [(False, False)]
        assert connection.identify_system().dbname == database.name


def test_slots_that_cannot_be_altered(database: Database, connect: Connect) -> None:
    if database.cluster.major < 17:
        pytest.skip("slots are altered from PostgreSQL 17 on")
    name, physical = create_slot(database), database.slot("physical")
    with connect(database.dsn()) as connection:
        connection.create_physical_slot(physical)
        with pytest.raises(pgrepl.UsageError, match="failover, two_phase or both"):
            connection.alter_slot(name)
        with pytest.raises(pgrepl.SlotNotFound):
            connection.alter_slot(database.slot("missing"), failover=True)
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.alter_slot(physical, failover=True)
        assert caught.value.sqlstate == "0A000"
        assert connection.identify_system().dbname == database.name


def test_altering_waits_for_whoever_uses_the_slot(database: Database, connect: Connect) -> None:
    if database.cluster.major < 17:
        pytest.skip("slots are altered from PostgreSQL 17 on")
    name = create_slot(database)
    with connect(database.dsn()) as connection:
        with streaming(connect, database, name):
            with pytest.raises(TimeoutError):
                connection.alter_slot(name, failover=True, timeout=0.2)
            assert slot_row(database, name, "failover") == [(False,)]
        # The server goes on with it as soon as it can.
        assert connection.identify_system(timeout=PATIENCE).dbname == database.name
        assert slot_row(database, name, "failover") == [(True,)]


# Names, and what the server is told

#: Of each it is known whether it goes to the server, or is refused before.
TOLD = (
    *("x'; DROP", "a,b", "\\", "a\\'b", "x" * 63, "🐘", " ", "trailing ", "a\nb", "(x)", "--"),
    *("$1", "%s", "TEMPORARY", "START_REPLICATION", "é" * 31),
)
UNTOLD = ('a"b', '"', "a\0b", "x" * 64, "é" * 32, "", "\ud800")

Use = Callable[[pgrepl.Connection, str], object]

USES: dict[str, tuple[Use, str]] = {
    "create physical": (
        lambda c, name: c.create_physical_slot(name, temporary=True),
        'CREATE_REPLICATION_SLOT "{}" TEMPORARY PHYSICAL',
    ),
    "create logical": (
        lambda c, name: c.create_logical_slot(name, temporary=True),
        'CREATE_REPLICATION_SLOT "{}" TEMPORARY LOGICAL "pgoutput" {nothing}',
    ),
    "plugin": (
        lambda c, name: c.create_logical_slot("fine", name, temporary=True),
        'CREATE_REPLICATION_SLOT "fine" TEMPORARY LOGICAL "{}" {nothing}',
    ),
    "drop": (lambda c, name: c.drop_slot(name), 'DROP_REPLICATION_SLOT "{}"'),
    "read": (lambda c, name: c.read_slot(name), 'READ_REPLICATION_SLOT "{}"'),
    "alter": (
        lambda c, name: c.alter_slot(name, failover=True),
        'ALTER_REPLICATION_SLOT "{}" (FAILOVER true)',
    ),
    "show": (lambda c, name: c.show(f"x.{name}"), 'SHOW "x"."{}"'),
    "start": (
        lambda c, name: c.start_physical(name, start=1, timeline=7),
        'START_REPLICATION SLOT "{}" PHYSICAL 0/1 TIMELINE 7',
    ),
}
SINCE = {"read": 15, "alter": 17}


def commands_of(cluster: Cluster, beginning: int, pid: int) -> list[str]:
    """The replication commands of a session in the server's log, from a place in it on."""
    log = cluster.own.log_file.read_bytes()[beginning:].decode()
    # What goes over several lines is indented by a tab.
    entries = log.replace("\n\t", "\0").splitlines()
    pattern = re.compile(rf".* \[{pid}\] LOG:  received replication command: (.*)")
    found = [match[1] for entry in entries if (match := pattern.fullmatch(entry))]
    return [command.replace("\0", "\n") for command in found]


def refused(use: Callable[[], Any]) -> Exception | None:
    """The error of a command, None if it went well."""
    try:
        use()
    except pgrepl.Error as error:
        return error
    return None


@pytest.mark.parametrize("what", USES)
def test_v15_each_name_is_one_name_of_one_command(
    own_cluster: Cluster, connect: Connect, what: str
) -> None:
    if own_cluster.major < SINCE.get(what, 0):
        pytest.skip(f"there is no such command before PostgreSQL {SINCE[what]}")
    use, command = USES[what]
    nothing = "NOEXPORT_SNAPSHOT" if own_cluster.major < 15 else "(SNAPSHOT 'nothing')"
    # Without it an old standby would not stream.
    before = ["IDENTIFY_SYSTEM"] if what == "start" and own_cluster.major < 15 else []
    with connect(own_cluster.dsn(), options="-c log_replication_commands=on") as connection:
        for name in TOLD + UNTOLD:
            beginning = own_cluster.own.log_file.stat().st_size
            error = refused(lambda name=name: use(connection, name))  # type: ignore[misc]
            commands = commands_of(own_cluster, beginning, connection.pid)
            if name in TOLD:
                expected = command.replace("{nothing}", nothing).replace("{}", name)
                assert commands == [*before, expected]
                assert error is None or isinstance(error, pgrepl.ServerError)
            else:
                assert commands == []
                assert isinstance(error, pgrepl.UsageError)
            assert connection.query("SELECT 'next'", timeout=PATIENCE)[0].rows == [("next",)]


def test_v15_values_are_one_value_of_one_command(own_cluster: Cluster, connect: Connect) -> None:
    with connect(own_cluster.dsn(), options="-c log_replication_commands=on") as connection:
        for label in ("x'; DROP", 'a"b', "\\'\\", "🐘\n", "", "x" * 1000):
            beginning = own_cluster.own.log_file.stat().st_size
            backup = connection.base_backup(label=label, checkpoint="fast", max_rate=32)
            assert isinstance(next(backup), pgrepl.BackupStart)
            [said] = commands_of(own_cluster, beginning, connection.pid)
            quoted = "'" + label.replace("'", "''") + "'"
            expected = {
                True: f"BASE_BACKUP LABEL {quoted} FAST MAX_RATE 32",
                False: f"BASE_BACKUP (LABEL {quoted}, CHECKPOINT 'fast', MAX_RATE 32)",
            }
            assert said == expected[own_cluster.major < 15]
            own_cluster.execute("SELECT pg_cancel_backend(%s)", [connection.pid])
            with pytest.raises(pgrepl.ServerError, match="57014"):
                list(backup)
        with pytest.raises(pgrepl.UsageError, match="without zero bytes"):
            connection.base_backup(label="a\0b")
        assert connection.identify_system().timeline == 1
