"""When a stream's socket is read: the rate alone decides, and nothing waits longer than it may."""

from __future__ import annotations

import math

import pytest

from pgrepl.errors import UsageError
from pgrepl.transport.coalescing import Coalescing, expect_delay

DELAY = 0.0003


class Reader:
    """Reads a stream of messages that come at given times, as a driver does, in virtual time."""

    def __init__(self, max_delay: float, work: float = 0.0, size: int = 1) -> None:
        self.coalescing = Coalescing(max_delay)
        self.size = size  # bytes of a message
        self.work = work  # seconds that the consumer takes for a message
        self.now = 0.0
        self.reads: list[int] = []
        self.delays: list[float] = []

    def read(self, arrivals: list[float]) -> None:
        """Read all of them, each as soon as it has come and `pause` lets it be."""
        at = 0
        while at < len(arrivals):
            self.now += self.coalescing.pause(self.now)
            self.now = max(self.now, arrivals[at])
            end = at
            while end < len(arrivals) and arrivals[end] <= self.now:
                self.delays.append(self.now - arrivals[end])
                end += 1
            self.reads.append(end - at)
            self.coalescing.took(end - at, (end - at) * self.size, self.now)
            self.now += self.work * (end - at)
            at = end


def steadily(rate: float, seconds: float, group: int = 1) -> list[float]:
    """Return the times of messages at a rate, in groups 5 us apart from each other."""
    times = []
    for number in range(int(rate * seconds / group)):
        begin = 10.0 + number * group / rate
        times += [begin + 5e-6 * each for each in range(group)]
    return times


@pytest.mark.parametrize(("rate", "group"), [(1, 1), (1000, 1), (3000, 3), (12_000, 12)])
def test_a_slow_stream_is_read_at_once(rate: float, group: int) -> None:
    reader = Reader(DELAY)
    reader.read(steadily(rate, 2, group))
    assert max(reader.delays) < 1e-9


def test_a_burst_on_a_quiet_stream_is_read_at_once() -> None:
    reader = Reader(DELAY)
    for second in range(1, 10):
        reader.read([second + 5e-6 * each for each in range(100)])
    assert max(reader.delays) < 1e-9


@pytest.mark.parametrize("rate", [60_000, 300_000, 2_000_000])
def test_a_fast_stream_is_read_once_in_a_while(rate: float) -> None:
    arrivals = steadily(rate, 0.5)
    reader = Reader(DELAY)
    reader.read(arrivals)
    assert max(reader.delays) <= DELAY + 1e-9
    # But for the first moments, before the rate is known.
    assert len(reader.reads) < 0.5 / DELAY + 0.003 * rate
    assert min(reader.reads[-100:-1]) >= 0.9 * DELAY * rate


def test_what_ends_a_fast_stream_is_not_held_back_for_longer() -> None:
    arrivals = [*steadily(200_000, 0.1), 11.0, 12.0]
    reader = Reader(DELAY)
    reader.read(arrivals)
    assert max(reader.delays) <= DELAY + 1e-9
    assert reader.delays[-2:] == [0.0, 0.0]


def test_a_slow_consumer_never_waits() -> None:
    """What it does counts as waiting."""
    coalescing = Coalescing(DELAY)
    for number in range(100):
        coalescing.took(1000, 1000, number * 0.005)
    assert coalescing.pause(99 * 0.005) == pytest.approx(DELAY)
    assert coalescing.pause(99 * 0.005 + DELAY / 2) == pytest.approx(DELAY / 2)
    assert coalescing.pause(99 * 0.005 + 2 * DELAY) == 0.0


def test_who_gets_enough_by_a_read_never_waits() -> None:
    arrivals = steadily(300_000, 0.5)
    reader = Reader(DELAY, size=1 << 20)
    reader.read(arrivals)
    assert max(reader.delays) < 1e-9


def test_switched_off() -> None:
    reader = Reader(0.0)
    reader.read(steadily(300_000, 0.1))
    assert reader.delays == [0.0] * len(reader.delays)


@pytest.mark.parametrize("given", [-1e-9, 1.1, 300, math.nan, math.inf, -math.inf])
def test_delays_that_make_no_sense(given: float) -> None:
    with pytest.raises(UsageError, match=r"max_delay from 0 to 1 seconds, got .*; 0 has"):
        expect_delay(given)


def test_delays_that_make_sense() -> None:
    assert [expect_delay(each) for each in (0, 0.0003, 1)] == [0, 0.0003, 1]
