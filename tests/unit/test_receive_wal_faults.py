"""Receiving WAL, cut off at every single operation on files: by a loss of power, by the end of the
process, by a full or a broken disk.

The server here keeps only what was not reported as flushed, as one with a slot does. So whatever
was reported and is not on disk is lost, and shows.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from pgrepl.errors import WalStorageError
from pgrepl.physical.compression import Compression
from pgrepl.physical.segments import SegmentSize
from pgrepl.physical.writer import WalWriter
from tests.support.wal_disk import Disk, MemoryDirectory, PowerLoss
from tests.support.wal_server import SEGMENT, Connection, Server, content, holds, receive

START: Final = 5 * SEGMENT
END: Final = START + SEGMENT + SEGMENT // 3


def one_timeline() -> Server:
    return Server(END, slot_start=START + 1000)


def two_switches() -> Server:
    """One in the middle of a segment, one at the end of one."""
    timelines = {1: START + SEGMENT // 2, 4: START + SEGMENT, 5: None}
    return Server(START + SEGMENT + SEGMENT // 3, timelines, slot_start=START)


def with_questions() -> Server:
    """One whose messages end where segments do, and that asks for answers in between."""
    return Server(END, slot_start=START, cut=SEGMENT // 8, ask_every=3)


SCENARIOS: Final[dict[str, tuple[Callable[[], Server], dict[str, Any]]]] = {
    "plain": (one_timeline, {}),
    "synchronous": (one_timeline, {"synchronous": True}),
    "gzip": (with_questions, {"compression": Compression("gzip", 1)}),
    "timelines": (two_switches, {"synchronous": True}),
}
#: The next run need not be like the first; this one reports all the time.
ANOTHER_RUN: Final[dict[str, Any]] = {"synchronous": True}
scenarios = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
Scenario = tuple[Callable[[], Server], dict[str, Any]]


def check_reports(server: Server, disk: Disk) -> None:
    """From now on: whatever was ever reported as flushed would survive a loss of power then."""

    def check(_: int, flushed: int) -> None:
        assert flushed <= server.flushed
        assert holds(server, disk.after_power_loss(), START, server.flushed)

    server.on_report = check


def complete(server: Server, disk: Disk) -> None:
    """Everything is there, byte by byte, each segment in one form, and nothing else."""
    assert holds(server, disk, START, server.position)
    assert not [name for name in disk.names if name.endswith(".tmp")]
    segments = [name.partition(".")[0] for name in disk.names if ".history" not in name]
    assert len(segments) == len(set(segments))
    last = max(server.timelines)
    number = server.position // SEGMENT
    wanted = server.wal(last, number * SEGMENT, server.position)
    assert content(disk, last, number)[: len(wanted)] == wanted


@scenarios
def test_reports_are_true(scenario: Scenario) -> None:
    make, options = scenario
    server, disk = make(), Disk()
    check_reports(server, disk)
    received = receive(Connection(server), disk, **options)
    assert received.position == server.position == server.flushed
    complete(server, disk)


def operations(scenario: Scenario) -> int:
    make, options = scenario
    disk = Disk()
    receive(Connection(make()), disk, **options)
    return len(disk.done)


def at(number: int, error: BaseException) -> Callable[[int, str], None]:
    def before(step: int, _: str) -> None:
        if step == number:
            raise error

    return before


def go_on(server: Server, disk: Disk) -> None:
    """Another run, with what the server knows and what the disk has; it must get to the end.

    This time the server asks at once where it is, before anything has come.
    """
    again = replace(server, on_report=lambda *_: None, ask_every=1)
    check_reports(again, disk)
    receive(Connection(again), disk, **ANOTHER_RUN)
    complete(again, disk)


@scenarios
def test_power_is_lost_at_every_operation(scenario: Scenario) -> None:
    make, options = scenario
    for number in range(operations(scenario)):
        server, disk = make(), Disk(at(number, PowerLoss()))
        with pytest.raises(PowerLoss):
            receive(Connection(server), disk, **options)
        for left in disk.whatever_is_left():
            assert holds(server, left, START, server.flushed), f"{number}, {disk.done[-1:]}"
            go_on(server, left)


@scenarios
def test_the_disk_fails_at_every_operation(scenario: Scenario) -> None:
    make, options = scenario
    failed = 0
    for number in range(operations(scenario)):
        code = (errno.EIO, errno.ENOSPC)[number % 2]
        server, disk = make(), Disk(at(number, OSError(code, "it fails")))
        check_reports(server, disk)
        with pytest.raises(WalStorageError, match="it fails") as caught:
            receive(Connection(server), disk, **options)
        assert isinstance(caught.value.__cause__, OSError)
        failed += 1
        # Nothing was said afterwards that was not so, and the next run goes on.
        for left in (disk.after_power_loss(), disk):
            left.before = None
            assert holds(server, left, START, server.flushed)
            go_on(server, left)
    assert failed > 20


def test_no_fault_is_forgotten() -> None:
    """What fails, fails for good: not even a later success of the same kind moves a report."""
    server = Server(END, slot_start=START, ask_every=1)
    failing = Disk()

    def fail_once(_: int, what: str) -> None:
        if what.startswith("sync 0") and failing.done.count(what) == 2:
            raise OSError(errno.EIO, "Input/output error", what.split()[1])

    failing.before = fail_once
    with pytest.raises(WalStorageError, match=r"sync WAL in 0{7}1.*\.partial.*Input/output"):
        receive(Connection(server), failing)
    told = server.flushed
    assert START < told < START + SEGMENT
    assert all(flushed <= told for _, flushed, _, _ in server.reports)
    assert content(failing, 1, 5)[:1000] == server.wal(1, START, START + 1000)


@scenarios
def test_what_was_reported_stays_on_disk_at_every_moment_of_the_next_run(
    scenario: Scenario,
) -> None:
    make, options = scenario
    server, disk = make(), Disk()
    receive(Connection(server), disk, **options)
    assert server.flushed % SEGMENT
    checked = 0

    def check(_: int, __: str) -> None:
        nonlocal checked
        checked += 1
        assert holds(server, disk.after_power_loss(), START, server.flushed)

    server.position += SEGMENT
    disk.before = check
    receive(Connection(server), disk, **options)
    assert checked > 10


def test_a_segment_that_somebody_else_put_there_is_made_durable_before_it_counts() -> None:
    server, disk = one_timeline(), Disk()
    directory = MemoryDirectory(disk)
    directory.create("000000010000000000000005").write(server.wal(1, START, START + SEGMENT), 0)
    check_reports(server, disk)
    server.ask_every = 1
    assert receive(Connection(server), disk).start == START + SEGMENT
    assert server.reports[0][1] == START + SEGMENT


def test_a_writer_that_failed_never_goes_on() -> None:
    server, disk = one_timeline(), Disk()
    writer = WalWriter(MemoryDirectory(disk), SegmentSize(SEGMENT))
    writer.begin(1, START)
    wal = memoryview(server.wal(1, START, START + 100))
    writer.write(START, wal)
    disk.before = at(0, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(WalStorageError, match="Input/output error") as first:
        writer.flush()
    disk.before = None
    done = list(disk.done)
    for again in (writer.flush, writer.leave_segment, lambda: writer.write(START + 100, wal)):
        with pytest.raises(WalStorageError) as caught:
            again()
        assert str(caught.value) == str(first.value)
    with pytest.raises(WalStorageError):
        writer.add_history(2, b"")
    assert writer.flushed == START
    writer.close()
    assert disk.done == done


def test_a_writer_that_was_interrupted_never_goes_on() -> None:
    server, disk = one_timeline(), Disk(at(4, PowerLoss()))
    writer = WalWriter(MemoryDirectory(disk), SegmentSize(SEGMENT))
    writer.begin(1, START)
    with pytest.raises(PowerLoss):
        writer.write(START, memoryview(server.wal(1, START, START + 100)))
    disk.before = None
    with pytest.raises(WalStorageError, match="was cut off"):
        writer.flush()
