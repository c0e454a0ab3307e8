"""A server that says nothing: when it is asked, and when it is given up."""

from __future__ import annotations

import math
from types import ModuleType

import pytest

from pgrepl.errors import ConnectionFailed
from tests.unit import test_session
from tests.unit.test_session import BEGIN, Harness

stream = test_session.stream


def test_silence_is_asked_about_at_half_and_fails_at_the_whole(stream: Harness) -> None:
    session = stream.session
    stream.waits()
    assert session.silent_at == BEGIN + 30
    stream.now += 29
    stream.sends()
    session.silence(stream.now)
    assert session.due_at > stream.now
    stream.now = session.silent_at
    session.silence(stream.now)
    assert session.due_at == -math.inf
    status = stream.sends()
    assert status is not None
    assert status.reply_requested
    stream.waits()  # as drivers do, again and again
    assert session.silent_at == BEGIN + 60
    stream.now += 29
    status = stream.sends()
    assert status is not None
    assert not status.reply_requested  # asked once
    session.silence(stream.now)
    stream.now += 1
    with pytest.raises(ConnectionFailed, match=r"within 60 s \(receive_timeout\)"):
        session.silence(stream.now)


def test_anything_that_comes_ends_a_silence(stream: Harness) -> None:
    session = stream.session
    for _ in range(3):
        stream.waits()
        stream.now = session.silent_at
        session.silence(stream.now)
        status = stream.sends()
        assert status is not None
        assert status.reply_requested
        stream.now += 29
        stream.gets(400)
        assert session.silent_at == stream.now + 30


def test_a_request_that_is_no_longer_needed_is_not_made(stream: Harness) -> None:
    stream.waits()
    stream.now = stream.session.silent_at
    stream.session.silence(stream.now)
    stream.gets(0)
    status = stream.sends()
    assert status is not None  # the interval is over
    assert not status.reply_requested


def test_only_who_waits_hears_silence(stream: Harness) -> None:
    session = stream.session
    stream.waits()
    session.wait_ends()
    stream.now += 1000
    session.silence(stream.now)
    stream.waits()
    # It begins with the wait: what came while nobody read was not looked at.
    assert session.silent_at == stream.now + 30
    stream.now += 29
    session.silence(stream.now)
    status = stream.sends()
    assert status is not None
    assert not status.reply_requested


def test_who_was_stopped_for_long_asks_before_it_gives_up(stream: Harness) -> None:
    stream.waits()
    stream.now += 1000
    stream.session.silence(stream.now)
    status = stream.sends()
    assert status is not None
    assert status.reply_requested
    assert stream.session.silent_at == stream.now + 30
    stream.gets(400)
    stream.waits()
    stream.session.silence(stream.now)


def test_without_a_receive_timeout_no_silence_is_too_long(codec: ModuleType) -> None:
    stream = Harness(codec, receive_timeout=None)
    stream.waits()
    assert stream.session.silent_at == math.inf
    stream.now += 1e9
    stream.session.silence(stream.now)
    status = stream.sends()
    assert status is not None
    assert not status.reply_requested
