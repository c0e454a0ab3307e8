"""Physical slots, slots that are read and altered, and whatever names commands are given: the
server must be told exactly what was meant, which its log shows."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

import pytest

import pgrepl
from tests.live.streams import PATIENCE, Connect, create_slot, eventually, streaming
from tests.live.test_slots import slot_row
from tests.support.clusters import Cluster, Database
from tests.support.flavours import FEW_FLAVOURS

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)

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
        assert connection.read_slot(name) == pgrepl.physical.PhysicalSlot(pgrepl.Lsn(position), 1)
        assert connection.read_slot(unused) == pgrepl.physical.PhysicalSlot(None, None)
        for missing in (database.slot("missing"), "No Such; Slot"):
            assert connection.read_slot(missing) is None
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.read_slot(logical)
        assert caught.value.sqlstate == "0A000"
        assert connection.identify_system().timeline == 1


# Taken where they exist


def test_a_slot_that_exists(database: Database, connect: Connect) -> None:
    name, physical = database.slot(), database.slot("physical")
    with connect(database.dsn()) as connection:
        made = connection.create_logical_slot(name, if_not_exists=True)
        kept = connection.create_physical_slot(physical, reserve_wal=True, if_not_exists=True)
        assert made.created
        assert kept.created
        with pytest.raises(pgrepl.SlotExists, match=f'42710: .*"{name}" already exists'):
            connection.create_logical_slot(name)
        with pytest.raises(pgrepl.SlotExists):
            connection.create_physical_slot(physical)
        taken = connection.create_logical_slot(name, if_not_exists=True)
        assert taken == pgrepl.Slot(name, made.consistent_point, None, "pgoutput", created=False)
        again = connection.create_physical_slot(physical, if_not_exists=True)
        assert again == pgrepl.Slot(physical, pgrepl.Lsn(0), None, None, created=False)
        for wrong in (physical, create_slot(database, "plugin", plugin="test_decoding")):
            with pytest.raises(pgrepl.SlotExists, match="to be a logical slot of the plugin 'pgou"):
                connection.create_logical_slot(wrong, if_not_exists=True)
        with pytest.raises(pgrepl.SlotExists, match="to be a physical slot, it is a logical"):
            connection.create_physical_slot(name, if_not_exists=True)
        # Nothing of that cost the session anything.
        assert connection.query("SELECT 1")[0].rows == [("1",)]


def test_a_slot_that_exists_on_a_physical_connection(database: Database, connect: Connect) -> None:
    name = database.slot()
    logical = create_slot(database, "logical")
    with connect(database.dsn(), replication="physical") as connection:
        assert connection.create_physical_slot(name, reserve_wal=True, if_not_exists=True).created
        assert not connection.create_physical_slot(name, if_not_exists=True).created
        if database.cluster.major >= 15:
            with pytest.raises(pgrepl.SlotExists, match="it is a logical slot"):
                connection.create_physical_slot(logical, if_not_exists=True)
        with pytest.raises(pgrepl.UsageError, match="slots are listed by SQL"):
            connection.slots()
        assert connection.identify_system().timeline == 1


def test_temporary_slots_outlive_looking_for_another(database: Database, connect: Connect) -> None:
    """A command that failed would have cost the session all that it has of them."""
    name, temporary = create_slot(database, "there"), database.slot("temporary")
    with connect(database.dsn()) as connection, connect(database.dsn()) as other:
        made = connection.create_logical_slot(temporary, temporary=True, if_not_exists=True)
        connection.create_logical_slot(name, if_not_exists=True)
        taken = connection.create_logical_slot(temporary, temporary=True, if_not_exists=True)
        assert (taken.created, taken.consistent_point) == (False, made.consistent_point)
        with pytest.raises(pgrepl.SlotExists, match=f"of PID {connection.pid}"):
            other.create_logical_slot(temporary, temporary=True, if_not_exists=True)


# Listed


def test_listing_slots(database: Database, connect: Connect) -> None:
    name, physical = create_slot(database), database.slot("physical")
    with connect(database.dsn()) as connection:
        # Whatever can be put before PostgreSQL's own names.
        connection.query(
            "CREATE FUNCTION host(inet) RETURNS text LANGUAGE sql AS 'SELECT $$x$$';"
            " CREATE VIEW pg_replication_slots AS SELECT 1 AS one;"
            " SET search_path = public, pg_catalog; SET DateStyle = German;"
            " SET TimeZone = 'Asia/Tokyo'"
        )
        connection.create_physical_slot(physical)
        found = {slot.name: slot for slot in connection.slots()}
        logical = found[name]
        assert list(found) == sorted(found)
        assert [slot.name for slot in connection.slots(name)] == [name]
        assert connection.slots("no such; slot") == []
        assert (logical.slot_type, logical.plugin) == ("logical", "pgoutput")
        assert (logical.database, logical.temporary) == (connection.identify_system().dbname, False)
        assert isinstance(logical.confirmed_flush_lsn, pgrepl.Lsn)
        assert logical.restart_lsn is not None
        assert logical.confirmed_flush_lsn >= logical.restart_lsn
        assert isinstance(logical.wal_held_bytes, int)
        assert (logical.active_pid, logical.invalidation) == (None, None)
        if database.cluster.major >= 17:
            assert logical.inactive_since is not None
            age = datetime.datetime.now(datetime.UTC) - logical.inactive_since
            assert abs(age) < datetime.timedelta(hours=1)
            assert logical.failover is False
        unused = found[physical]
        assert (unused.slot_type, unused.database, unused.plugin) == ("physical", None, None)
        assert (unused.restart_lsn, unused.lag_bytes) == (None, None)


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
            assert isinstance(next(backup), pgrepl.basebackup.BackupStart)
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
