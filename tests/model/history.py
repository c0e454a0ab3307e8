"""What can happen to a stream, and what must hold at every moment of it.

`History` is a server, a network and an application with everything that each of them may do. The
laws are checked at every status that goes out, at every delivery and at every new start. What they
are checked against is kept here by other means than the session's, from what the server has done.
"""

from __future__ import annotations

import math
from functools import partial
from types import ModuleType

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pgrepl.errors import ConnectionFailed, ServerShutdown
from pgrepl.session.wal_stream import StreamState
from tests.model.client import Client, Clock, Delivery
from tests.support import builders
from tests.support.simulated_server import Event, SimulatedServer, Walsender, read_status

__all__ = ["History"]

INTERVAL = 10.0  # a third of the server's wal_sender_timeout
WAL_SENDER_TIMEOUT = 30.0
RECEIVE_TIMEOUT = 24.0
PROMPT = 0.1  # within which an acknowledgement is reported, however busy the application is
SLACK = 1e-6  # for sums of floating-point numbers

ALL = (True, True, True)
MOVED = st.tuples(st.booleans(), st.booleans(), st.booleans())
INDEX = st.integers(0, 7)
BYTES = st.one_of(st.integers(1, 60), st.integers(1, 2000), st.just(1 << 30))
MOST = st.one_of(st.just(ALL), MOVED)
POSITION = st.sampled_from(["end", "commit", "between", "received", "wal", "far", "nothing"])


