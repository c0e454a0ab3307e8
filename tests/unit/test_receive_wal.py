"""Receiving WAL, in virtual time: where it begins, what it says when, and where it ends."""

from __future__ import annotations

import gzip
import struct
from typing import Any, Final

import pytest

from pgrepl.errors import (
    ConnectionFailed,
    ProtocolError,
    ServerError,
    SlotNotFound,
    SystemMismatch,
    UsageError,
    WalStorageError,
)
from pgrepl.lsn import Lsn
from pgrepl.physical.compression import Compression
from pgrepl.physical.receiving import Options
from pgrepl.physical.writer import ReceivedSegment
from pgrepl.protocol.timelines import EndOfTimeline
from tests.support.wal_disk import Disk
from tests.support.wal_server import DEFAULTS, SEGMENT, SYSTEM, Connection, Server, content, receive

START: Final = 5 * SEGMENT
FIFTH: Final = "000000010000000000000005"
SIXTH: Final = "000000010000000000000006"


def server_of(size: int, **what: Any) -> Server:
    return Server(START + size, slot_start=START, **what)


# What is written, and in which order


def test_every_step_of_a_segment() -> None:
    server, disk = server_of(SEGMENT + 10, cut=SEGMENT), Disk()
    told: list[str] = []
    server.on_report = lambda _, flushed: disk.done.append(f"report {Lsn(flushed)}")
    done = receive(Connection(server), disk, on_segment=lambda s: told.append(s.name))
    steps = [step for step in disk.done if not step.startswith("write")]
    assert steps == [
        "list",
        "report 0/500000",
        f"open {FIFTH}.partial",
        f"create {FIFTH}.partial",
        "sync names",
        f"sync {FIFTH}.partial",
        f"rename {FIFTH}.partial {FIFTH}",
        "sync names",
        "report 0/600000",
        f"open {SIXTH}.partial",
        f"create {SIXTH}.partial",
        "sync names",
        f"sync {SIXTH}.partial",
        "report 0/60000A",
    ]
    assert told == [FIFTH]
    assert (done.timeline, done.start, done.position, done.segments) == (1, START, 0x60000A, 1)
    assert set(disk.names) == {FIFTH, f"{SIXTH}.partial"}
    partial = bytes(disk.names[f"{SIXTH}.partial"].content)
    assert partial == server.wal(1, START + SEGMENT, START + SEGMENT + 10) + bytes(SEGMENT - 10)


