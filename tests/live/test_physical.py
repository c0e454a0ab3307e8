"""Physical streams: the bytes of the WAL, and what is reported of them."""

from __future__ import annotations

import pytest

import pgrepl
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    create_slot,
    eventually,
    is_data,
    receive,
    streaming,
)
from tests.support.clusters import Cluster, Database
from tests.support.flavours import FEW_FLAVOURS

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)

SEGMENT = 16 << 20


def write_wal(cluster: Cluster, megabytes: int) -> None:
    cluster.execute(
        "SELECT count(pg_logical_emit_message(false, 'p', repeat(md5(i::text), 320)))"
        " FROM generate_series(1, %s) i",
        [megabytes * 100],
    )


def next_segment(cluster: Cluster) -> int:
    """Go over to a new segment and return its beginning."""
    [(position,)] = cluster.execute("SELECT pg_switch_wal() - '0/0'")
    return (int(position) + SEGMENT - 1) // SEGMENT * SEGMENT


def receive_wal(connection: pgrepl.Connection, start: int, until: int) -> bytes:
    """The bytes between two positions, which must come without a gap."""
    wal = bytearray()
    while start + len(wal) < until:
        for message in connection.receive_wal_messages(timeout=PATIENCE):
            if is_data(message):
                assert message.wal_start == start + len(wal)
                assert message.wal_end >= message.wal_start + len(message)
                wal += message.data
            else:
                assert message.wal_end <= start + len(wal)
    return bytes(wal)


@pytest.mark.parametrize("replication", ["physical", "database"])
def test_bytes_of_a_whole_segment(own_cluster: Cluster, connect: Connect, replication: str) -> None:
    start = next_segment(own_cluster)
    write_wal(own_cluster, 1)
    with connect(own_cluster.dsn(), replication=replication) as connection:
        timeline = connection.identify_system().timeline
        connection.start_streaming(
            f"START_REPLICATION PHYSICAL {pgrepl.encode_lsn(start)} TIMELINE {timeline}"
        )
        write_wal(own_cluster, 1)
        end = next_segment(own_cluster)
        write_wal(own_cluster, 1)
        assert end == start + SEGMENT
        wal = receive_wal(connection, start, end)[:SEGMENT]
        results = connection.stop_streaming(timeout=PATIENCE)
        assert [r.tag for r in results] == ["START_STREAMING", "START_REPLICATION"]
        assert connection.identify_system().timeline == timeline
    number = start // SEGMENT
    name = f"{timeline:08X}{number >> 8:08X}{number & 0xFF:08X}"
    segment = own_cluster.own.data_directory / "pg_wal" / name
    assert wal == segment.read_bytes()


def test_reports_of_a_physical_stream(own_cluster: Cluster, connect: Connect) -> None:
    start = next_segment(own_cluster)
    write_wal(own_cluster, 8)
    with connect(own_cluster.dsn(), replication="physical") as connection:
        connection.start_streaming(f"START_REPLICATION PHYSICAL {pgrepl.encode_lsn(start)}")
        for size in (1, 1 << 20):
            start = report_beyond(own_cluster, connection, start, start + size)


def report_beyond(cluster: Cluster, connection: pgrepl.Connection, start: int, until: int) -> int:
    """Read, report more than was read, and see what the server takes from that."""
    received = start + len(receive_wal(connection, start, until))
    connection.send_standby_status(2**64 - 1, 2**64 - 1, 2**64 - 1)
    eventually(lambda: flushed(cluster, connection) >= received, "the report is taken")
    # It ends where the bytes end, not where the header says that the server's WAL does.
    assert flushed(cluster, connection) == received
    return received


def flushed(cluster: Cluster, connection: pgrepl.Connection) -> int:
    [(position,)] = cluster.execute(
        "SELECT coalesce(flush_lsn - '0/0', 0) FROM pg_stat_replication WHERE pid = %s",
        [connection.pid],
    )
    return int(position)


@pytest.mark.parametrize(
    ("position", "sqlstate"),
    [("FFFFFFF/0", "XX000"), ("0/0", ""), ("0/100", "58P01")],
    ids=["future", "none", "removed"],
)
def test_position_that_there_is_no_wal_of(
    cluster: Cluster, connect: Connect, position: str, sqlstate: str
) -> None:
    with connect(cluster.dsn(), replication="physical") as connection:
        # The stream begins before the server finds out.
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.start_streaming(f"START_REPLICATION PHYSICAL {position}")
            receive(connection)
        assert caught.value.sqlstate in (sqlstate, "58P01")
        assert connection.identify_system(timeout=PATIENCE).timeline == 1