class History(RuleBasedStateMachine):
    """A server, a network, and an application that keeps what it acknowledged over its restarts.

    `frontier`: up to where this connection's application has acknowledged written, flushed and
    applied. `durable`: up to where any has acknowledged flushed, as a token of its own.
    """

    def __init__(self, codec: ModuleType) -> None:
        super().__init__()
        self.codec = codec
        self.clock = Clock()
        self.durable = 0
        self.key = 0
        self.server = SimulatedServer()

    @initialize(monotonic=st.booleans())
    def make(self, monotonic: bool) -> None:
        self.server = SimulatedServer(WAL_SENDER_TIMEOUT, monotonic)
        self.connect(0)

    # The connection

    def connect(self, position: int) -> None:
        self.sender: Walsender = self.server.start_replication(position, self.clock.now)
        for event in self.server.wal.events:
            if event.is_before(self.sender.start):
                assert event.is_before(self.durable), "lost: the stream begins behind it"
        self.to_server = bytearray()
        self.frontier = [0, 0, 0]
        self.last = (0, 0, 0)
        self.reported_at = self.clock.now
        self.asked_at = -math.inf
        self.checked = 0
        self.keeps_tokens = False
        self.client = Client(
            self.codec,
            self.clock,
            self.sent,
            sender_timeout=WAL_SENDER_TIMEOUT,
            receive_timeout=RECEIVE_TIMEOUT,
        )

    def reconnect(self, own_token: bool) -> None:
        """The connection is gone, with all that is on its way. Begin again."""
        self.connect(self.durable if own_token else 0)

    @property
    def expected(self) -> list[Event]:
        """What this stream has to deliver, as far as it has happened."""
        return [e for e in self.server.wal.events if not e.is_before(self.sender.start)]

    @property
    def delivered(self) -> int:
        """Up to where the application has all."""
        whole = self.client.deliveries[: len(self.client.deliveries) - bool(self.client.open)]
        known = zip(whole, self.expected, strict=False)
        return max([event.end_lsn for _, event in known] + self.given_messages(), default=0)

    def given_messages(self) -> list[int]:
        """Where messages that belong to no transaction end: they are there as soon as given."""
        given = zip(self.client.deliveries, self.expected, strict=False)
        return [event.end_lsn for _, event in given if event.kind == "message"]

    @property
    def settled(self) -> int:
        """Up to where there was nothing left to deliver when the application last waited."""
        return self.sender.highest_within(self.client.idle)

    # What is checked whenever a status goes out

    def sent(self, frame: bytes) -> None:
        self.to_server += frame
        if frame == builders.copy_done():
            return
        status = read_status(frame)
        assert status.time == int(self.clock.now * 1_000_000)
        if status.reply_requested:
            quiet = self.clock.now - self.client.quiet_since
            assert self.client.waits, "asked for an answer while nobody waits"
            assert quiet >= RECEIVE_TIMEOUT / 2 - SLACK, "asked for an answer too early"
            self.asked_at = self.clock.now
        highest = self.sender.highest_within(self.client.received)
        for position, before, frontier in zip(status[:3], self.last, self.frontier, strict=True):
            assert position >= before, "a report went back"
            assert position <= highest, "a report beyond what was received"
            self.check_skipped(position, frontier)
            self.check_open(position, before, frontier)
            if self.keeps_tokens:
                assert position <= max(frontier, before), "the slot got ahead of the token"
        self.last = status[:3]
        self.reported_at = self.clock.now

    def check_skipped(self, position: int, frontier: int) -> None:
        """Everything that a stream from `position` on leaves out is delivered and acknowledged."""
        for index, event in enumerate(self.expected):
            if event.is_before(position):
                assert index < len(self.client.deliveries), "a report skips what was not delivered"
                assert self.client.deliveries[index].is_whole or event.kind == "message"
                assert event.is_before(frontier), "a report skips what was not acknowledged"
        assert position <= self.server.wal.end, "a report skips what is still to come"

    def check_open(self, position: int, before: int, frontier: int) -> None:
        """Inside of a transaction nothing that came since it began is reported."""
        if self.client.open is not None:
            event = self.expected[len(self.client.deliveries) - 1]
            limit = self.sender.before[event.lsn]
            assert position <= max(limit, frontier, before), "a report from inside a transaction"

    # What is checked whenever something was delivered

    @invariant()
    def delivers_all_in_order_and_nothing_else(self) -> None:
        expected = self.expected
        deliveries = self.client.deliveries
        assert len(deliveries) <= len(expected), "invented"
        for index in range(self.checked, len(deliveries)):
            check_delivery(deliveries[index], expected[index])
            if deliveries[index].is_whole:
                self.checked = index + 1

    # The server

    def pick_open(self, index: int) -> int:
        open_xids = list(self.server.wal.open)
        return open_xids[index % len(open_xids)]

    def insert(self, xid: int) -> None:
        self.key += 1
        self.server.wal.insert(xid, self.key)

    @rule(rows=st.integers(0, 3), ends=st.booleans())
    def begin(self, rows: int, ends: bool) -> None:
        xid = self.server.wal.begin()
        for _ in range(rows):
            self.insert(xid)
        if ends:
            self.server.wal.commit(xid)

    @precondition(lambda self: self.server.wal.open)
    @rule(index=INDEX, what=st.sampled_from(["insert", "commit", "from elsewhere", "abort", "2pc"]))
    def go_on(self, index: int, what: str) -> None:
        """One of the open transactions goes on, or ends."""
        wal, xids = self.server.wal, list(self.server.wal.open)
        xid = xids[index % len(xids)]
        match what:
            case "insert":
                self.insert(xid)
            case "commit":
                wal.commit(xid)
            case "from elsewhere":
                wal.commit(xid, origin="elsewhere")
            case "abort":
                wal.abort(xid)
            case "2pc":
                wal.prepare(xid)

    @precondition(lambda self: self.server.wal.prepared)
    @rule(index=INDEX, commit=st.booleans())
    def finish_prepared(self, index: int, commit: bool) -> None:
        gids = list(self.server.wal.prepared)
        self.server.wal.finish_prepared(gids[index % len(gids)], commit)

    @rule(size=st.integers(0, 600), message=st.booleans())
    def write(self, size: int, message: bool) -> None:
        """WAL that no client hears of, or a message that belongs to no transaction."""
        if message:
            self.key += 1
            self.server.wal.message(self.key)
        else:
            self.server.wal.write_noise(size)

    @rule(messages=st.one_of(st.integers(1, 4), st.just(100)))
    def decode(self, messages: int) -> None:
        for _ in range(messages):
            self.sender.step()

    @rule(back=st.sampled_from([0, 0, 0, 1, 2, 5]), reply_requested=st.booleans())
    def keepalive(self, back: int, reply_requested: bool) -> None:
        self.sender.keepalive(back, reply_requested)

    # The network

    @rule(size=BYTES, cut=st.integers(0, 100))
    def carry_to_client(self, size: int, cut: int) -> None:
        """Bring bytes, in one piece or in two."""
        for part in (min(size, cut), size):
            data = bytes(self.sender.outgoing[:part])
            del self.sender.outgoing[:part]
            if data:
                self.client.arrived(data)

    @rule(size=BYTES)
    def carry_to_server(self, size: int) -> None:
        data = bytes(self.to_server[:size])
        del self.to_server[:size]
        self.sender.receive(data, self.clock.now)

    # The application

    @rule(
        limit=st.one_of(st.integers(1, 5), st.just(1000)),
        to_end=st.booleans(),
        catches_up=st.booleans(),
    )
    def read(self, limit: int, to_end: bool, catches_up: bool) -> None:
        """`catches_up`: all that the server has arrives before."""
        if catches_up:
            self.decode(100)
            self.carry_to_client(1 << 30, 0)
        self.client.read(limit, to_end)

    @rule(
        index=INDEX,
        kind=POSITION,
        moved=st.one_of(st.just(ALL), MOVED),
        offset=st.integers(-80, 80),
    )
    def acknowledge(
        self, index: int, kind: str, moved: tuple[bool, bool, bool], offset: int
    ) -> None:
        known = self.expected[: len(self.client.deliveries)]
        event = known[-1 - index % len(known)] if known else None
        positions = {
            "end": event.end_lsn if event else 0,
            "commit": event.lsn if event else 0,
            "between": (event.end_lsn if event else self.server.wal.end) + offset,
            "received": self.client.wal.positions.received,
            "wal": self.server.wal.end,
            "far": (1 << 63) + offset,
            "nothing": 0,
        }
        self.acknowledge_position(positions[kind], moved)

    def acknowledge_position(self, position: int, moved: tuple[bool, bool, bool]) -> None:
        self.note(min(position, max(self.delivered, self.settled)), moved)
        self.client.acknowledge(position, moved)

    def note(self, position: int, moved: tuple[bool, bool, bool]) -> None:
        """What the application has acknowledged, by its own account."""
        for place, moves in enumerate(moved):
            if moves:
                self.frontier[place] = max(self.frontier[place], position)
        self.durable = max(self.durable, self.frontier[1])

    @precondition(lambda self: self.client.open is not None)
    @rule(moved=MOVED)
    def acknowledge_before_the_end(self, moved: tuple[bool, bool, bool]) -> None:
        """It counts when the transaction has been read."""
        delivery = self.client.open
        assert delivery is not None
        event = self.expected[len(self.client.deliveries) - 1]
        if event.kind == "message":
            self.acknowledge_position(event.end_lsn, moved)
            return
        delivery.acknowledged = moved
        self.client.on_end = partial(self.note, event.end_lsn, moved)

    # Time

    @rule(
        seconds=st.one_of(
            st.floats(0.0, 0.2), st.floats(0.0, 40.0), st.sampled_from([INTERVAL, RECEIVE_TIMEOUT])
        ),
        carries=st.booleans(),
    )
    def advance(self, seconds: float, carries: bool) -> None:
        """Let time go by. `carries`: what the client sends arrives at once."""
        end = self.clock.now + seconds
        try:
            self.let_time_pass(end, carries)
        except ConnectionFailed:
            quiet = self.clock.now - self.client.quiet_since
            assert self.client.waits, "failed though nobody waits"
            assert quiet >= RECEIVE_TIMEOUT - SLACK, "failed too early"
            assert self.asked_at >= self.client.quiet_since, "failed without having asked"
            self.reconnect(own_token=False)
            return
        if self.sender.is_closed:
            assert not carries, "the server took a client for dead that had reported in time"
            self.reconnect(own_token=True)
            return
        self.check_times(seconds)

    def let_time_pass(self, end: float, carries: bool) -> None:
        client, sender = self.client, self.sender
        before, most = client.session.statuses, 3 + (end - self.clock.now) / INTERVAL
        while not sender.is_closed:
            assert client.session.statuses - before <= most, "statuses without a reason"
            silent_at = client.session.silent_at if client.waits else math.inf
            due_at = client.session.due_at
            if carries:
                self.carry_to_server(1 << 30)
            now = min(end, due_at, silent_at, sender.wakes_at)
            if now == end:
                break
            self.clock.now = max(self.clock.now, now)
            if due_at <= now:
                client.pump()
            elif silent_at <= now:
                client.silence()
            else:
                sender.tick(now)
        self.clock.now = max(self.clock.now, end)

    def check_times(self, seconds: float) -> None:
        now, client = self.clock.now, self.client
        assert now - self.reported_at <= INTERVAL + SLACK, "no status for too long"
        assert now <= client.answer_by + SLACK, "an answer was not given in time"
        if client.waits:
            quiet = now - client.quiet_since
            assert quiet <= RECEIVE_TIMEOUT + SLACK, "a dead server was not noticed"
            if quiet > RECEIVE_TIMEOUT / 2 + SLACK:
                assert self.asked_at >= client.quiet_since, "a silent server was not asked"
        if seconds < PROMPT:
            return
        delivered = self.delivered
        for position, frontier in zip(self.last, self.frontier, strict=True):
            assert position >= frontier, "an acknowledgement was not reported"
            is_idle = client.waits and client.open is None and frontier >= delivered
            if is_idle and not self.keeps_tokens:
                highest = self.sender.highest_within(client.received)
                assert position == highest, "an idle slot does not advance"

    # What does not happen all the time

    @rule(
        what=st.sampled_from(
            [
                *("checkpoint", "token", "token acknowledged", "idle"),
                *("disconnect", "crash", "crash", "stop", "shutdown"),
            ]
        ),
        own_token=st.booleans(),
    )
    def something_rare(self, what: str, own_token: bool) -> None:
        match what:
            case "checkpoint":
                self.server.slot.checkpoint()
            case "token":
                self.keep_token()
            case "token acknowledged":
                self.keep_token()
                self.acknowledge_position(self.client.wal.positions.safe, ALL)
            case "idle":
                self.become_idle()
            case "disconnect":
                self.reconnect(own_token)
            case "crash":
                self.server.crash()
                self.reconnect(own_token)
            case "stop":
                self.stop_cleanly()
                self.reconnect(own_token)
            case "shutdown":
                self.shut_server_down()
                self.reconnect(own_token)

    def keep_token(self) -> None:
        """Keep a position of its own; from now on the slot must not get ahead of that."""
        self.keeps_tokens = True
        self.client.wal.positions.automatic = False
        position = self.client.wal.positions.safe
        assert position >= self.frontier[1], "the token is behind what was acknowledged"
        self.check_skipped(position, self.frontier[1])
        self.durable = max(self.durable, position)

    def catch_up(self) -> None:
        """All that has happened is decoded, carried, read and acknowledged."""
        while not self.client.waits or self.sender.outgoing or self.sender.step():
            self.decode(100)
            self.carry_to_client(1 << 30, 0)
            self.read(1 << 30, True, False)
        assert len(self.client.deliveries) == len(self.expected), "lost"
        self.acknowledge_position(self.delivered, ALL)
        self.acknowledge_safe()

    def acknowledge_safe(self) -> None:
        """Who keeps tokens has to let the slot go on."""
        if self.keeps_tokens:
            self.acknowledge_position(self.client.wal.positions.safe, ALL)

    def become_idle(self) -> None:
        """With nothing left to do the slot confirms the latest keepalive."""
        self.catch_up()
        self.keepalive(0, False)
        self.carry_to_client(1 << 30, 0)
        self.acknowledge_safe()
        self.advance(INTERVAL, True)
        assert self.server.slot.confirmed == self.sender.sent_ptr == self.server.wal.end

    def stop_cleanly(self) -> None:
        """What was acknowledged does not come again."""
        tags = self.client.stop(self.network)
        assert tags == ["COPY 0", "START_REPLICATION"]
        for event in self.expected:
            if event.lsn < self.frontier[1]:
                assert event.is_before(self.server.slot.confirmed), "it will be repeated"

    def network(self) -> bytes:
        """Both directions at once, to the last byte."""
        self.carry_to_server(1 << 30)
        data = bytes(self.sender.outgoing)
        self.sender.outgoing.clear()
        return data

    def shut_server_down(self) -> None:
        """It leaves as soon as the client has confirmed the last position, and says so."""
        self.server.begin_shutdown()
        self.catch_up()
        for _ in range(4):
            self.carry_to_server(1 << 30)
            self.sender.step()
            self.carry_to_client(1 << 30, 0)
            self.acknowledge_safe()
            self.clock.now = max(self.clock.now, self.client.session.due_at)
            self.client.pump()
        assert self.sender.is_closed, "the server waits for a client that has acknowledged all"
        assert self.client.wal.state is StreamState.ENDING
        lost = ConnectionFailed("closed")
        assert isinstance(self.client.wal.connection_lost(lost), ServerShutdown)
        self.server.restart()
        assert self.server.slot.confirmed == self.server.wal.end

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.become_idle()


def check_delivery(delivery: Delivery, event: Event) -> None:
    """Hold what was delivered, so far, against what happened."""
    made = delivery.transaction
    assert made.kind == event.kind
    assert made.xid == (None if event.kind == "message" else event.xid)
    assert (made.gid or "") == event.gid
    if event.kind not in ("message", "rollback prepared"):
        assert made.commit_lsn == event.lsn
    assert delivery.keys == event.keys[: len(delivery.keys)]
    if delivery.is_whole:
        assert delivery.keys == event.keys, "a change is missing"
        assert made.end_lsn == event.end_lsn
        assert (made.origin.name if made.origin else "") == event.origin
