"""When statuses go out: what may not yet is not forgotten, and not every question is answered."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

from pgrepl.ownership import Owner
from pgrepl.session.positions import Positions
from pgrepl.session.session import Session
from pgrepl.transport.blocking.feedback import Feedback

PATIENCE = 20


class Request:
    """A batch, as far as `Session` looks at it: the server wants an answer."""

    reply_requested = True
    nbytes = 23


def test_question_after_question(codec: ModuleType) -> None:
    """As a server asks that shuts down and waits for an acknowledgement."""
    now, answers, asked, positions = 100.0, 0, 0, Positions()
    session = Session(codec, positions, status_interval=10, receive_timeout=60, now=0.0)
    session.wait_begins(now, idle=True)
    while now < 101.0:
        asked += 1
        session.received(Request(), now)  # type: ignore[arg-type]
        while session.data_to_send(now, 0) is None:
            now = min(session.due_at, session.silent_at)
        answers += 1
        now += 0.0001
    assert asked == answers < 50
    # The first one was answered at once, and so is one that finds something new.
    assert answers > 10
    positions.observe(5)
    session.received(Request(), now)  # type: ignore[arg-type]
    session.wait_begins(now, idle=True)
    assert session.due_at < now + 0.01


class Wire:
    """What a transport is to `Feedback`: it takes bytes."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.sent: list[bytes] = []

    def send(self, data: bytes, deadline: Any) -> None:
        self.sent.append(data)


def flushed(status: bytes) -> int:
    """The second position of a status, behind a frame's header, 'r' and the first one."""
    return int.from_bytes(status[14:22], "big")


def test_reports_too_close_to_one_another(codec: ModuleType) -> None:
    positions, wire = Positions(), Wire()
    session = Session(
        codec, positions, status_interval=3600, receive_timeout=None, now=time.monotonic()
    )
    feedback = Feedback(session, wire, "any", lambda *_: None)  # type: ignore[arg-type]
    try:
        for position in range(1, 501):
            positions.observe(position)
            feedback.wait_begins(0, idle=True)
            feedback.wait_ends()
        deadline = time.monotonic() + PATIENCE
        while not wire.sent or flushed(wire.sent[-1]) != 500:
            assert time.monotonic() < deadline, "the last position was never reported"
            time.sleep(0.001)
        assert len(wire.sent) < 500, "none of them were too close"
    finally:
        feedback.stop()
