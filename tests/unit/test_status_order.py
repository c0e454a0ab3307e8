"""Statuses reach the wire in the order in which they were made, whichever thread sends them.

A report that is overtaken by a later one would take the slot back on servers up to 12.
"""

from __future__ import annotations

import threading
import time
from types import ModuleType
from typing import Any

from pgrepl.ownership import Owner
from pgrepl.session.positions import Positions
from pgrepl.session.session import Session
from pgrepl.transport.blocking.feedback import Feedback
from tests.support.simulated_server import Status, read_status

ROUNDS = 300


class SlowWire:
    """A transport some of whose callers are held up before their bytes are queued."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.sent: list[Status] = []
        self._calls = 0

    def send(self, data: bytes, deadline: Any) -> None:
        self._calls += 1
        if self._calls % 3 == 0:
            time.sleep(0.001)
        if data:
            self.sent.append(read_status(data))


class FullWire(SlowWire):
    """A transport that queues what it cannot send in the time it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: list[float | None] = []

    def send(self, data: bytes, deadline: Any) -> None:
        self.deadlines.append(deadline.timeout)
        super().send(data, deadline)
        raise TimeoutError


def session(codec: ModuleType) -> Session:
    now = time.monotonic()
    return Session(codec, Positions(), status_interval=3600, receive_timeout=None, now=now)


def test_no_status_overtakes_another(codec: ModuleType) -> None:
    state, wire = session(codec), SlowWire()
    feedback = Feedback(state, wire, "any", lambda *_: None)  # type: ignore[arg-type]
    lock = threading.Lock()

    def work() -> None:
        for _ in range(ROUNDS // 3):
            with lock:
                position = state.positions.received + 1
                state.positions.observe(position)
            feedback.acknowledge(position, position, True, True, True)
            feedback.send(final=True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        feedback.stop()
    assert len(wire.sent) >= ROUNDS
    reported = [status.flushed for status in wire.sent]
    assert reported == sorted(reported)
    assert reported[-1] == ROUNDS


def test_a_wire_that_is_full_is_waited_for_once(codec: ModuleType) -> None:
    state, wire = session(codec), FullWire()
    feedback = Feedback(state, wire, "any", lambda *_: None)  # type: ignore[arg-type]
    try:
        feedback.send(final=True, timeout=7.0)
    finally:
        feedback.stop()
    assert len(wire.sent) == 1
    assert wire.deadlines == [0.0, 7.0]
