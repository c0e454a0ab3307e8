"""What may be reported to the server, and what its last words in a stream mean."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.errors import ConnectionFailed, ProtocolError, ServerError, ServerShutdown
from pgrepl.protocol.backend import ServerState
from pgrepl.session.positions import Positions, Report
from pgrepl.session.wal_stream import StreamState, WalStream
from tests.support import builders

# Reports


def test_nothing_was_received_so_nothing_can_be_reported() -> None:
    positions = Positions()
    assert positions.report(5, 5, 5) == Report(0, 0, 0)
    assert positions.received == 0


def test_a_report_never_exceeds_what_was_received() -> None:
    positions = Positions()
    positions.observe(100)
    assert positions.report(2**64 - 1, 101, 99) == Report(100, 100, 99)
    positions.observe(50)
    assert positions.received == 100
    assert positions.report(101, 101, 101) == Report(100, 100, 100)


def test_a_report_never_goes_back() -> None:
    positions = Positions()
    positions.observe(100)
    assert positions.report(80, 70, 60) == Report(80, 70, 60)
    assert positions.report(10, 90, 0) == Report(80, 90, 60)
    assert positions.report(-1, -1, -1) == Report(80, 90, 60)


STEPS = st.lists(
    st.tuples(
        st.booleans(), st.tuples(*[st.one_of(st.integers(0, 100), st.integers(-9, 2**65))] * 3)
    )
)


@given(STEPS)
def test_both_laws_hold_whatever_is_asked_for(
    steps: list[tuple[bool, tuple[int, int, int]]],
) -> None:
    positions = Positions()
    highest, before = 0, Report(0, 0, 0)
    for receives, asked in steps:
        if receives:
            positions.observe(asked[0])
            highest = max(highest, asked[0])
            continue
        report = positions.report(*asked)
        assert report == positions.last
        for each, earlier, wanted in zip(report, before, asked, strict=True):
            assert earlier <= each <= highest
            # Nothing is held back either: a law keeps it from what was asked for, or it is that.
            assert each == wanted or (wanted < earlier == each) or (wanted > highest == each)
        before = report


# Acknowledged positions


def observed(received: int, delivered: int = 0, settled: int = 0) -> Positions:
    """Positions of a stream that has received, delivered and settled this much."""
    positions = Positions()
    positions.observe(settled)
    positions.settle()
    positions.deliver(delivered)
    positions.observe(received)
    return positions


ALL = (True, True, True)


@pytest.mark.parametrize(
    ("delivered", "settled", "acknowledged", "expected"),
    [
        # Nothing is left to acknowledge: what was settled goes by itself.
        (0, 0, 0, 0),
        (0, 90, 0, 90),
        (50, 0, 50, 50),
        (50, 90, 50, 90),
        # Something is.
        (50, 90, 49, 49),
        (50, 90, 0, 0),
        # An acknowledgement counts up to what was delivered, or was settled.
        (50, 0, 51, 50),
        (50, 0, 2**63, 50),
        (50, 90, 2**63, 90),
        (95, 90, 2**63, 95),
        (50, 0, -1, 0),
    ],
)
def test_what_is_due_after_an_acknowledgement(
    delivered: int, settled: int, acknowledged: int, expected: int
) -> None:
    positions = observed(100, delivered, settled)
    positions.acknowledge(acknowledged, *ALL)
    assert positions.peek() == Report(expected, expected, expected)
    assert positions.last == Report(0, 0, 0)
    assert positions.due() == positions.last == Report(expected, expected, expected)


def test_an_acknowledgement_says_whether_it_is_news() -> None:
    positions = observed(100, delivered=50)
    assert positions.acknowledge(40, *ALL)
    assert not positions.acknowledge(40, *ALL)
    assert not positions.acknowledge(30, *ALL)
    assert not positions.acknowledge(50, False, False, False)
    assert positions.acknowledge(50, False, False, True)
    assert positions.acknowledged == Report(40, 40, 50)
    assert not positions.acknowledge(60, False, False, True)
    assert positions.acknowledged == Report(40, 40, 50)


def test_delivered_and_received_positions_only_grow() -> None:
    positions = observed(100, delivered=50)
    positions.observe(90)
    positions.deliver(40)
    assert (positions.received, positions.delivered) == (100, 50)


def test_each_position_settles_when_nothing_is_left_for_it() -> None:
    positions = observed(100, delivered=50, settled=90)
    positions.acknowledge(50, True, False, False)
    positions.acknowledge(30, False, True, False)
    assert positions.due() == Report(90, 30, 0)


def test_what_comes_later_is_not_settled() -> None:
    positions = observed(100, settled=100)
    assert positions.due() == Report(100, 100, 100)
    positions.observe(200)
    assert positions.peek() == Report(100, 100, 100)
    positions.settle()
    assert positions.peek() == Report(200, 200, 200)
    # A transaction that was delivered in the meantime takes nothing back.
    positions.deliver(190)
    positions.due()
    assert positions.last == Report(100, 100, 100)


def test_the_application_keeps_positions_of_its_own() -> None:
    positions = observed(100, delivered=50, settled=90)
    positions.automatic = False
    assert positions.safe == 0
    positions.acknowledge(20, *ALL)
    assert (positions.safe, positions.due()) == (20, Report(20, 20, 20))
    positions.acknowledge(50, True, False, True)
    assert (positions.safe, positions.due()) == (20, Report(50, 20, 50))
    positions.acknowledge(50, *ALL)
    assert (positions.safe, positions.due()) == (90, Report(50, 50, 50))
    positions.acknowledge(90, *ALL)
    assert (positions.safe, positions.due()) == (90, Report(90, 90, 90))


# What a stream brings


def stream(codec: ModuleType, physical: bool = False) -> tuple[WalStream, Any, ServerState]:
    state = ServerState()
    return WalStream(codec, state, physical), codec.FrameReader(), state


def data(position: int, size: int = 10) -> bytes:
    return builders.copy_data(builders.xlog_data(position, position, 0, bytes(size)))


def test_what_was_received_is_observed_batch_by_batch(codec: ModuleType) -> None:
    for physical, expected in ((False, 500), (True, 510)):
        logical, reader, _ = stream(codec, physical)
        reader.feed(data(400) + data(500) + builders.copy_data(builders.keepalive(450)))
        assert len(logical.next_batch(reader) or ()) == 3
        assert logical.positions.received == expected
        reader.feed(builders.copy_data(builders.keepalive(600)))
        logical.next_batch(reader)
        assert logical.positions.received == 600
        assert logical.next_batch(reader) is None
        assert logical.state is StreamState.STREAMING


def test_what_may_come_at_any_time_is_taken_in_between(
    codec: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    wal, reader, state = stream(codec)
    reader.feed(
        data(1)
        + builders.notice_response("publication is missing", severity="WARNING", sqlstate="01000")
        + builders.parameter_status("TimeZone", "UTC")
        + builders.notification_response("channel", "payload")
        + data(2)
    )
    with caplog.at_level(logging.DEBUG, "pgrepl"):
        assert wal.next_batch(reader).wal_start.tolist() == [1]
        assert wal.next_batch(reader).wal_start.tolist() == [2]
    assert state.parameters == {"TimeZone": "UTC"}
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "WARNING 01000: 'publication is missing'")
    ]


@pytest.mark.parametrize("behind", [b"", data(5), builders.copy_data(builders.keepalive(9))])
def test_copy_done_ends_a_stream(codec: ModuleType, behind: bytes) -> None:
    wal, reader, _ = stream(codec)
    reader.feed(data(1) + builders.copy_done() + behind)
    assert len(wal.next_batch(reader) or ()) == 1
    for _ in range(2):
        ended = wal.next_batch(reader)
        assert isinstance(ended, codec.WalBatch)
        assert len(ended) == 0
    assert wal.state is StreamState.ENDED
    assert wal.positions.received == 1  # what comes behind is not the stream's


def test_a_result_without_copy_done_ends_a_stream_with_ready_for_query(codec: ModuleType) -> None:
    wal, reader, _ = stream(codec)
    reader.feed(builders.command_complete("COPY 0"))
    assert (wal.next_batch(reader), wal.state) == (None, StreamState.ENDING)
    reader.feed(builders.command_complete("START_REPLICATION") + builders.ready_for_query())
    assert len(wal.next_batch(reader) or ()) == 0
    assert wal.state is StreamState.ENDED
    with pytest.raises(StopIteration) as end:
        next(wal.stop())
    assert [result.tag for result in end.value.value] == ["COPY 0", "START_REPLICATION"]


def test_a_result_and_the_end_of_the_connection_is_a_shutdown(codec: ModuleType) -> None:
    wal, reader, _ = stream(codec)
    lost = ConnectionFailed("the server closed the connection")
    assert wal.connection_lost(lost) is lost
    reader.feed(builders.command_complete("COPY 0"))
    assert wal.next_batch(reader) is None
    shutdown = wal.connection_lost(lost)
    assert isinstance(shutdown, ServerShutdown)
    assert shutdown.sqlstate == "57P01"
    assert "'COPY 0'" in str(shutdown)
    assert wal.state is StreamState.FAILED


def test_an_error_ends_a_stream_at_once(codec: ModuleType) -> None:
    wal, reader, _ = stream(codec)
    reader.feed(data(1) + builders.error_response("canceled", sqlstate="57014"))
    wal.next_batch(reader)
    with pytest.raises(ServerError, match="ERROR 57014: canceled"):
        wal.next_batch(reader)
    assert wal.state is StreamState.FAILED
    assert len(wal.next_batch(reader) or ()) == 0


@pytest.mark.parametrize(
    "frame",
    [
        builders.ready_for_query(),
        builders.row_description("a"),
        builders.data_row("1"),
        builders.copy_both_response(),
        builders.copy_in_response(),
        builders.authentication(0),
        builders.backend_key_data(),
        builders.message(b"c", b"x"),
    ],
    ids=lambda frame: repr(frame[:1]),
)
def test_what_has_no_place_in_a_stream(codec: ModuleType, frame: bytes) -> None:
    wal, reader, _ = stream(codec)
    reader.feed(frame)
    with pytest.raises(ProtocolError, match="expected .*, got .*") as caught:
        wal.next_batch(reader)
    assert caught.value.tag == frame[:1]


def test_data_after_a_result_has_no_place_either(codec: ModuleType) -> None:
    wal, reader, _ = stream(codec)
    reader.feed(builders.command_complete("COPY 0") + data(1))
    with pytest.raises(ProtocolError, match="the answer to a query, got message b'd'"):
        wal.next_batch(reader)
