"""A logical walsender with its WAL and its slot, in memory: bytes out, status messages in.

Law: it does what a server does with positions, as far as the protocol lets a client see it, and
believes what a server believes. It has no clock and no chance of its own: the time is passed in,
and whatever a real one does at a moment that nobody can know is done when it is called for.

What matters for loss, and is modelled:

- A transaction is sent if and only if its commit record starts at or behind the position where the
  stream began, the later one of what the client asked for and what the slot has confirmed.
- Whatever is reported as flushed becomes confirmed, even what is beyond the end of the WAL.
- What is confirmed reaches the disk later; after a crash it is what it was then.
- A keepalive tells how far decoding has read: often the very start of the next commit record.
- A message that belongs to no transaction tells the end of its record, and is sent by its start.

Source: PostgreSQL documentation, "Streaming Replication Protocol"; src/backend/replication:
walsender.c, slot.c, logical/decode.c, pgoutput/pgoutput.c.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from pgrepl.codec import Row
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
)
from tests.support import builders
from tests.support.pgoutput_encoder import encode

__all__ = ["TABLE", "Event", "SimulatedServer", "Slot", "Status", "Wal", "Walsender", "read_status"]

Kind: TypeAlias = Literal["commit", "prepare", "commit prepared", "rollback prepared", "message"]

TABLE: Final = Relation(16384, "public", "item", "d", (Column("id", 20, -1, True),))

# Small pages, so that records often start behind a page header and not where the last one ended.
_PAGE: Final = 512
_PAGE_HEADER: Final = 24
_FIRST: Final = 0x1_0000_0028

_STATUS: Final = struct.Struct("!cQQQqB")


class Status(NamedTuple):
    """A standby status update, as the server reads it."""

    written: int
    flushed: int
    applied: int
    time: int
    reply_requested: bool


def read_status(frame: bytes) -> Status:
    """Read a whole CopyData frame with a status, in which every byte has to be right."""
    tag, length = struct.unpack_from("!ci", frame)
    kind, *numbers, asks = _STATUS.unpack(frame[5:])
    if (tag, length, kind) != (b"d", len(frame) - 1, b"r") or asks > 1:
        raise ValueError(f"expected a frame with a standby status update, got {frame!r}")
    return Status._make((*numbers, bool(asks)))


@dataclass(frozen=True, slots=True)
class Event:
    """What decoding a record of the WAL gives a client: `lsn` and `end_lsn` are the record's.

    `changes` has position and key of each row; `prepared` is what an outcome is the outcome of.
    """

    kind: Kind
    lsn: int
    end_lsn: int
    xid: int
    changes: tuple[tuple[int, int], ...] = ()
    gid: str = ""
    origin: str = ""
    prepared: Event | None = None

    @property
    def keys(self) -> list[int]:
        return [key for _, key in self.changes]

    def is_before(self, position: int) -> bool:
        """Whether a stream that begins at `position` leaves it out."""
        return self.lsn < position


class Record(NamedTuple):
    """A record of the WAL, and what decoding it gives."""

    start: int
    end: int
    event: Event | None


class Wal:
    """The WAL, to which whoever uses the server writes."""

    def __init__(self) -> None:
        self.end = _FIRST
        self.records: list[Record] = []
        self.open: dict[int, list[tuple[int, int]]] = {}
        self.prepared: dict[str, Event] = {}
        self._next_xid = 700

    @property
    def events(self) -> list[Event]:
        """What a client has to hear of, in the order of the commits."""
        return [record.event for record in self.records if record.event is not None]

    def begin(self) -> int:
        """Begin a transaction; return its xid."""
        self._next_xid += 1
        self.open[self._next_xid] = []
        return self._next_xid

    def insert(self, xid: int, key: int) -> None:
        start, _ = self._write(72)
        self.open[xid].append((start, key))

    def commit(self, xid: int, origin: str = "") -> Event:
        span = self._write(40)
        changes = tuple(self.open.pop(xid))
        return self._decodes_to(Event("commit", *span, xid, changes, origin=origin))

    def abort(self, xid: int) -> None:
        del self.open[xid]
        self._write(40)

    def prepare(self, xid: int) -> Event:
        span = self._write(80)
        changes = tuple(self.open.pop(xid))
        event = self._decodes_to(Event("prepare", *span, xid, changes, f"g{xid}"))
        self.prepared[event.gid] = event
        return event

    def finish_prepared(self, gid: str, commit: bool) -> Event:
        """Commit or roll back a prepared transaction."""
        prepared = self.prepared.pop(gid)
        kind: Kind = "commit prepared" if commit else "rollback prepared"
        span = self._write(48)
        return self._decodes_to(Event(kind, *span, prepared.xid, (), gid, "", prepared))

    def message(self, key: int) -> Event:
        """Write a message that belongs to no transaction."""
        start, end = self._write(64)
        return self._decodes_to(Event("message", start, end, 0, ((end, key),)))

    def write_noise(self, size: int) -> None:
        """Write what no client of this slot hears of, another database's for instance."""
        self._write(size)

    def crash(self) -> None:
        """Forget what was open; what is prepared stays."""
        self.open.clear()

    def _write(self, size: int) -> tuple[int, int]:
        """Write a record; return its start and its end."""
        start = self.end if self.end % _PAGE else self.end + _PAGE_HEADER
        self.end = start + -(-size // 8) * 8
        self.records.append(Record(start, self.end, None))
        return start, self.end

    def _decodes_to(self, event: Event) -> Event:
        """Say what decoding the last record gives."""
        self.records[-1] = Record(event.lsn, event.end_lsn, event)
        return event


class Slot:
    """A logical slot; the servers up to 12 let it go back, later ones do not."""

    def __init__(self, confirmed: int, monotonic: bool = True) -> None:
        self.confirmed = confirmed
        self.persisted = confirmed
        self._monotonic = monotonic

    def confirm(self, position: int) -> None:
        if position and not (self._monotonic and position < self.confirmed):
            self.confirmed = position

    def checkpoint(self) -> None:
        self.persisted = self.confirmed

    def crash(self) -> None:
        self.confirmed = self.persisted


class SimulatedServer:
    """A server with one slot. `wal_sender_timeout` in seconds, 0 for none."""

    def __init__(self, wal_sender_timeout: float = 0.0, monotonic: bool = True) -> None:
        self.wal = Wal()
        self.slot = Slot(self.wal.end, monotonic)
        self.wal_sender_timeout = wal_sender_timeout
        self.shuts_down = False

    def start_replication(self, position: int, now: float) -> Walsender:
        """Answer START_REPLICATION; the CopyBothResponse is not among what is sent."""
        return Walsender(self, position, now)

    def crash(self) -> None:
        self.slot.crash()
        self.wal.crash()

    def begin_shutdown(self) -> None:
        """Shut down fast: transactions are rolled back, a checkpoint is the last of the WAL."""
        for xid in list(self.wal.open):
            self.wal.abort(xid)
        self.wal.write_noise(114)
        self.shuts_down = True

    def restart(self) -> None:
        """Come up again after a shutdown."""
        self.slot.checkpoint()
        self.shuts_down = False


class Walsender:
    """What serves one connection. `outgoing`: bytes on their way, which the network takes away.

    `sent_ptr` is how far decoding has read.
    """

    def __init__(self, server: SimulatedServer, position: int, now: float) -> None:
        self.start = max(position, server.slot.confirmed)
        self.sent_ptr = server.slot.confirmed
        self.outgoing = bytearray()
        self.is_closed = False
        self.statuses: list[Status] = []
        self.before: dict[int, int] = {}  # highest position sent before an event, by its lsn
        self._server = server
        self._now = now
        self._heard_at = now
        self._pinged = False
        self._awaits_reply = False
        self._streams = True
        self._received = bytearray()
        self._read = self._first_record()
        self._decoding: Record | None = None
        self._pending: deque[tuple[int, bytes]] = deque()
        self._passed = [self.sent_ptr]
        self._described = False
        self._sent = 0
        self._marks: list[tuple[int, int]] = []  # what is sent up to an offset, highest position
        self.keepalive()

    def _first_record(self) -> int:
        """Decoding begins before the start, where the oldest transaction then open had begun."""
        records = self._server.wal.records
        behind = (i for i, record in enumerate(records) if record.end > self.start)
        return max(next(behind, len(records)) - 3, 0)

    # What it sends

    def step(self) -> bool:
        """Send the next message, or read a record that gives none; False: there is nothing."""
        if self.is_closed or not self._streams:
            return False
        if not self._pending and not self._read_record():
            if self._server.shuts_down:
                self._finish()
            return False
        if self._pending:
            position, payload = self._pending.popleft()
            self._emit(builders.xlog_data(position, position, self._time, payload), position)
        if not self._pending and self._decoding is not None:
            self.sent_ptr = self._decoding.end
            self._passed.append(self.sent_ptr)
        return True

    def keepalive(self, back: int = 0, reply_requested: bool = False) -> None:
        """Send a keepalive; one that lags tells where decoding was so many records before."""
        if not self.is_closed and self._streams:
            wal_end = self._passed[max(len(self._passed) - 1 - back, 0)]
            self._emit(builders.keepalive(wal_end, self._time, reply_requested), wal_end)

    def highest_within(self, size: int) -> int:
        """Return the highest position in what is whole in the first `size` bytes sent."""
        return max((position for end, position in self._marks if end <= size), default=0)

    @property
    def _time(self) -> int:
        return int(self._now * 1_000_000)

    def _emit(self, body: bytes, position: int) -> None:
        self._put(builders.copy_data(body))
        self._marks.append((self._sent, position))

    def _put(self, frame: bytes) -> None:
        self.outgoing += frame
        self._sent += len(frame)

    def _read_record(self) -> bool:
        records = self._server.wal.records
        if self._read == len(records):
            return False
        self._decoding = record = records[self._read]
        self._read += 1
        if record.event is not None and not record.event.is_before(self.start):
            self.before[record.event.lsn] = self.highest_within(self._sent)
            self._pending.extend(
                (position, encode(message)) for position, message in self._messages(record.event)
            )
        return True

    def _messages(self, event: Event) -> Iterator[tuple[int, LogicalMessage]]:
        """What is sent for an event, each with the position in its header."""
        lsn, end, xid = Lsn(event.lsn), Lsn(event.end_lsn), event.xid
        first = event.changes[0][0] if event.changes else event.lsn
        match event.kind:
            case "message":
                yield end, Message(False, end, "key", str(event.keys[0]).encode())
            case "commit":
                yield (0 if event.origin else first), Begin(lsn, self._time, xid)
                if event.origin:
                    yield first, Origin(Lsn(77), event.origin)
                yield from self._changes(event)
                yield end, Commit(lsn, end, self._time)
            case "prepare":
                yield first, BeginPrepare(lsn, end, self._time, xid, event.gid)
                yield from self._changes(event)
                yield end, Prepare(lsn, end, self._time, xid, event.gid)
            case "commit prepared":
                yield end, CommitPrepared(lsn, end, self._time, xid, event.gid)
            case "rollback prepared":
                prepared = event.prepared
                assert prepared is not None
                ends = Lsn(prepared.end_lsn), end
                yield end, RollbackPrepared(*ends, self._time, self._time, xid, event.gid)

    def _changes(self, event: Event) -> Iterator[tuple[int, LogicalMessage]]:
        for position, key in event.changes:
            if not self._described:
                self._described = True
                yield 0, TABLE
            yield position, Insert(TABLE, Row(TABLE, (str(key),)))

    # What it hears

    def receive(self, data: bytes, now: float) -> None:
        """Take what the network brought, in whatever pieces. `ValueError` for what is no status."""
        self._now = now
        self._received += data
        while not self.is_closed and len(self._received) >= 5:
            size = 1 + int(struct.unpack_from("!i", self._received, 1)[0])
            if len(self._received) < size:
                return
            frame = bytes(self._received[:size])
            del self._received[:size]
            self._heard_at, self._pinged = now, False
            if frame == builders.copy_done():
                self._end_stream()
            else:
                self._take(read_status(frame))

    def _take(self, status: Status) -> None:
        if not self._streams:
            return
        self.statuses.append(status)
        self._awaits_reply = False
        self._server.slot.confirm(status.flushed)
        if status.reply_requested:
            self.keepalive()

    def _end_stream(self) -> None:
        """End it as the client wishes, behind what is being decoded."""
        while self._pending:
            self.step()
        self._put(builders.copy_done())
        for tag in ("COPY 0", "START_REPLICATION"):
            self._put(builders.command_complete(tag))
        self._put(builders.ready_for_query())
        self._streams = False

    def _finish(self) -> None:
        """Wait until all is confirmed, and leave."""
        last = self.statuses[-1] if self.statuses else Status(0, 0, 0, 0, False)
        if (last.flushed or last.written) == self.sent_ptr:
            self._put(builders.command_complete("COPY 0"))
            self.is_closed = True
        elif not self._awaits_reply:
            self._awaits_reply = True
            self.keepalive(reply_requested=True)

    # Time

    @property
    def wakes_at(self) -> float:
        """When `tick` has something to do."""
        timeout = self._server.wal_sender_timeout
        if not timeout or self.is_closed:
            return math.inf
        return self._heard_at + timeout / (1 if self._pinged else 2)

    def tick(self, now: float) -> None:
        """Ask a silent client for a reply; leave one that does not give it, without a word."""
        self._now = now
        if now >= self.wakes_at:
            if self._pinged:
                self.is_closed = True
            else:
                self._pinged = True
                self.keepalive(reply_requested=True)
