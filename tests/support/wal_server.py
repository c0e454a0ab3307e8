"""A server of WAL without a connection, in virtual time: what it has, what it was told, and what it
therefore no longer keeps.

Its WAL is made of its positions, so that every byte says where it belongs; on a timeline that
branched off, what lies before the branch is the old one's.
"""

from __future__ import annotations

import functools
import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pgrepl.errors import ServerError, SlotNotFound
from pgrepl.lsn import Lsn
from pgrepl.physical.receiving import Ask, Options, ReceivedWal, Receiver
from pgrepl.protocol.replication import SystemIdentity
from pgrepl.protocol.slots import PhysicalSlot
from pgrepl.protocol.timelines import EndOfTimeline, TimelineHistory
from tests.support.wal_disk import Disk, MemoryDirectory

SEGMENT = 1 << 20
SYSTEM = "7000000000000000001"


@dataclass
class Data:
    """XLogData."""

    wal_start: int
    data: memoryview


@dataclass
class Keepalive:
    """What a batch has beside data."""

    wal_end: int


class Batch(list[Any]):
    """What one read brings."""

    reply_requested = False


@functools.lru_cache(maxsize=64)
def _segment(timeline: int, number: int) -> bytes:
    first = number * SEGMENT
    return struct.pack(
        f">{SEGMENT // 8}Q", *(timeline << 56 | p for p in range(first, first + SEGMENT, 8))
    )


