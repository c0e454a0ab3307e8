"""When a stream sends a status and what it says, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.codec import _pure
from pgrepl.errors import ConnectionFailed, UsageError
from pgrepl.session.positions import Positions, Report
from pgrepl.session.session import Session
from tests.support import builders
from tests.support.simulated_server import Status, read_status

BEGIN = 100.0
INTERVAL = 10.0
GAP = 0.0002  # between two statuses
ANSWER = 0.05  # between a status and one that is nothing but an answer
BUSY = 0.05  # for an acknowledgement of an application that does not wait


class Harness:
    """A session with the clock, the bytes and the driver's part all at hand."""

    def __init__(self, codec: Any, **limits: Any) -> None:
        self.codec = codec
        self.now = BEGIN
        self.end = 0  # of what was delivered
        self.positions = Positions()
        limits = {"status_interval": INTERVAL, "receive_timeout": 60.0, **limits}
        self.session = Session(codec, self.positions, now=self.now, **limits)

    def receives(self, *bodies: bytes) -> None:
        """A batch comes."""
        reader = self.codec.FrameReader()
        reader.feed(b"".join(map(builders.copy_data, bodies)))
        batch = self.codec.next_batch(reader)
        self.positions.observe(batch.received(False))
        self.session.wait_ends()
        self.session.received(batch, self.now)

    def gets(self, position: int, asks: bool = False) -> None:
        self.receives(builders.keepalive(position, 0, asks))

    def delivers(self, end_lsn: int) -> None:
        """A transaction comes, and the application has read it."""
        self.receives(builders.xlog_data(end_lsn, end_lsn, 0, b"C"))
        self.end = end_lsn
        self.session.delivered(end_lsn)

    def waits(self, idle: bool = True) -> None:
        self.session.delivered(self.end)
        self.session.wait_begins(self.now, idle)

    def acknowledges(
        self, position: int, written: bool = True, flushed: bool = True, applied: bool = True
    ) -> None:
        self.session.acknowledge(position, self.now, written, flushed, applied)

    def sends(self, final: bool = False) -> Status | None:
        """What goes out now."""
        data = self.session.data_to_send(self.now, 77, final)
        if data is None:
            return None
        status = read_status(data)
        assert status.time == 77
        assert status[:3] == self.session.positions.last
        return status

    def reports(self) -> tuple[int, int, int]:
        """What goes out, which has to be something."""
        status = self.sends()
        assert status is not None
        return status[:3]


@pytest.fixture
def stream(codec: ModuleType) -> Harness:
    return Harness(codec)


# What is reported


def test_nothing_has_come(stream: Harness) -> None:
    stream.waits()
    assert stream.sends() is None
    stream.now += INTERVAL
    assert stream.reports() == (0, 0, 0)


def test_a_transaction_is_reported_when_it_was_acknowledged(stream: Harness) -> None:
    stream.delivers(500)
    stream.waits()
    stream.now += 1
    assert stream.sends() is None
    stream.acknowledges(500)
    assert stream.reports() == (500, 500, 500)


def test_what_was_not_delivered_cannot_be_acknowledged(stream: Harness) -> None:
    stream.delivers(500)
    stream.receives(builders.xlog_data(900, 900, 0, b"B"))
    stream.now += 1
    stream.acknowledges(900)
    stream.now += 1
    assert stream.reports() == (500, 500, 500)


def test_an_idle_stream_reports_what_it_has_received(stream: Harness) -> None:
    stream.gets(400)
    stream.waits()
    stream.now += 1
    assert stream.reports() == (400, 400, 400)
    stream.delivers(500)
    stream.gets(600)
    stream.waits()
    stream.acknowledges(500)
    stream.now += 1
    assert stream.reports() == (600, 600, 600)


def test_what_is_left_to_acknowledge_holds_an_idle_stream_back(stream: Harness) -> None:
    stream.delivers(500)
    stream.delivers(550)
    stream.gets(600)
    stream.waits()
    stream.now += 1
    assert stream.sends() is None
    stream.acknowledges(500)
    assert stream.reports() == (500, 500, 500)


def test_an_open_transaction_holds_the_stream_where_it_was(stream: Harness) -> None:
    stream.gets(400)
    stream.waits()
    stream.receives(builders.xlog_data(450, 450, 0, b"B"), builders.keepalive(480))
    stream.waits(idle=False)
    stream.now += INTERVAL
    assert stream.reports() == (400, 400, 400)


def test_what_came_after_the_last_wait_is_not_reported_by_itself(stream: Harness) -> None:
    stream.gets(400)
    stream.waits()
    stream.now += 1
    stream.gets(500, asks=True)
    assert stream.reports() == (400, 400, 400)
    stream.waits()
    stream.now += GAP
    assert stream.reports() == (500, 500, 500)


