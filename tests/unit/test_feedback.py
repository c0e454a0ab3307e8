"""When statuses go out: what may not yet is not forgotten, and not every question is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

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


def test_many_acknowledgements_of_many_threads(codec: ModuleType) -> None:
    """None of them is forgotten, however few are worth a lock; and none is reported that was not
    made."""
    positions, wire = Positions(), Wire()
    positions.observe(10_000)
    session = Session(
        codec, positions, status_interval=3600, receive_timeout=None, now=time.monotonic()
    )
    feedback = Feedback(session, wire, "any", lambda *_: None)  # type: ignore[arg-type]

    def acknowledge(first: int) -> None:
        for position in range(first, 4001, 4):
            feedback.acknowledge(9000, position, True, True, True)

    threads = [threading.Thread(target=acknowledge, args=(first,)) for first in range(1, 5)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert positions.flushed == positions.safe == 4000
        deadline = time.monotonic() + PATIENCE
        while not wire.sent or flushed(wire.sent[-1]) != 4000:
            assert time.monotonic() < deadline, "the last one was never reported"
            time.sleep(0.001)
        assert len(wire.sent) < 400 and not positions.notes
        assert [flushed(each) for each in wire.sent] == sorted(map(flushed, wire.sent))
    finally:
        feedback.stop()


class WatchedLock:
    """A lock that knows which thread holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._holder = threading.get_ident()
        return taken

    def release(self) -> None:
        self._holder = None
        self._lock.release()

    @property
    def is_mine(self) -> bool:
        return self._holder == threading.get_ident()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Guarded:
    """A session that takes down how it was touched, and whether that was with the lock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.lock = WatchedLock()
        self.touched: set[str] = set()
        self.unlocked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        (self.touched if self.lock.is_mine else self.unlocked).add(name)
        return getattr(self._session, name)


USES: dict[str, Callable[[Feedback], object]] = {
    "acknowledge": lambda feedback: feedback.acknowledge(7, 7, True, True, True),
    "wait_begins": lambda feedback: feedback.wait_begins(7, True),
    "received": lambda feedback: feedback.received(Request()),  # type: ignore[arg-type]
    "wait_ends": lambda feedback: feedback.wait_ends(),
    "ask": lambda feedback: feedback.ask(),
    "silence": lambda feedback: feedback.silence(),
    "send": lambda feedback: feedback.send(final=True),
}


def test_the_session_is_touched_with_the_lock_alone(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever calls, and by the thread."""
    methods = {name for name in vars(Feedback) if not name.startswith("_")}
    assert methods - set(USES) == {"clock", "stop"}
    told = threading.Event()
    session = Session(
        codec, Positions(), status_interval=3600, receive_timeout=60, now=time.monotonic()
    )
    session.health_at = 0.0
    guarded = Guarded(session)
    fake = SimpleNamespace(**vars(threading) | {"Lock": lambda: guarded.lock})
    monkeypatch.setattr("pgrepl.transport.blocking.feedback.threading", fake)
    feedback = Feedback(guarded, Wire(), "any", lambda *_: told.set())  # type: ignore[arg-type]
    try:
        assert told.wait(PATIENCE)
        for use in USES.values():
            use(feedback)
    finally:
        feedback.stop()
    # These are for notes, which the one who sends takes in with the lock.
    assert guarded.unlocked == {"positions", "takes_notes"}
    assert guarded.touched >= {"wait_ends", "silent_at", "is_health_due", "due_at", "received"}


def test_what_has_come_ends_the_wait(codec: ModuleType) -> None:
    """So that what is acknowledged then may wait for more."""
    positions = Positions()
    session = Session(codec, positions, status_interval=3600, receive_timeout=60, now=0.0)
    session.wait_begins(100.0, idle=True)
    positions.observe(5)
    session.received(Request(), 100.0)  # type: ignore[arg-type]
    session.data_to_send(100.1, 0)
    session.delivered(5)
    session.acknowledge(5, 101.0, True, True, True)
    assert session.due_at > 101.0