# Methods of their own


def test_a_slot_keeps_what_was_not_reported(database: Database, connect: Connect) -> None:
    name = database.slot()
    with connect(database.dsn(), replication="physical") as connection:
        made = connection.create_physical_slot(name, reserve_wal=True)
        assert made == pgrepl.Slot(name, pgrepl.Lsn(0), None, None)
        start = restart_lsn(database, name)
        timeline = connection.identify_system().timeline
        write_wal(database.cluster, 1)
        connection.start_physical(name, start=start, timeline=timeline, timeout=PATIENCE)
        received = start + len(receive_wal(connection, start, start + (1 << 19)))
        assert restart_lsn(database, name) == start
        connection.send_standby_status(received, received, received)
        eventually(lambda: restart_lsn(database, name) == received, "the slot moves on")
        assert connection.stop_physical(timeout=PATIENCE) is None
        assert connection.identify_system().timeline == timeline


def restart_lsn(database: Database, slot: str) -> int:
    [(position,)] = database.execute(
        "SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s", [slot]
    )
    return int(position)


def test_without_a_slot_and_a_timeline(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        for _ in range(2):
            start = connection.identify_system().xlogpos
            connection.start_physical(start=start)
            write_wal(cluster, 1)
            assert receive_wal(connection, start, start + 1000)
            assert connection.stop_physical(timeout=PATIENCE) is None


def test_slots_that_there_are_not(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn(), replication="physical") as connection:
        start = connection.identify_system().xlogpos
        with pytest.raises(pgrepl.SlotNotFound, match="no_such_slot"):
            connection.start_physical("no_such_slot", start=start)
        with pytest.raises(pgrepl.ServerError):
            connection.start_physical(start=start, timeline=77)
        with pytest.raises(pgrepl.UsageError, match="expected a timeline"):
            connection.start_physical(start=start, timeline=0)
        with pytest.raises(pgrepl.UsageError, match="a stream that was started"):
            connection.stop_physical()
        connection.start_physical(start=start)
        assert connection.stop_physical(timeout=PATIENCE) is None


def xmins(database: Database, slot: str) -> tuple[str | None, str | None]:
    [row] = database.execute(
        "SELECT xmin::text, catalog_xmin::text FROM pg_replication_slots WHERE slot_name = %s",
        [slot],
    )
    return row[0], row[1]


def test_hot_standby_feedback(database: Database, connect: Connect) -> None:
    name = database.slot()
    [(xid,)] = database.execute("SELECT txid_current()")
    with connect(database.dsn(), replication="physical") as connection:
        connection.create_physical_slot(name)
        connection.start_physical(name, start=connection.identify_system().xlogpos)
        connection.send_hot_standby_feedback(xid, xid - 1)
        eventually(lambda: xmins(database, name) == (str(xid), str(xid - 1)), "both are kept")
        connection.send_hot_standby_feedback(xid, timestamp=7)
        eventually(lambda: xmins(database, name) == (str(xid), None), "rows alone are kept")
        # Of another epoch, so that it is not believed; what comes behind it is.
        connection.send_hot_standby_feedback((9 << 32) + xid - 1)
        connection.send_hot_standby_feedback(0, xid)
        eventually(lambda: xmins(database, name) == (None, str(xid)), "catalogues alone are kept")
        connection.send_hot_standby_feedback(0)
        eventually(lambda: xmins(database, name) == (None, None), "nothing is kept")
        for wrong in (-1, 2**64):
            with pytest.raises(ValueError, match="expected a transaction id from 0"):
                connection.send_hot_standby_feedback(wrong)
        assert connection.stop_physical(timeout=PATIENCE) is None


def test_logical_streams_have_none_of_it(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    before = xmins(database, slot)
    with streaming(connect, database, slot) as connection:
        for use in (connection.stop_physical, lambda: connection.send_hot_standby_feedback(1, 1)):
            with pytest.raises(pgrepl.UsageError, match="expected a physical stream, this one is"):
                use()
        connection.stop_streaming(timeout=PATIENCE)
    assert xmins(database, slot) == before