@dataclass
class Server:
    """`timelines`: each with its end, None for the last; `position`: the end of all WAL."""

    position: int
    timelines: dict[int, int | None] = field(default_factory=lambda: {1: None})
    version: int = 180000
    slot_start: int | None = None
    cut: int = 100_000
    """Bytes of a message, as far as there are so many."""
    ask_every: int = 0
    """Ask for an answer behind every so many messages."""
    settings: dict[str, str] = field(
        default_factory=lambda: {
            "wal_segment_size": "1MB",
            "data_directory_mode": "0700",
            "wal_sender_timeout": "1min",
        }
    )
    reports: list[tuple[int, int, int, bool]] = field(default_factory=list)
    on_report: Callable[[int, int], None] = lambda timeline, flushed: None
    flushed: int = 0

    def wal(self, timeline: int, start: int, end: int) -> bytes:
        """The bytes between two positions, as that timeline has them."""
        pieces = []
        while start < end:
            stop = min(end, (start // SEGMENT + 1) * SEGMENT)
            owner = timeline
            for older, switch in self.timelines.items():
                if older < timeline and switch is not None and start < switch:
                    owner, stop = older, min(stop, switch)
                    break
            offset = start % SEGMENT
            pieces.append(_segment(owner, start // SEGMENT)[offset : offset + stop - start])
            start = stop
        return b"".join(pieces)


class Connection:
    """What `Receiver` asks a connection for; `now` is what its clock says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.now = 1000.0
        self.timeline = 0
        self.at = 0
        self.end = 0
        self.sent = 0
        self.calls: list[str] = []
        self.stopped = False
        self.closed = False

    @property
    def exhausted(self) -> bool:
        """Whether all there is was sent, on the last timeline."""
        last = self.server.timelines.get(self.timeline, 0) is None
        return last and self.at >= self.server.position

    def show(self, name: str) -> str:
        if name not in self.server.settings:
            raise ServerError({"severity": "ERROR", "sqlstate": "42704"})
        return self.server.settings[name]

    def identify_system(self) -> SystemIdentity:
        last = max(self.server.timelines)
        return SystemIdentity(SYSTEM, last, Lsn(self.server.position), None)

    def read_slot(self, name: str) -> PhysicalSlot | None:
        self.calls.append(f"read_slot {name}")
        if self.server.slot_start is None:
            return None
        return PhysicalSlot(Lsn(max(self.server.slot_start, self.server.flushed)), 1)

    def timeline_history(self, timeline: int) -> TimelineHistory:
        self.calls.append(f"timeline_history {timeline}")
        return TimelineHistory(f"{timeline:08X}.history", b"history of %d" % timeline)

    def start_physical(
        self, slot: str | None, *, start: int, timeline: int, max_delay: float
    ) -> None:
        self.calls.append(f"start {Lsn(start)} {timeline}")
        if slot == "missing":
            raise SlotNotFound({"severity": "ERROR", "sqlstate": "42704"})
        if start < self.server.flushed // SEGMENT * SEGMENT:
            # Behind what was reported as flushed nothing is kept.
            raise ServerError({"severity": "ERROR", "sqlstate": "58P01", "message": "removed"})
        switch = self.server.timelines[timeline]
        self.timeline, self.at = timeline, start
        self.end = self.server.position if switch is None else switch
        self.stopped = False

    def receive_wal_messages(self, timeout: float) -> Batch:
        assert not self.stopped
        batch = Batch()
        if self.at >= self.end:
            if self.server.timelines[self.timeline] is not None:
                return batch
            self.now += timeout
            raise TimeoutError
        size = min(self.server.cut, self.end - self.at)
        wal = self.server.wal(self.timeline, self.at, self.at + size)
        batch.append(Data(self.at, memoryview(wal)))
        self.at += size
        self.sent += 1
        if self.server.ask_every and self.sent % self.server.ask_every == 0:
            batch.append(Keepalive(self.at))
            batch.reply_requested = True
        return batch

    def send_standby_status(
        self, written: int, flushed: int, applied: int, *, reply_requested: bool, timeout: float
    ) -> None:
        assert not self.stopped
        assert flushed <= written <= self.at
        self.server.reports.append((written, flushed, applied, reply_requested))
        self.server.flushed = max(self.server.flushed, flushed)
        self.server.on_report(self.timeline, flushed)

    def stop_physical(self, timeout: float | None) -> EndOfTimeline | None:
        self.stopped = True
        self.calls.append("stop")
        switch = self.server.timelines[self.timeline]
        if switch is None or self.at < switch:
            return None
        return EndOfTimeline(
            min(t for t in self.server.timelines if t > self.timeline), Lsn(switch)
        )

    def disconnect(self) -> None:
        self.closed = True


DEFAULTS: dict[str, Any] = {
    "slot": "s",
    "start": None,
    "end": None,
    "timeline": None,
    "synchronous": False,
    "fsync": True,
    "status_interval": 10.0,
    "receive_timeout": None,
    "compression": None,
    "on_start": None,
    "on_segment": None,
}


def receive(connection: Connection, disk: Disk, **options: Any) -> ReceivedWal:
    """Receive until the server has no more, or `stop` says so; all in this thread."""
    wanted = {"stop": lambda: connection.exhausted, **DEFAULTS, **options}
    receiver = Receiver(
        Options(**wanted),
        lambda *, mode: MemoryDirectory(disk, mode),
        lambda: connection.now,
    )
    receiving = receiver.run(connection.server.version)
    try:
        request = next(receiving)
        while True:
            try:
                answer = request.call(connection) if isinstance(request, Ask) else request.work()
            except Exception as error:
                request = receiving.throw(error)
            else:
                request = receiving.send(answer)
    except StopIteration as end:
        received: ReceivedWal = end.value
        return received
    finally:
        receiver.release()


def holds(server: Server, disk: Disk, start: int, position: int) -> bool:
    """Whether the disk has all WAL between two positions as one of the server's timelines has it.

    What lies before the branch of a timeline may be with an older one.
    """
    while start < position:
        number, end = start // SEGMENT, min((start // SEGMENT + 1) * SEGMENT, position)
        first = number * SEGMENT
        if not any(
            content(disk, timeline, number)[: end - first] == server.wal(timeline, first, end)
            for timeline in server.timelines
        ):
            return False
        start = end
    return True


@functools.lru_cache(maxsize=16)
def _decompressed(data: bytes) -> bytes:
    return gzip.decompress(data)


def content(disk: Disk, timeline: int, number: int) -> bytes:
    """What the disk has of a segment, in whatever form."""
    name = f"{timeline:08X}{number >> 12:08X}{number & 0xFFF:08X}"
    for suffix, read in (("", bytes), (".gz", _decompressed), (".partial", bytes)):
        if (inode := disk.names.get(name + suffix)) is not None:
            return read(bytes(inode.content))
    return b""