@pytest.mark.parametrize("cut", [1000, SEGMENT // 8, SEGMENT // 8 - 1, 3 * SEGMENT])
def test_messages_of_any_size(cut: int) -> None:
    server, disk = server_of(3 * SEGMENT + 77, cut=cut), Disk()
    received = receive(Connection(server), disk)
    assert received.segments == 3
    for number in (5, 6, 7):
        wanted = server.wal(1, number * SEGMENT, (number + 1) * SEGMENT)
        assert content(disk, 1, number) == wanted


def test_a_segment_is_told_of_before_the_server_is() -> None:
    server, disk = server_of(2 * SEGMENT), Disk()
    told: list[ReceivedSegment] = []

    def refuse(segment: ReceivedSegment) -> None:
        told.append(segment)
        if len(told) == 2:
            raise OSError("of the caller, and none of ours")

    with pytest.raises(OSError, match="of the caller"):
        receive(Connection(server), disk, on_segment=refuse)
    first = ReceivedSegment(FIFTH, 1, Lsn(START), Lsn(START + SEGMENT))
    assert told[0] == first
    assert server.flushed == first.end


def test_compressed() -> None:
    server, disk = server_of(SEGMENT + 5), Disk()
    told: list[ReceivedSegment] = []
    receive(Connection(server), disk, compression=Compression("gzip", 5), on_segment=told.append)
    assert [segment.name for segment in told] == [f"{FIFTH}.gz"]
    assert set(disk.names) == {f"{FIFTH}.gz", f"{SIXTH}.partial"}
    plain = gzip.decompress(bytes(disk.names[f"{FIFTH}.gz"].content))
    assert plain == server.wal(1, START, START + SEGMENT)


def test_a_gap_is_never_written() -> None:
    server, disk = server_of(SEGMENT), Disk()
    connection = Connection(server)
    real = connection.receive_wal_messages

    def jump(timeout: float) -> Any:
        if connection.at == START + 300_000:
            connection.at += 8
        return real(timeout)

    connection.receive_wal_messages = jump  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match=r"from 0/5493E0 on, got WAL from 0/5493E8"):
        receive(connection, disk)
    assert content(disk, 1, 5)[300_000:] == bytes(SEGMENT - 300_000)


# What is reported


def test_without_synchronous_only_whole_segments_are_flushed() -> None:
    server = server_of(SEGMENT // 2)
    connection = Connection(server)
    polls = 0

    def stop() -> bool:
        nonlocal polls
        polls += connection.exhausted
        return polls > 200

    receive(connection, Disk(), stop=stop)
    *earlier, last = server.reports
    assert {flushed for _, flushed, _, _ in earlier} == {START}
    assert earlier[-1][0] == START + SEGMENT // 2
    assert last == (START + SEGMENT // 2, START + SEGMENT // 2, 0, False)


@pytest.mark.parametrize("available", [0, 10])
def test_the_beginning_is_reported_before_anything_is_written(available: int) -> None:
    """Also where nothing comes: a slot that nobody has used keeps no WAL until it is told."""
    server, disk = server_of(available), Disk()
    began: list[tuple[int, Lsn]] = []
    server.on_report = lambda *_: disk.done.append("report")
    connection = Connection(server)
    options = {"stop": lambda: bool(began), "on_start": lambda *what: began.append(what)}
    receive(connection, disk, **options)
    assert server.reports[0] == (START, START, 0, False)
    assert began == [(1, START)]
    assert not any(step.startswith("write") for step in disk.done[: disk.done.index("report")])


def test_synchronous_reports_every_read() -> None:
    server = server_of(SEGMENT // 2)
    receive(Connection(server), Disk(), synchronous=True)
    cut = server.cut
    flushed = [report[1] for report in server.reports]
    assert flushed[:6] == [START + cut * n for n in range(6)]


def test_a_question_is_answered_at_once_and_again_when_all_is_durable() -> None:
    server = server_of(SEGMENT // 2, ask_every=3)
    receive(Connection(server), Disk())
    assert server.reports[:3] == [
        (START, START, 0, False),
        (START + 200_000, START, 0, False),
        (START + 300_000, START + 300_000, 0, False),
    ]


@pytest.mark.parametrize(
    ("setting", "interval", "wanted"),
    [("1min", 10.0, 10.0), ("1min", 60.0, 20.0), ("6s", 10.0, 2.0), ("0", 25.0, 25.0)],
)
def test_statuses_while_nothing_happens(setting: str, interval: float, wanted: float) -> None:
    server = server_of(10)
    server.settings["wal_sender_timeout"] = setting
    connection = Connection(server)
    moments: list[float] = []
    server.on_report = lambda *_: moments.append(connection.now)
    receive(connection, Disk(), status_interval=interval, stop=lambda: len(moments) >= 4)
    assert [b - a for a, b in zip(moments[:3], moments[1:3], strict=False)] == pytest.approx(
        [wanted] * 2
    )


def test_silence_is_asked_about_and_then_is_the_end() -> None:
    server = server_of(10)
    connection = Connection(server)
    with pytest.raises(ConnectionFailed, match=r"within 30 s \(receive_timeout\)"):
        receive(connection, Disk(), receive_timeout=30.0, stop=None)
    assert [report[3] for report in server.reports].count(True) == 1
    assert connection.now >= 1030
    # What had come is durable, even so.
    assert not connection.stopped


# Where it begins


@pytest.mark.parametrize(
    ("names", "start", "timeline"),
    [
        ({}, START, 1),
        ({FIFTH: SEGMENT}, START + SEGMENT, 1),
        ({f"{FIFTH}.partial": SEGMENT}, START, 1),
        ({f"{FIFTH}.partial": 1234}, START, 1),
        ({f"{FIFTH}.partial": 0}, START, 1),
        ({FIFTH: SEGMENT, f"{SIXTH}.partial": SEGMENT}, START + SEGMENT, 1),
        ({FIFTH: SEGMENT, f"{FIFTH}.partial": SEGMENT}, START + SEGMENT, 1),
        ({f"{FIFTH}.gz.partial": 17}, START, 1),
        ({f"{FIFTH}.lz4.partial": 17}, START, 1),
        ({f"{FIFTH}.gz.tmp": 17}, START, 1),
        # The newest timeline, even where an older one had got further.
        ({SIXTH: SEGMENT, "000000020000000000000005.partial": SEGMENT}, START, 2),
        ({SIXTH: SEGMENT, "000000020000000000000005": SEGMENT}, START + SEGMENT, 2),
        ({"notes.txt": 3, "000000010000000000000009.bak": 3, "00000009.history": 3}, START, 1),
    ],
)
def test_it_goes_on_from_what_is_there(names: dict[str, int], start: int, timeline: int) -> None:
    disk = Disk()
    for name, size in names.items():
        disk.put(name, bytes(size))
    server = Server(START + 2 * SEGMENT, {1: START, 2: None} if timeline == 2 else {1: None})
    server.slot_start = START
    connection = Connection(server)
    receive(connection, disk)
    starts = [call for call in connection.calls if call.startswith("start")]
    assert starts == [f"start {Lsn(start)} {timeline}"]
    assert not [name for name in disk.names if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("options", "version", "slot_start", "start"),
    [
        ({"slot": None}, 180000, None, START + 3 * SEGMENT),
        ({"slot": "s"}, 180000, START + 17, START),
        ({"slot": "s"}, 180000, None, START + 3 * SEGMENT),
        ({"slot": "s"}, 140000, START, START + 3 * SEGMENT),
        ({"slot": "s", "start": START + SEGMENT + 9}, 180000, START, START + SEGMENT),
        ({"slot": None, "start": START, "timeline": 1}, 180000, None, START),
    ],
)
def test_an_empty_directory(
    options: dict[str, Any], version: int, slot_start: int | None, start: int
) -> None:
    server = Server(START + 3 * SEGMENT + 99, version=version, slot_start=slot_start)
    connection = Connection(server)
    assert receive(connection, Disk(), **options).start == start
    assert ("read_slot s" in connection.calls) == (
        version >= 150000 and "start" not in options and options["slot"] == "s"
    )


def test_the_disk_goes_before_the_caller() -> None:
    disk = Disk()
    disk.put(FIFTH, bytes(SEGMENT))
    connection = Connection(server_of(2 * SEGMENT))
    received = receive(connection, disk, start=START, timeline=1)
    assert received.start == START + SEGMENT


@pytest.mark.parametrize("size", [0, 1, SEGMENT - 1, SEGMENT + 1])
def test_a_complete_segment_of_a_wrong_size(size: int) -> None:
    disk = Disk()
    disk.put(FIFTH, bytes(size))
    disk.put(SIXTH, bytes(SEGMENT))
    server = server_of(SEGMENT)
    with pytest.raises(WalStorageError, match=rf"{FIFTH}.*{SEGMENT} bytes, got {size} bytes.*move"):
        receive(Connection(server), disk)
    assert server.reports == []
    assert set(disk.names) == {FIFTH, SIXTH}


def test_a_partial_segment_that_is_too_large() -> None:
    disk = Disk()
    disk.put(f"{FIFTH}.partial", bytes(SEGMENT + 1))
    with pytest.raises(WalStorageError, match=rf"{FIFTH}\.partial.*{SEGMENT + 1} bytes, expected"):
        receive(Connection(server_of(SEGMENT)), disk)
    assert disk.names[f"{FIFTH}.partial"].content == bytes(SEGMENT + 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", ["", ".partial", ".gz"])
def test_the_wal_of_another_system(order: str, suffix: str) -> None:
    page = struct.pack(f"{order}HHIQI4xQII", 0xD116, 2, 1, START, 0, 77, SEGMENT, 8192)
    data = page + bytes(SEGMENT - len(page))
    disk = Disk()
    disk.put(FIFTH + suffix, gzip.compress(data) if suffix == ".gz" else data)
    server = server_of(2 * SEGMENT)
    with pytest.raises(SystemMismatch, match=f"system 77.*{SYSTEM}") as caught:
        receive(Connection(server), disk)
    assert (caught.value.expected, caught.value.got) == (("77", 1), (SYSTEM, 1))
    assert server.reports == []


def test_the_wal_of_this_system() -> None:
    page = struct.pack("<HHIQI4xQII", 0xD116, 2, 1, START, 0, int(SYSTEM), SEGMENT, 8192)
    disk = Disk()
    disk.put(FIFTH, page + bytes(SEGMENT - len(page)))
    assert receive(Connection(server_of(2 * SEGMENT)), disk).start == START + SEGMENT


def test_a_server_that_does_not_tell_a_mode() -> None:
    server = server_of(10)
    del server.settings["data_directory_mode"]
    receive(Connection(server), Disk())
    server.settings = {"data_directory_mode": "0700"}
    with pytest.raises(ServerError):
        receive(Connection(server), Disk())


def test_a_slot_that_is_not_there() -> None:
    with pytest.raises(SlotNotFound):
        receive(Connection(Server(START)), Disk(), slot="missing")


# Where it ends


@pytest.mark.parametrize(
    ("end", "position"),
    [
        # As pg_receivewal: behind the message that goes beyond it, and at the end of a segment.
        (START, START + 100_000),
        (START + 99_999, START + 100_000),
        (START + 100_000, START + 200_000),
        (START + SEGMENT - 1, START + SEGMENT),
        (START + SEGMENT, START + 1_100_000),
        (START - 1, START),
    ],
)
def test_an_end(end: int, position: int) -> None:
    server, disk = server_of(3 * SEGMENT), Disk()
    connection = Connection(server)
    received = receive(connection, disk, end=end, stop=None)
    assert received.position == position
    if position > START:
        assert server.reports[-1][:2] == (position, position)
        assert connection.calls[-1] == "stop"
    assert (FIFTH in disk.names) == (position >= START + SEGMENT)


def test_stop_before_anything_began() -> None:
    connection = Connection(server_of(SEGMENT))
    received = receive(connection, Disk(), stop=lambda: True)
    assert received.position == START
    assert not [call for call in connection.calls if call.startswith("start ")]


def test_stop_where_the_server_goes_on_talking() -> None:
    connection = Connection(server_of(1000))

    def never(timeout: float | None) -> None:
        raise TimeoutError

    connection.stop_physical = never  # type: ignore[method-assign]
    received = receive(connection, Disk())
    assert received.position == START + 1000
    assert connection.closed


def test_a_status_that_the_server_does_not_take_in_time() -> None:
    server = server_of(SEGMENT + 1000)
    connection = Connection(server)

    def full(*_: object, **__: object) -> None:
        raise TimeoutError

    connection.send_standby_status = full  # type: ignore[method-assign]
    assert receive(connection, Disk()).position == START + SEGMENT + 1000


def test_an_error_in_the_stream_leaves_what_had_come_durable() -> None:
    disk = Disk()
    connection = Connection(server_of(SEGMENT // 2))
    real = connection.receive_wal_messages

    def fail(timeout: float) -> Any:
        if connection.exhausted:
            raise ConnectionFailed("it is gone")
        return real(timeout)

    connection.receive_wal_messages = fail  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed, match="it is gone"):
        receive(connection, disk, stop=None)
    left = disk.after_power_loss()
    assert content(left, 1, 5)[: SEGMENT // 2] == connection.server.wal(
        1, START, START + SEGMENT // 2
    )


# Timelines


def test_two_switches() -> None:
    timelines = {1: START + SEGMENT // 2, 3: START + SEGMENT + 24, 4: None}
    server, disk = Server(START + 2 * SEGMENT, timelines, slot_start=START), Disk()
    connection = Connection(server)
    received = receive(connection, disk)
    assert (received.timeline, received.position) == (4, START + 2 * SEGMENT)
    assert connection.calls == [
        "read_slot s",
        "start 0/500000 1",
        "stop",
        "timeline_history 3",
        "start 0/500000 3",
        "stop",
        "timeline_history 4",
        "start 0/600000 4",
        "stop",
    ]
    assert set(disk.names) == {
        f"{FIFTH}.partial",
        "00000003.history",
        "000000030000000000000005",
        "000000030000000000000006.partial",
        "00000004.history",
        "000000040000000000000006",
    }
    assert bytes(disk.names["00000003.history"].content) == b"history of 3"
    # The new timeline's segment has what the old one's has up to the switch.
    half = SEGMENT // 2
    assert content(disk, 3, 5)[:half] == content(disk, 1, 5)[:half]
    assert content(disk, 3, 5)[half:] == server.wal(3, START + half, START + SEGMENT)
    assert content(disk, 1, 5)[half:] == bytes(half)


def test_a_switch_at_the_end_of_a_segment() -> None:
    server = Server(START + SEGMENT + 9, {1: START + SEGMENT, 2: None}, slot_start=START)
    disk = Disk()
    receive(Connection(server), disk)
    assert set(disk.names) == {FIFTH, "00000002.history", "000000020000000000000006.partial"}


def test_a_timeline_that_has_ended_where_it_is_asked_for() -> None:
    """There is no stream then, and so nothing is reported into one."""
    server = Server(START + 10, {1: START, 2: None}, slot_start=START)
    told: list[int] = []
    server.on_report = lambda timeline, _: told.append(timeline)
    assert receive(Connection(server), Disk()).timeline == 2
    assert set(told) == {2}


def test_the_history_is_durable_before_the_timeline_is_asked_for() -> None:
    server = Server(START + 10, {1: START - 5, 2: None})
    server.slot_start = None
    disk = Disk()
    connection = Connection(server)
    real = connection.start_physical

    def start(slot: str | None, **where: Any) -> None:
        assert "00000002.history" in disk.after_power_loss().names
        real(slot, **where)

    connection.start_physical = start  # type: ignore[method-assign]
    receive(connection, disk, slot=None, start=START, timeline=2)
    assert connection.calls.count("timeline_history 2") == 1
    # It is not fetched again.
    again = Connection(server)
    receive(again, disk, slot=None)
    assert "timeline_history 2" not in again.calls


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (None, "or another timeline after it, but the server has ended"),
        (EndOfTimeline(1, Lsn(START + 1000)), "a timeline after 1"),
        (EndOfTimeline(2, Lsn(START + 1001)), "that begins at 0/5003E8 at the latest"),
    ],
)
def test_ends_of_timelines_that_make_no_sense(ended: EndOfTimeline | None, said: str) -> None:
    server = Server(START + SEGMENT, {1: START + 1000, 2: None}, slot_start=START)
    connection = Connection(server)
    connection.stop_physical = lambda timeout: ended  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match=said):
        receive(connection, Disk())


# What makes no sense


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"status_interval": 0.0}, "status_interval above 0"),
        ({"receive_timeout": -1.0}, "receive_timeout above 0"),
        ({"synchronous": True, "fsync": False}, "fsync"),
        ({"timeline": 2}, "start where a timeline"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Options(**{"stop": None, **DEFAULTS, **options})
