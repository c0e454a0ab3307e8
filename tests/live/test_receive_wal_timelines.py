"""`receive_wal` over the ends of timelines: of a server that was promoted twice, and of standbys
that are promoted while they stream."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from tests.live.streams import eventually
from tests.live.test_physical import next_segment, write_wal
from tests.live.wal_archives import (
    APIS,
    KEPT,
    SEGMENT,
    beginning,
    cluster_of,
    contents,
    expect_archive,
    pg_receivewal,
    pg_waldump,
    physical_slot,
    position,
    receive,
    receiving,
    restart_lsn,
    segment_name,
)
from tests.support.backups import restored_server, save

both_apis = pytest.mark.parametrize("api", APIS)


class Promoted(NamedTuple):
    """A server on its third timeline, where its WAL of each begins, and where all of it ends."""

    server: TemporaryServer
    start: int
    switches: tuple[int, int]
    end: int


def promote(server: TemporaryServer) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


def become_another_timeline(server: TemporaryServer) -> int:
    """Leave the timeline that it is on; returns where."""
    server.stop("fast")
    (server.data_directory / "standby.signal").touch()
    server.start()
    promote(server)
    names = sorted(server.data_directory.glob("pg_wal/*.history"))
    return pgrepl.decode_lsn(names[-1].read_text().splitlines()[-1].split()[1])


@pytest.fixture(scope="module")
def promoted(programs: Path) -> Iterator[Promoted]:
    """The first switch is in the middle of a segment, and so is the second, two segments on."""
    with TemporaryServer(programs, settings=KEPT) as server:
        cluster = cluster_of(server)
        start = next_segment(cluster)
        for name in ("first", "second", "model"):
            physical_slot(cluster, name)
        write_wal(cluster, 20)
        switches = [become_another_timeline(server)]
        write_wal(cluster, 40)
        switches.append(become_another_timeline(server))
        write_wal(cluster, 20)
        yield Promoted(server, start, (switches[0], switches[1]), position(cluster))


@pytest.mark.parametrize("slot", ["first", "second"])
def test_two_switches_as_pg_receivewal_does_them(
    promoted: Promoted, tmp_path: Path, slot: str
) -> None:
    server, start, switches, end = promoted
    archive, model = tmp_path / "archive", tmp_path / "model"
    archive.mkdir()
    cluster = cluster_of(server)
    start = restart_lsn(cluster, slot)
    api = {"first": "blocking", "second": "async"}[slot]
    options = {"slot": slot, "end": end - 1, **beginning(cluster, start)}
    received = receive(api, server.dsn(), archive, **options)
    assert (received.timeline, received.start) == (3, start // SEGMENT * SEGMENT)
    assert restart_lsn(cluster, slot) == received.position
    assert switches[0] // SEGMENT != switches[1] // SEGMENT
    mine = contents(archive)
    if cluster.major < 15 or slot == "second":
        assert expected_names(received.start, switches, received.position) == set(mine)
    else:
        pg_receivewal(server, model, "model", end - 1)
        theirs = contents(model)
        assert set(mine) == set(theirs) == expected_names(start, switches, received.position)
        for name, data in theirs.items():
            assert mine[name] == data, name
    for name in ("00000002.history", "00000003.history"):
        assert mine[name] == (server.data_directory / "pg_wal" / name).read_bytes()
    assert pg_waldump(server, archive, switches[1] // SEGMENT * SEGMENT, end - 1, 3)


def expected_names(start: int, switches: tuple[int, int], end: int) -> set[str]:
    """What there must be when all three timelines were received."""
    names = {"00000002.history", "00000003.history"}
    begin = start
    for timeline, stop in enumerate((*switches, end), 1):
        first = begin // SEGMENT * SEGMENT
        while first + SEGMENT <= stop:
            names.add(segment_name(timeline, first))
            first += SEGMENT
        if first < stop:
            names.add(f"{segment_name(timeline, first)}.partial")
        begin = stop
    return names


@both_apis
def test_cut_off_between_timelines(promoted: Promoted, tmp_path: Path, api: str) -> None:
    """Every run stops a little further on; together they give what one gives."""
    server, start, switches, end = promoted
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for archive in (whole, pieces):
        archive.mkdir()
    options = {"start": start, "timeline": 1, "end": end - 1}
    receive(api, server.dsn(), whole, **options)
    stops = [s + d for s in (start, *switches) for d in (1, SEGMENT // 2, SEGMENT)]
    for stop in sorted(stop for stop in stops if stop < end):
        receive(api, server.dsn(), pieces, **{**options, "end": stop})
    receive(api, server.dsn(), pieces, **options)
    assert contents(pieces) == contents(whole)


def test_a_timeline_that_the_server_never_had(promoted: Promoted, tmp_path: Path) -> None:
    server, start, _, _ = promoted
    with pytest.raises(pgrepl.ServerError):
        receive("blocking", server.dsn(), tmp_path, start=start, timeline=9)
    # What the old primary had written beyond the switch is of no timeline of this one.
    (tmp_path / segment_name(1, start + 64 * SEGMENT)).write_bytes(bytes(SEGMENT))
    with pytest.raises(pgrepl.ServerError):
        receive("blocking", server.dsn(), tmp_path)


@both_apis
def test_standbys_are_promoted_while_they_stream(programs: Path, tmp_path: Path, api: str) -> None:
    """The receiver stays connected to a standby that becomes a primary in the meantime."""
    archive = tmp_path / "archive"
    archive.mkdir()
    with TemporaryServer(programs, settings=KEPT) as primary:
        with pgrepl.connect(primary.dsn()) as connection:
            backup = save(connection.base_backup(checkpoint="fast", wal=True), tmp_path / "backup")
        standby = restored_server(
            programs,
            backup.unpack,
            standby=True,
            settings={**KEPT, "primary_conninfo": primary.dsn(dbname="replication")},
        )
        with standby:
            follow(api, primary, standby, archive)


def follow(api: str, primary: TemporaryServer, standby: TemporaryServer, archive: Path) -> None:
    writer, reader = cluster_of(primary), cluster_of(standby)
    start = physical_slot(reader, "follower")
    with receiving(api, standby.dsn(), archive, slot="follower", synchronous=True) as result:
        write_wal(writer, 20)
        end = position(writer)
        eventually(lambda: restart_lsn(reader, "follower") >= end, "it follows")
        primary.stop("fast")
        promote(standby)
        write_wal(reader, 20)
        target = position(reader)
        eventually(lambda: result or restart_lsn(reader, "follower") >= target, "it follows on")
    [received] = result
    assert received.timeline == 2
    assert received.position >= target
    end = int(received.position)
    history = (standby.data_directory / "pg_wal" / "00000002.history").read_bytes()
    assert (archive / "00000002.history").read_bytes() == history
    switch = pgrepl.decode_lsn(history.decode().split()[1])
    for first in range(switch // SEGMENT * SEGMENT, end, SEGMENT):
        path = archive / segment_name(2, first)
        found = path if path.exists() else path.with_name(f"{path.name}.partial")
        wal = (standby.data_directory / "pg_wal" / path.name).read_bytes()
        assert found.read_bytes()[: end - first] == wal[: end - first]
    assert pg_waldump(standby, archive, switch // SEGMENT * SEGMENT, end, 2)
    assert start <= switch


@both_apis
def test_a_standby_that_shuts_down(programs: Path, tmp_path: Path, api: str) -> None:
    """It writes nothing at its end, unlike a primary, and waits for what it sent before."""
    with TemporaryServer(programs, settings=KEPT) as server:
        cluster = cluster_of(server)
        server.stop("fast")
        (server.data_directory / "standby.signal").touch()
        server.start()
        [(end,)] = cluster.execute("SELECT pg_last_wal_replay_lsn() - '0/0'")
        with (
            pytest.raises(pgrepl.ServerShutdown),
            receiving(api, server.dsn(), tmp_path, start=SEGMENT) as result,
        ):
            eventually(lambda: list(tmp_path.iterdir()), "it has begun")
            os.kill(server.pid, signal.SIGINT)
            eventually(lambda: result, "it is over")
        expect_archive(server, tmp_path, SEGMENT, int(end))
