"""The end of a timeline, and over it: on a server that was promoted, and on one that is promoted
while it streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from tests.live.streams import PATIENCE, Connect, eventually, is_data, receive
from tests.live.test_physical import next_segment, write_wal
from tests.support.backups import restored_server, save
from tests.support.clusters import Cluster
from tests.support.flavours import FEW_FLAVOURS

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)


def promote(server: TemporaryServer) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


def history_file(server: TemporaryServer, timeline: int) -> bytes:
    return Path(server.data_directory, "pg_wal", f"{timeline:08X}.history").read_bytes()


def cluster_of(server: TemporaryServer) -> Cluster:
    return Cluster({"host": server.host, "port": server.port, "user": "postgres"})


@pytest.fixture(scope="module")
def promoted(programs: Path) -> Iterator[tuple[TemporaryServer, int, int]]:
    """A server on its second timeline, a position on the first one, and where that one ended."""
    with TemporaryServer(programs) as server:
        made = cluster_of(server)
        start = next_segment(made)
        write_wal(made, 1)
        server.stop("fast")
        Path(server.data_directory, "standby.signal").touch()
        server.start()
        promote(server)
        history = history_file(server, 2).decode()
        yield server, start, pgrepl.decode_lsn(history.split()[1])


Promoted = tuple[TemporaryServer, int, int]


def read_to_the_end(connection: pgrepl.Connection, start: int) -> int:
    """Read until the stream ends; returns the position behind the last byte."""
    position = start
    while (message := connection.receive_wal_message(timeout=PATIENCE)) is not None:
        if is_data(message):
            assert message.wal_start == position
            position += len(message)
    return position


# A server that was promoted


def test_end_of_a_timeline(promoted: Promoted, connect: Connect) -> None:
    server, start, switch = promoted
    with connect(server.dsn(), replication="physical") as connection:
        assert connection.identify_system().timeline == 2
        connection.start_physical(start=start, timeline=1)
        position = read_to_the_end(connection, start)
        assert position == switch
        # It stays at its end, however it is asked.
        assert connection.receive_wal_message(timeout=PATIENCE) is None
        assert len(connection.receive_wal_messages(timeout=PATIENCE)) == 0
        connection.send_standby_status(position, position, position)
        end = connection.stop_physical(timeout=PATIENCE)
        assert end == pgrepl.physical.EndOfTimeline(2, pgrepl.Lsn(switch))
        # And on with the next.
        connection.start_physical(start=end.start, timeline=end.next_timeline)
        assert receive(connection).wal_end >= switch
        assert connection.stop_physical(timeout=PATIENCE) is None


def test_end_of_a_timeline_as_results(promoted: Promoted, connect: Connect) -> None:
    server, start, switch = promoted
    with connect(server.dsn(), replication="physical") as connection:
        connection.start_streaming(
            f"START_REPLICATION PHYSICAL {pgrepl.encode_lsn(start)} TIMELINE 1"
        )
        assert read_to_the_end(connection, start) == switch
        next_timeline = connection.stop_streaming(timeout=PATIENCE)[0]
        assert next_timeline.columns == ("next_tli", "next_tli_startpos")
        [(timeline, begins)] = next_timeline.rows
        assert timeline == "2"
        assert begins is not None
        assert pgrepl.Lsn(begins) == switch


def test_end_of_a_timeline_and_then_a_command(promoted: Promoted, connect: Connect) -> None:
    server, start, _ = promoted
    with connect(server.dsn(), replication="physical") as connection:
        connection.start_physical(start=start, timeline=1)
        with pytest.raises(pgrepl.UsageError, match=r"stop_streaming\(\)"):
            connection.identify_system()
        while connection.receive_wal_messages(timeout=PATIENCE):
            pass
        # Of an ended stream nothing is left that would have to be stopped.
        assert connection.identify_system(timeout=PATIENCE).timeline == 2


@pytest.mark.parametrize("by_method", [True, False])
def test_start_at_the_end_of_a_timeline(
    promoted: Promoted, connect: Connect, by_method: bool
) -> None:
    server, _, switch = promoted
    with connect(server.dsn(), replication="physical") as connection:
        if by_method:
            connection.start_physical(start=switch, timeline=1)
        else:
            connection.start_streaming(
                f"START_REPLICATION PHYSICAL {pgrepl.encode_lsn(switch)} TIMELINE 1"
            )
        assert connection.receive_wal_message(timeout=PATIENCE) is None
        assert connection.stop_physical(timeout=PATIENCE) == pgrepl.physical.EndOfTimeline(
            2, pgrepl.Lsn(switch)
        )
        assert connection.identify_system(timeout=PATIENCE).timeline == 2


def test_beyond_the_end_of_a_timeline(promoted: Promoted, connect: Connect) -> None:
    server, _, switch = promoted
    with connect(server.dsn(), replication="physical") as connection:
        with pytest.raises(pgrepl.ServerError):
            connection.start_physical(start=switch + 1, timeline=1)
        assert connection.identify_system(timeout=PATIENCE).timeline == 2


def test_history_of_a_timeline(promoted: Promoted, connect: Connect) -> None:
    server, _, switch = promoted
    for replication in ("physical", "database"):
        with connect(server.dsn(), replication=replication) as connection:
            history = connection.timeline_history(2)
            assert history.filename == "00000002.history"
            assert history.content == history_file(server, 2)
            [left] = history.switches()
            assert (left.timeline, left.lsn) == (1, switch)
            assert left.reason == "no recovery target specified"
            for missing in (1, 3, 2**32 - 1):
                with pytest.raises(pgrepl.ServerError) as caught:
                    connection.timeline_history(missing)
                assert caught.value.sqlstate == "58P01"
            assert connection.identify_system().timeline == 2


def test_history_with_bytes_of_no_encoding(promoted: Promoted, connect: Connect) -> None:
    server, _, _ = promoted
    content = b"1\t0/1\t\xff\xfe \\x00 \xc3\xa9\n\n7\t0/2\t" + bytes(range(1, 10))
    # The server sends what is there, whatever it is.
    Path(server.data_directory, "pg_wal", "000000AB.history").write_bytes(content)
    with connect(server.dsn()) as connection:
        history = connection.timeline_history(0xAB)
        assert history.content == content
        assert [each.timeline for each in history.switches()] == [1, 7]


# A server that is promoted while it streams


def test_a_standby_is_promoted(programs: Path, connect: Connect, tmp_path: Path) -> None:
    with TemporaryServer(programs) as primary:
        with connect(primary.dsn()) as connection:
            backup = save(connection.base_backup(checkpoint="fast", wal=True), tmp_path / "backup")
            start = connection.identify_system().xlogpos
        standby = restored_server(
            programs,
            backup.unpack,
            standby=True,
            settings={"primary_conninfo": primary.dsn(dbname="replication")},
        )
        with standby, connect(standby.dsn(), replication="physical") as connection:
            follow_to_the_second(connection, primary, standby, start)
            assert len(connection.timeline_history(2).switches()) == 1


def follow_to_the_second(
    connection: pgrepl.Connection, primary: TemporaryServer, standby: TemporaryServer, start: int
) -> None:
    """Stream from a standby that is promoted meanwhile, and go on with its new timeline."""
    connection.create_physical_slot("follower", reserve_wal=True)
    connection.start_physical("follower", start=start, timeline=1)
    write_wal(cluster_of(primary), 1)
    position = start
    while position < start + (1 << 19):
        message = receive(connection)
        position += len(message) if is_data(message) else 0
    primary.stop("fast")
    promote(standby)
    position = read_to_the_end(connection, position)
    connection.send_standby_status(position, position, position)
    end = connection.stop_physical(timeout=PATIENCE)
    assert end is not None
    assert (end.next_timeline, end.start) == (2, position)
    assert connection.timeline_history(2).switches()[0].lsn == position
    # The new timeline goes on where the old one ended, and it is the server's own now.
    connection.start_physical("follower", start=end.start, timeline=end.next_timeline)
    write_wal(cluster_of(standby), 1)
    while position < end.start + 1000:
        message = receive(connection)
        if is_data(message):
            assert message.wal_start == position
            position += len(message)
    assert connection.stop_physical(timeout=PATIENCE) is None
    eventually(lambda: connection.identify_system().timeline == 2, "it is on its own timeline")
