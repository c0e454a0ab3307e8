"""Base backups, uploads and physical streams with a server that does not keep to the rules, and
what exactly is sent to it."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import pgrepl
from pgrepl import basebackup
from pgrepl.errors import ConnectionFailed, ProtocolError, ServerError, UsageError
from pgrepl.physical import EndOfTimeline
from tests.hostile.sessions import (
    PATIENCE,
    READY,
    address,
    answers_a_query,
    assert_broken,
    assert_usable,
)
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scripted import SERVER_PARAMETERS, Peer, Script, ScriptedServer, handshake

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]

SELECT = builders.command_complete("SELECT")
HEADER = b"".join(
    [
        *(builders.row_description("recptr", "tli"), builders.data_row("0/2000028", "1"), SELECT),
        *(builders.row_description("spcoid", "spclocation", "size"),),
        *(builders.data_row(None, None, None), SELECT),
    ]
)
TRAILER = b"".join(
    [
        *(builders.row_description("recptr", "tli"), builders.data_row("0/2000100", "1"), SELECT),
        *(builders.command_complete("BASE_BACKUP"), READY),
    ]
)
ARCHIVE = builders.copy_data(b"nbase.tar\0\0")
PIECES = b"".join(builders.copy_data(b"d" + bytes([i]) * 99) for i in range(20))
WHOLE = HEADER + builders.copy_out_response() + ARCHIVE + PIECES + builders.copy_done() + TRAILER


def backs_up(*steps: bytes | Callable[[Peer], object], version: str = "18.0") -> Script:
    """A script that takes the command and then sends bytes, or lets a function talk."""

    def script(peer: Peer) -> None:
        handshake(peer, parameters={**SERVER_PARAMETERS, "server_version": version})
        assert peer.recv_query() == "BASE_BACKUP"
        for step in steps:
            if isinstance(step, bytes):
                peer.send(step)
            else:
                step(peer)

    return script


def told(events: list[Any]) -> bytes:
    """The bytes of an archive."""
    return b"".join(bytes(e.data) for e in events if isinstance(e, basebackup.ArchiveData))


EXPECTED = b"".join(bytes([i]) * 99 for i in range(20))


def test_a_backup_in_pieces_of_any_size(connect: Connect) -> None:
    for step in (1, 7, 4096):
        slowly = backs_up(
            partial(Peer.send_slowly, data=WHOLE, step=step, pause=0.0), answers_a_query
        )
        with ScriptedServer(slowly) as server:
            connection = connect(**address(server))
            events = list(connection.base_backup(timeout=PATIENCE))
            assert told(events) == EXPECTED
            assert isinstance(events[-1], basebackup.BackupEnd)
            assert_usable(connection)
            connection.close()


def test_time_limits_go_on_where_they_stood(connect: Connect) -> None:
    with ScriptedServer(
        backs_up(lambda peer: peer.send_slowly(WHOLE, 64, 0.002), answers_a_query)
    ) as server:
        connection = connect(**address(server))
        backup = connection.base_backup(timeout=0.001)
        events, cut_off = [], 0
        while True:
            try:
                events.append(next(backup))
            except TimeoutError:
                cut_off += 1
            except StopIteration:
                break
        assert cut_off
        assert told(events) == EXPECTED
        assert_usable(connection)
        connection.close()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (HEADER + builders.copy_data(b"dx"), "expected an archive before its data"),
        (HEADER + builders.copy_out_response() + ARCHIVE * 2, "that was announced, once"),
        (HEADER + builders.copy_out_response() + builders.copy_data(b"\xff"), "type n, d, p or m"),
        (builders.message(b"?"), "tag"),
        (builders.message(b"d", length=3), "length"),
        (HEADER + TRAILER, "expected an archive"),
    ],
)
def test_a_backup_out_of_order_ends_the_connection(
    connect: Connect, sent: bytes, words: str
) -> None:
    with ScriptedServer(backs_up(sent, Peer.expect_hang_up)) as server:
        connection = connect(**address(server))
        with pytest.raises(ProtocolError, match=words):
            list(connection.base_backup(timeout=PATIENCE))
        assert_broken(connection)


def test_a_server_that_goes_away_in_an_archive(connect: Connect) -> None:
    for upto in (0, len(HEADER), len(WHOLE) // 2, len(WHOLE) - 1):
        with ScriptedServer(backs_up(WHOLE[:upto])) as server:
            connection = connect(**address(server))
            backup = connection.base_backup(timeout=PATIENCE)
            with pytest.raises(ConnectionFailed):
                list(backup)
            assert_broken(connection)
            with pytest.raises(UsageError, match="this one is closed"):
                next(backup)


def test_a_backup_that_is_left(connect: Connect) -> None:
    with ScriptedServer(backs_up(WHOLE[:-200], Peer.expect_hang_up)) as server:
        connection = connect(**address(server))
        with connection.base_backup(timeout=PATIENCE) as backup:
            assert isinstance(next(backup), basebackup.BackupStart)
        assert_broken(connection)


def test_an_old_server_gives_the_same_events(connect: Connect) -> None:
    copies = b"".join(builders.copy_data(bytes([i]) * 99) for i in range(20))
    sent = HEADER + builders.copy_out_response() + copies + builders.copy_done() + TRAILER
    with ScriptedServer(backs_up(sent, answers_a_query, version="14.0")) as server:
        connection = connect(**address(server))
        events = list(connection.base_backup(timeout=PATIENCE))
        assert told(events) == EXPECTED + bytes(1024)
        assert events[1] == basebackup.ArchiveStart("base.tar", None, None)
        assert_usable(connection)
        connection.close()


# Uploads


def test_an_upload_is_sent_while_it_is_taken(connect: Connect) -> None:
    size, count, received = 200000, 200, 0
    ahead: list[int] = []

    def takes(peer: Peer) -> None:
        nonlocal received
        handshake(peer)
        assert peer.recv_query() == "UPLOAD_MANIFEST"
        peer.send(builders.copy_in_response())
        while (message := peer.recv_message())[0] == b"d":
            received += len(message[1])
        assert message == (b"c", b"")
        peer.send(builders.command_complete("UPLOAD_MANIFEST") + READY)
        answers_a_query(peer)

    def pieces() -> Iterator[bytes]:
        for number in range(count):
            ahead.append(number * size - received)
            yield b"x" * size

    with ScriptedServer(takes) as server:
        connection = connect(**address(server))
        connection.upload_manifest(pieces(), timeout=PATIENCE)
        assert received == size * count
        # What the sockets between hold, and little more.
        assert max(ahead) < size * count // 2
        assert_usable(connection)
        connection.close()


def test_an_upload_that_ends_early(connect: Connect) -> None:
    def refuses(peer: Peer) -> None:
        handshake(peer)
        peer.recv_query()
        peer.send(builders.copy_in_response())
        peer.recv_message()
        peer.send(builders.error_response("no manifest", sqlstate="22023") + READY)
        # It passes over what is still sent.
        while (message := peer.recv_message())[0] in (b"d", b"c"):
            pass
        assert message == (b"Q", b"SELECT 1\0")
        peer.send(builders.row_description("a") + builders.data_row("1"))
        peer.send(builders.command_complete("SELECT 1") + READY)

    with ScriptedServer(refuses) as server:
        connection = connect(**address(server))
        with pytest.raises(ServerError, match="22023"):
            connection.upload_manifest([b"x" * 70000] * 9, timeout=PATIENCE)
        assert_usable(connection)
        connection.close()


# Physical streams


def physical(*steps: bytes | Callable[[Peer], object], command: str = "0/1 TIMELINE 3") -> Script:
    """A script that begins a physical stream, and goes on."""

    def script(peer: Peer) -> None:
        handshake(peer)
        assert peer.recv_query() == f"START_REPLICATION PHYSICAL {command}"
        for step in steps:
            if isinstance(step, bytes):
                peer.send(step)
            else:
                step(peer)

    return script


def ends(*row: str | None) -> bytes:
    described = builders.row_description(*(f"c{i}" for i in range(len(row))))
    tags = [builders.command_complete(tag) for tag in ("START_STREAMING", "START_REPLICATION")]
    return described + builders.data_row(*row) + b"".join(tags) + READY


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("3", "0/5"), "expected a timeline after 3 at the end of a physical stream, got 3"),
        (("1", "0/5"), "expected a timeline after 3"),
        (("4294967296", "0/5"), "expected a timeline from 1 to"),
        (("4", "5"), "expected an LSN"),
        (("4", None), "got NULL"),
        (("4", "0/5", "x"), "expected one row of 2 columns"),
    ],
)
def test_timelines_that_cannot_come_next(
    connect: Connect, at_once: bool, row: tuple[str, ...], words: str
) -> None:
    steps: list[Any] = [ends(*row)]
    if not at_once:
        begin = builders.copy_both_response() + builders.copy_done()
        steps = [begin, lambda peer: peer.expect(b"c"), *steps]
    with ScriptedServer(physical(*steps, Peer.expect_hang_up)) as server:
        connection = connect(**address(server))
        connection.start_physical(start=1, timeline=3, timeout=PATIENCE)
        assert connection.receive_wal_message(timeout=PATIENCE) is None
        with pytest.raises(ProtocolError, match=words):
            connection.stop_physical(timeout=PATIENCE)
        assert_broken(connection)


def test_a_timeline_that_can(connect: Connect) -> None:
    with ScriptedServer(physical(ends("4", "0/0500"), answers_a_query)) as server:
        connection = connect(**address(server))
        connection.start_physical(start=1, timeline=3, timeout=PATIENCE)
        end = connection.stop_physical(timeout=PATIENCE)
        assert end == EndOfTimeline(4, pgrepl.Lsn(0x500))
        assert_usable(connection)
        connection.close()


def test_old_servers_are_asked_who_they_are_first(connect: Connect) -> None:
    # A standby up to 14 refuses to stream otherwise.
    def script(peer: Peer) -> None:
        handshake(peer, parameters={**SERVER_PARAMETERS, "server_version": "14.0"})
        assert peer.recv_query() == "IDENTIFY_SYSTEM"
        columns = ("systemid", "timeline", "xlogpos", "dbname")
        peer.send(builders.row_description(*columns) + builders.data_row("7", "3", "0/1", None))
        peer.send(SELECT + READY)
        assert peer.recv_query() == 'START_REPLICATION SLOT "s" PHYSICAL 0/1'
        peer.send(ends("4", "0/5"))

    with ScriptedServer(script) as server:
        connection = connect(**address(server))
        connection.start_physical("s", start=1, timeout=PATIENCE)
        assert connection.stop_physical(timeout=PATIENCE) == EndOfTimeline(4, pgrepl.Lsn(5))
        connection.close()


def test_a_stop_that_is_cut_off_goes_on(connect: Connect) -> None:
    cut_off = threading.Event()

    def late(peer: Peer) -> None:
        peer.expect(b"c")
        assert cut_off.wait(PATIENCE)
        peer.send(ends("4", "0/5"))

    begin = builders.copy_both_response() + builders.copy_done()
    with ScriptedServer(physical(begin, late, answers_a_query)) as server:
        connection = connect(**address(server))
        connection.start_physical(start=1, timeline=3, timeout=PATIENCE)
        assert connection.receive_wal_message(timeout=PATIENCE) is None
        with pytest.raises(TimeoutError):
            connection.stop_physical(timeout=0.05)
        cut_off.set()
        end = connection.stop_physical(timeout=PATIENCE)
        assert end == EndOfTimeline(4, pgrepl.Lsn(5))
        assert_usable(connection)
        connection.close()


def test_bytes_of_hot_standby_feedback(connect: Connect) -> None:
    got: list[bytes] = []

    def takes(peer: Peer) -> None:
        got.extend(peer.expect(b"d") for _ in range(2))

    with ScriptedServer(physical(builders.copy_both_response(), takes, command="0/1")) as server:
        connection = connect(**address(server))
        connection.start_physical(start=1, timeout=PATIENCE)
        connection.send_hot_standby_feedback(2**64 - 2, (7 << 32) + 5, timestamp=-1)
        connection.send_hot_standby_feedback(0)
        with pytest.raises(ConnectionFailed):
            connection.receive_wal_message(timeout=PATIENCE)
    assert got[0] == b"h" + struct.pack("!qIIII", -1, 0xFFFFFFFE, 0xFFFFFFFF, 5, 7)
    kind, moment, *xids = struct.unpack("!cqIIII", got[1])
    assert (kind, xids) == (b"h", [0, 0, 0, 0])
    # It was sent this side of 2020.
    assert moment > 20 * 365 * 86400 * 1_000_000
