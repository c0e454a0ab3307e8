"""What a stream says of itself: its stats, and what it logs, in both flavours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import pgrepl.session.session
from pgrepl import Lsn, Stats
from pgrepl.aio.connection import connect as connect_async
from pgrepl.errors import DecodeError
from tests.hostile.decoded import decoded, leave, said, stream_of, until_hang_up
from tests.hostile.sessions import PATIENCE, address, data, keepalive
from tests.hostile.test_decoded_stream import ITEM, begin, transaction
from tests.support.scripted import ScriptedServer

Connect = Callable[..., Any]

#: What IDENTIFY_SYSTEM of the scripted server says, and where its slot stands.
XLOGPOS, START = 0xFFFFFF, 0x1000
#: The commits of the scripted server are that long ago, and more: see TIME of `transaction`.
LONG_AGO = 365 * 24 * 3600.0


def test_what_came_and_what_is_behind(connect: Connect) -> None:
    sent = said(ITEM) + transaction(0x2000, 1) + keepalive(0x2800) + transaction(0x3000, 2)
    with ScriptedServer(decoded(sent, until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        first = stream.stats()
        assert first == Stats(
            *(Lsn(0),) * 5,
            statuses=0,
            server_end=Lsn(XLOGPOS),
            lag_bytes=XLOGPOS - START,
            lag_seconds=None,
            transactions=0,
            changes=0,
            nbytes=0,
            last_message_at=None,
        )
        transactions = stream.transactions()
        assert len(list(next(transactions))) == 1
        stats = stream.stats()
        assert (stats.transactions, stats.changes, stats.delivered) == (1, 1, 0x2010)
        assert stats.lag_seconds is not None and stats.lag_seconds > LONG_AGO
        given = next(transactions)
        assert stream.stats().transactions == 1
        assert len(list(given)) == 1
        stats = stream.stats()
        assert (stats.transactions, stats.changes, stats.nbytes) == (2, 2, len(sent))
        assert stats.last_message_at is not None
        assert abs(datetime.now(UTC) - stats.last_message_at) < timedelta(seconds=PATIENCE)
        leave(connection, stream)


def test_nothing_is_behind_once_all_is_acknowledged(connect: Connect) -> None:
    # It ends 16 behind its commit, where the server's WAL ended.
    sent = said(ITEM) + transaction(XLOGPOS - 16, 1)
    with ScriptedServer(decoded(sent, until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        given = next(stream.transactions())
        list(given)
        stats = stream.stats()
        assert (stats.server_end, stats.received) == (XLOGPOS, XLOGPOS)
        assert stats.lag_seconds is not None and stats.lag_seconds > LONG_AGO
        stream.ack(given)
        assert stream.stats().lag_seconds == 0.0
        while lag := stream.stats().lag_bytes:
            assert lag == XLOGPOS - START
        assert stream.stats().flushed == XLOGPOS
        leave(connection, stream)


def test_a_raw_stream_knows_of_no_transactions(connect: Connect) -> None:
    sent = data(0x2000, b"one") + keepalive(XLOGPOS + 0x10)
    with ScriptedServer(decoded(sent, until_hang_up)) as server:
        connection = connect(**address(server))
        stream = connection.stream_raw("s")
        while stream.stats().nbytes < len(sent):
            stream.receive(timeout=PATIENCE)
        stats = stream.stats()
        assert (stats.transactions, stats.changes, stats.lag_seconds) == (None, None, None)
        assert (stats.server_end, stats.lag_bytes) == (XLOGPOS + 0x10, XLOGPOS + 0x10 - START)
        stream.ack(XLOGPOS + 0x10)
        assert stream.stats().lag_seconds == 0.0
        assert "transactions" not in str(stats) and "flushed 0/0 of 0/100000F" in str(stats)
        leave(connection, stream)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "pgrepl.stream"
    ]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Everything is logged, and how a stream is as soon as it begins."""
    monkeypatch.setattr(pgrepl.session.session, "_HEALTH_INTERVAL", 0.01)
    caplog.set_level(logging.DEBUG, "pgrepl.stream")
    return caplog


def expect_beginning_and_health(told: list[tuple[int, str]], port: int) -> None:
    level, beginning = told[0]
    assert level == logging.INFO
    assert "slot 's': the stream begins at 0/1000, publications 'p'; server " in beginning
    assert str(port) in beginning and "secret" not in beginning
    level, health = told[1]
    assert level == logging.DEBUG
    assert health.startswith("slot 's': received 0/")
    assert " of 0/FFFFFF (lag " in health and " changes; " in health


def test_the_log_tells_beginning_health_and_end(connect: Connect, logged: Any) -> None:
    with ScriptedServer(decoded(transaction(0x2000), until_hang_up)) as server:
        connection, stream = stream_of(connect, server, status_interval=0.01)
        while len(lines(logged)) < 2:
            pass
        stream.stop(timeout=0.2)
        assert connection.closed
    told = lines(logged)
    expect_beginning_and_health(told, server.port)
    assert [level for level, _ in told[1:]] == [*[logging.DEBUG] * (len(told) - 2), logging.INFO]
    assert "the stream ends: it was stopped, and the connection was closed; received" in told[-1][1]


def test_the_log_tells_what_ended_a_stream_and_no_row(connect: Connect, logged: Any) -> None:
    secret = b"I\0\0\0\1N\0\1tsecret"
    with ScriptedServer(decoded(said(begin(0x2000)) + data(0x2000, secret), until_hang_up)) as at:
        connection, stream = stream_of(connect, at)
        with pytest.raises(DecodeError):
            list(stream)
        stream.stop()
        assert connection.closed
    ends = [text for level, text in lines(logged)[1:] if level == logging.INFO]
    assert len(ends) == 1
    assert "the stream ends: DecodeError; received" in ends[0]
    assert "secret" not in logged.text


def test_nothing_is_told_where_nobody_listens(connect: Connect, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "pgrepl.stream")
    with ScriptedServer(decoded(transaction(0x2000), until_hang_up)) as server:
        connection, stream = stream_of(connect, server)
        leave(connection, stream)
    assert lines(caplog) == []


def test_asyncio_says_the_same(logged: Any) -> None:
    sent = said(ITEM) + transaction(0x2000, 1) + keepalive(0x2800)

    async def body(server: ScriptedServer) -> None:
        async with (
            connect_async(**address(server)) as connection,
            connection.stream("s", publications=["p"], status_interval=0.01) as stream,
        ):
            given = await anext(stream.transactions())
            assert len([change async for change in given]) == 1
            while len(lines(logged)) < 2 or stream.stats().nbytes < len(sent):
                # It waits in between, so that what comes behind the transaction is taken in.
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await anext(stream.transactions())
            stats = stream.stats()
            assert (stats.transactions, stats.changes, stats.server_end) == (1, 1, XLOGPOS)
            assert stats.lag_seconds is not None and stats.lag_seconds > LONG_AGO
            assert stats.last_message_at is not None
            assert abs(datetime.now(UTC) - stats.last_message_at) < timedelta(seconds=PATIENCE)
            await stream.stop(timeout=0.2)

    with ScriptedServer(decoded(sent, until_hang_up)) as server:
        asyncio.run(body(server))
    told = lines(logged)
    expect_beginning_and_health(told, server.port)
    assert "the stream ends: it was stopped, and the connection was closed" in told[-1][1]