def test_the_commit_of_one_that_is_not_acknowledged_is_not_reported(stream: Harness) -> None:
    """A position may equal the start of the next commit record, and is reported as it is."""
    stream.gets(400)
    stream.waits()
    stream.now += 1
    assert stream.reports() == (400, 400, 400)
    stream.delivers(440)
    stream.waits()
    stream.now += INTERVAL
    assert stream.reports() == (400, 400, 400)


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ({"flushed": False, "applied": False}, (500, 0, 0)),
        ({"written": False, "applied": False}, (0, 500, 0)),
        ({"written": False, "flushed": False}, (0, 0, 500)),
        ({"applied": False}, (500, 500, 0)),
    ],
)
def test_the_three_positions_are_apart(
    stream: Harness, moved: dict[str, bool], expected: tuple[int, int, int]
) -> None:
    stream.delivers(500)
    stream.acknowledges(500, **moved)
    stream.now += 1
    assert stream.reports() == expected
    # Idle, each advances by itself when nothing is left for it.
    stream.gets(700)
    stream.waits()
    stream.now += 1
    assert stream.reports() == tuple(700 if position else 0 for position in expected)


def test_acknowledgements_are_cumulative_and_never_go_back(stream: Harness) -> None:
    for end in (500, 600, 700):
        stream.delivers(end)
    stream.acknowledges(550)
    stream.acknowledges(500)
    stream.now += INTERVAL
    assert stream.reports() == (550, 550, 550)
    for position, expected in ((600, 600), (500, 600), (0, 600), (700, 700), (650, 700)):
        stream.acknowledges(position)
        stream.now += INTERVAL
        assert stream.reports() == (expected,) * 3


def test_who_keeps_positions_lets_the_slot_go_on_alone(stream: Harness) -> None:
    stream.delivers(500)
    stream.acknowledges(500)
    stream.positions.automatic = False
    stream.gets(700)
    stream.waits()
    stream.now += 1
    assert stream.reports() == (500, 500, 500)
    assert stream.positions.safe == 700
    stream.acknowledges(700)
    stream.now += 1
    assert stream.reports() == (700, 700, 700)


# When


def test_a_status_goes_out_every_interval(stream: Harness) -> None:
    for _ in range(3):
        assert stream.session.due_at == stream.now + INTERVAL
        stream.now += INTERVAL - 0.01
        assert stream.sends() is None
        stream.now += 0.01
        assert stream.sends() is not None
    assert stream.session.statuses == 3


@pytest.mark.parametrize(
    ("status_interval", "sender_timeout", "expected"),
    [(10.0, 0.0, 10.0), (10.0, 60.0, 10.0), (10.0, 6.0, 2.0), (1.0, 6.0, 1.0)],
)
def test_the_interval_is_what_the_server_can_bear(
    codec: ModuleType, status_interval: float, sender_timeout: float, expected: float
) -> None:
    stream = Harness(codec, status_interval=status_interval, sender_timeout=sender_timeout)
    assert stream.session.interval == expected
    assert stream.session.due_at == BEGIN + expected


@pytest.mark.parametrize("name", ["status_interval", "receive_timeout"])
@pytest.mark.parametrize("limit", [0, 0.0, -1, math.nan])
def test_limits_that_make_no_sense(codec: ModuleType, name: str, limit: float) -> None:
    with pytest.raises(UsageError, match=rf"expected a {name} above 0 seconds, got {limit!r}"):
        Harness(codec, **{name: limit})


def test_who_asks_is_answered_at_once_and_once(stream: Harness) -> None:
    for asked in ([True], [True, True], [True, False, True, False], [False, True]):
        stream.now += 1
        stream.receives(*[builders.keepalive(400, 0, asks) for asks in asked])
        assert stream.session.due_at <= stream.now
        assert stream.sends() is not None
        assert stream.sends() is None
        assert stream.session.due_at == stream.now + INTERVAL


def test_answers_without_news_are_kept_apart(stream: Harness) -> None:
    """A server that shuts down asks again at every answer that is not the one it wants."""
    stream.delivers(500)
    stream.now += 1
    for _ in range(3):
        stream.gets(500, asks=True)
        assert stream.reports() == (0, 0, 0)
        stream.gets(500, asks=True)
        assert stream.sends() is None
        assert stream.session.due_at == stream.now + ANSWER
        stream.now = stream.session.due_at
    # One with news need not wait so long.
    assert stream.reports() == (0, 0, 0)
    stream.gets(500, asks=True)
    stream.waits()
    stream.now += GAP
    stream.acknowledges(500)
    assert stream.reports() == (500, 500, 500)
    assert stream.session.due_at == stream.now + INTERVAL


def test_news_wait_for_the_gap_where_a_status_has_just_gone_out(stream: Harness) -> None:
    stream.now += 1
    stream.gets(400, asks=True)
    assert stream.reports() == (0, 0, 0)
    stream.waits()
    assert stream.sends() is None
    assert stream.session.due_at == stream.now + GAP
    stream.now = stream.session.due_at
    assert stream.reports() == (400, 400, 400)


def test_an_acknowledgement_goes_out_at_once_where_the_application_waits(stream: Harness) -> None:
    stream.delivers(500)
    stream.waits()
    stream.now += 1
    stream.acknowledges(500)
    assert stream.session.due_at == stream.now
    assert stream.reports() == (500, 500, 500)


