"""Physical streams: the bytes of the WAL, to the end of a timeline and over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgrepl
from pgrepl.cli.cluster import ThrowAwayCluster
from tests.live.streams import PATIENCE, Connect, eventually, is_data, receive
from tests.support import servers
from tests.support.clusters import Cluster

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


# Timelines


@pytest.fixture(scope="module")
def promoted(cluster: Cluster) -> Iterator[tuple[Cluster, int, int]]:
    """A server on its second timeline, a position on the first one, and where that one ended."""
    installation = servers.find(str(cluster.major)) if cluster.own.is_running else None
    assert installation is not None
    with ThrowAwayCluster(installation.bin_directory) as server:
        made = Cluster({"host": server.host, "port": server.port, "user": "postgres"})
        start = next_segment(made)
        write_wal(made, 1)
        server.stop("fast")
        Path(server.data_directory, "standby.signal").touch()
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        history = Path(server.data_directory, "pg_wal", "00000002.history").read_text()
        yield made, start, pgrepl.decode_lsn(history.split()[1])


def test_end_of_a_timeline(promoted: tuple[Cluster, int, int], connect: Connect) -> None:
    cluster, start, switch = promoted
    with connect(cluster.dsn(), replication="physical") as connection:
        assert connection.identify_system().timeline == 2
        connection.start_streaming(
            f"START_REPLICATION PHYSICAL {pgrepl.encode_lsn(start)} TIMELINE 1"
        )
        position = start
        while (message := connection.receive_wal_message(timeout=PATIENCE)) is not None:
            if is_data(message):
                assert message.wal_start == position
                position += len(message)
        assert position == switch
        # It stays at its end, however it is asked.
        assert connection.receive_wal_message(timeout=PATIENCE) is None
        assert len(connection.receive_wal_messages(timeout=PATIENCE)) == 0
        connection.send_standby_status(position, position, position)
        next_timeline = connection.stop_streaming(timeout=PATIENCE)[0]
        assert next_timeline.columns == ("next_tli", "next_tli_startpos")
        [(timeline, begins)] = next_timeline.rows
        assert timeline == "2"
        assert begins is not None
        assert pgrepl.Lsn(begins) == switch
        # And on with the next.
        connection.start_streaming(f"START_REPLICATION PHYSICAL {begins} TIMELINE 2")
        assert receive(connection).wal_end >= switch


def test_end_of_a_timeline_and_then_a_command(
    promoted: tuple[Cluster, int, int], connect: Connect
) -> None:
    cluster, start, _ = promoted
    with connect(cluster.dsn(), replication="physical") as connection:
        connection.start_streaming(
            f"START_REPLICATION PHYSICAL {pgrepl.encode_lsn(start)} TIMELINE 1"
        )
        with pytest.raises(pgrepl.UsageError, match=r"stop_streaming\(\)"):
            connection.identify_system()
        while connection.receive_wal_messages(timeout=PATIENCE):
            pass
        # Of an ended stream nothing is left that would have to be stopped.
        assert connection.identify_system(timeout=PATIENCE).timeline == 2


def test_start_at_the_end_of_a_timeline(
    promoted: tuple[Cluster, int, int], connect: Connect
) -> None:
    cluster, _, switch = promoted
    with connect(cluster.dsn(), replication="physical") as connection:
        connection.start_streaming(
            f"START_REPLICATION PHYSICAL {pgrepl.encode_lsn(switch)} TIMELINE 1"
        )
        assert connection.receive_wal_message(timeout=PATIENCE) is None
        results = connection.stop_streaming(timeout=PATIENCE)
        assert results[0].rows[0][0] == "2"
        assert connection.identify_system(timeout=PATIENCE).timeline == 2