def test_a_busy_application_s_acknowledgements_go_out_together(stream: Harness) -> None:
    for end in (500, 600, 700):
        stream.delivers(end)
    stream.now += 1
    stream.acknowledges(500)
    due_at = stream.session.due_at
    assert due_at == stream.now + BUSY
    stream.now += BUSY / 2
    stream.acknowledges(600)
    assert stream.session.due_at == due_at
    stream.now = due_at
    assert stream.reports() == (600, 600, 600)
    # What is not news is no reason for a status.
    stream.acknowledges(600)
    assert stream.session.due_at == stream.now + INTERVAL
    # Who begins to wait need not wait for that.
    stream.acknowledges(700)
    stream.now += GAP
    stream.waits()
    assert stream.reports() == (700, 700, 700)


def test_to_wait_again_is_no_news(stream: Harness) -> None:
    stream.gets(400)
    stream.waits()
    stream.now += 1
    assert stream.sends() is not None
    for _ in range(3):
        stream.now += 1
        stream.session.wait_ends()
        stream.waits()
        assert stream.sends() is None


def test_the_final_status_is_always_due(stream: Harness) -> None:
    stream.delivers(500)
    assert stream.sends(final=True) == (0, 0, 0, 77, False)
    stream.acknowledges(500)
    assert stream.sends(final=True) == (500, 500, 500, 77, False)
    assert stream.sends(final=True) == (500, 500, 500, 77, False)
    assert stream.session.statuses == 3


# Silence


# Whatever happens

SECONDS = st.floats(1e-3, 1e4, allow_nan=False)


@given(now=st.floats(0, 1e9), timeout=SECONDS, interval=SECONDS)
def test_nobody_is_called_again_at_once(now: float, timeout: float, interval: float) -> None:
    """A driver that wakes exactly when it was told to is never told to wake at the same moment."""
    stream = Harness(_pure, status_interval=interval, receive_timeout=timeout)
    stream.session = Session(
        _pure, stream.positions, status_interval=interval, receive_timeout=timeout, now=now
    )
    stream.now = now
    session, asked = stream.session, False
    stream.waits()
    for _ in range(20):
        silent_at, due_at = session.silent_at, session.due_at
        assert silent_at > stream.now
        assert due_at > stream.now
        stream.now = min(silent_at, due_at)
        if silent_at <= stream.now:
            if asked:
                with pytest.raises(ConnectionFailed):
                    session.silence(stream.now)
                break
            session.silence(stream.now)
            asked = True
        status = stream.sends()
        assert status is not None
        assert status.reply_requested == (silent_at <= stream.now)
        stream.waits()


ACTIONS: dict[str, Callable[[Harness, int], None]] = {
    "deliver": lambda stream, n: stream.delivers(stream.positions.received + n),
    "keepalive": lambda stream, n: stream.gets(stream.positions.received + n),
    "request": lambda stream, n: stream.gets(stream.positions.received, asks=True),
    "acknowledge": lambda stream, n: stream.acknowledges(stream.positions.received - n),
    "flush": lambda stream, n: stream.acknowledges(n * 50, written=False, applied=False),
    "wait": lambda stream, n: stream.waits(),
    "wait inside": lambda stream, n: stream.waits(idle=False),
    "work": lambda stream, n: stream.session.wait_ends(),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(ACTIONS)), st.integers(0, 40), st.booleans())))
def test_reports_never_go_back_and_never_exceed_what_was_received(
    steps: list[tuple[str, int, bool]],
) -> None:
    stream = Harness(_pure)
    last = Report(0, 0, 0)
    for action, number, time_passes in steps:
        ACTIONS[action](stream, number)
        stream.now += time_passes
        status = stream.sends()
        if status is None:
            continue
        for before, position in zip(last, status[:3], strict=True):
            assert before <= position <= stream.positions.received
        last = Report(*status[:3])
        assert stream.session.due_at > stream.now


class TestNotes:
    def test_go_out_with_what_is_due(self, codec: ModuleType) -> None:
        harness = Harness(codec)
        harness.delivers(30)
        assert not harness.session.takes_notes
        harness.acknowledges(10)
        assert harness.session.takes_notes
        harness.positions.notes += [20, 15]
        assert (harness.positions.flushed, harness.positions.acknowledged.flushed) == (20, 10)
        harness.now += BUSY
        status = harness.sends()
        assert status is not None and status[:3] == (20, 20, 20)
        assert not harness.session.takes_notes and not harness.positions.notes

    def test_are_taken_in_before_a_wait(self, codec: ModuleType) -> None:
        harness = Harness(codec)
        harness.delivers(30)
        harness.positions.notes.append(30)
        harness.gets(50)
        harness.waits()
        assert harness.positions.acknowledged.flushed == 30
        assert harness.positions.safe == 50
        harness.now += GAP
        status = harness.sends()
        assert status is not None and status[:3] == (50, 50, 50)

    def test_never_move_a_position_back(self, codec: ModuleType) -> None:
        harness = Harness(codec)
        harness.delivers(30)
        harness.acknowledges(30)
        harness.positions.notes.append(10)
        harness.positions.take_in()
        assert harness.positions.acknowledged == (30, 30, 30) and harness.positions.delivered == 30
