"""XLogData and PrimaryKeepalive: values that are immutable, comparable and free of copies."""

from __future__ import annotations

import copy
import gc
import pickle
import struct
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl import Lsn
from tests.support import builders


def received(codec: ModuleType, body: bytes) -> Any:
    """The message of a CopyData body, from between two others."""
    other = builders.copy_data(builders.xlog_data(1, 1, 1, b"other"))
    reader = codec.FrameReader()
    reader.feed(other + builders.copy_data(body) + other)
    return codec.next_batch(reader)[1]


# XLogData


@pytest.fixture(params=["made", "received"])
def message(codec: ModuleType, request: pytest.FixtureRequest) -> Any:
    """An XLogData, made by its constructor or taken from a stream."""
    fields = (2**64 - 1, 7, -(2**63), b"\0payload")
    if request.param == "made":
        return codec.XLogData(*fields)
    return received(codec, builders.xlog_data(*fields))


def test_the_fields_of_an_xlogdata(codec: ModuleType, message: Any) -> None:
    assert (message.wal_start, message.wal_end, message.server_time) == (2**64 - 1, 7, -(2**63))
    assert type(message.wal_start) is type(message.server_time) is int
    assert (len(message), bytes(message)) == (8, b"\0payload")
    assert repr(message) == (
        "<XLogData wal_start=FFFFFFFF/FFFFFFFF wal_end=0/7 "
        "server_time=-9223372036854775808 8 bytes>"
    )
    for name in ("wal_start", "wal_end", "server_time", "data", "anything"):
        with pytest.raises(AttributeError):
            setattr(message, name, 1)


def test_the_payload_is_a_read_only_view(message: Any) -> None:
    view = message.data
    assert type(view) is memoryview
    assert (view.format, view.itemsize, view.ndim, view.shape) == ("B", 1, 1, (8,))
    assert view.readonly
    assert view.tobytes() == b"\0payload"
    with pytest.raises(TypeError):
        view[0] = 1
    with view[1:4] as part:
        assert bytes(part) == b"pay"
    view.release()
    assert bytes(message.data) == b"\0payload"  # each is a view of its own
    assert struct.unpack_from(">H", message.data, 1) == (0x7061,)


def test_an_xlogdata_exports_its_payload(codec: ModuleType, message: Any) -> None:
    if codec.__name__.endswith("_pure") and sys.version_info < (3, 12):
        with pytest.raises(TypeError):
            memoryview(message)
        return
    with memoryview(message) as view:
        assert (view.readonly, view.format, view.tobytes()) == (True, "B", b"\0payload")
    assert struct.unpack_from(">H", message, 1) == (0x7061,)
    assert b"".join([message]) == b"\0payload"
    assert bytearray(message) == b"\0payload"


def test_the_payload_outlives_everything_else(codec: ModuleType) -> None:
    view = received(codec, builders.xlog_data(1, 2, 3, b"payload")).data
    gc.collect()
    assert bytes(view) == b"payload"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ((-1, 0, 0, b""), OverflowError),
        ((0, -1, 0, b""), OverflowError),
        ((2**64, 0, 0, b""), OverflowError),
        ((0, 2**64, 0, b""), OverflowError),
        ((0, 0, 2**63, b""), OverflowError),
        ((0, 0, -(2**63) - 1, b""), OverflowError),
        ((1.0, 0, 0, b""), TypeError),
        ((0, "0", 0, b""), TypeError),
        ((0, 0, None, b""), TypeError),
        ((0, 0, 0, "text"), TypeError),
        ((0, 0, 0, 10), TypeError),
        ((0, 0, 0, None), TypeError),
        ((0, 0, 0), TypeError),
        ((0, 0, 0, b"", 0), TypeError),
    ],
)
def test_what_an_xlogdata_cannot_be_made_of(
    codec: ModuleType, fields: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        codec.XLogData(*fields)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_made_by_hand_keeps_a_copy(codec: ModuleType, kind: Any) -> None:
    source = bytearray(b"abc")
    made = codec.XLogData(wal_start=Lsn("0/1"), wal_end=2, server_time=3, data=kind(source))
    source[:] = b"xyz"
    assert (made.wal_start, made.wal_end, made.server_time) == (1, 2, 3)
    assert bytes(made) == b"abc"


def test_an_xlogdata_is_equal_to_one_with_the_same_fields(codec: ModuleType, message: Any) -> None:
    same = codec.XLogData(2**64 - 1, 7, -(2**63), b"\0payload")
    assert message == same
    assert hash(message) == hash(same)
    for other in (
        codec.XLogData(1, 7, -(2**63), b"\0payload"),
        codec.XLogData(2**64 - 1, 8, -(2**63), b"\0payload"),
        codec.XLogData(2**64 - 1, 7, 0, b"\0payload"),
        codec.XLogData(2**64 - 1, 7, -(2**63), b"\0payloaD"),
        codec.PrimaryKeepalive(7, 0, False),
        b"\0payload",
        None,
    ):
        assert message != other
    assert len({message, same}) == 1


def test_an_xlogdata_can_be_pickled_and_copied(codec: ModuleType, message: Any) -> None:
    pickles = [
        pickle.loads(pickle.dumps(message, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for twin in (*pickles, copy.copy(message), copy.deepcopy(message)):
        assert type(twin) is codec.XLogData
        assert twin == message


def test_messages_can_be_matched(codec: ModuleType, message: Any) -> None:
    match message:
        case codec.PrimaryKeepalive():
            raise AssertionError("it is an XLogData")
        case codec.XLogData(start, end, time, data):
            assert (start, end, time, bytes(data)) == (2**64 - 1, 7, -(2**63), b"\0payload")
    match codec.PrimaryKeepalive(5, 6, True):
        case codec.PrimaryKeepalive(end, time, reply_requested=True):
            assert (end, time) == (5, 6)
        case _:
            raise AssertionError("it asks for a reply")


# PrimaryKeepalive


def test_the_fields_of_a_keepalive(codec: ModuleType) -> None:
    sent = received(codec, builders.keepalive(8443003424, -5, True))
    made = codec.PrimaryKeepalive(8443003424, -5, True)
    for keepalive in (sent, made):
        assert (type(keepalive.wal_end), keepalive.wal_end) == (Lsn, 8443003424)
        assert keepalive.server_time == -5
        assert keepalive.reply_requested is True
        assert repr(keepalive) == (
            "<PrimaryKeepalive wal_end=1/F73E0220 server_time=-5 reply_requested=True>"
        )
        for name in ("wal_end", "server_time", "reply_requested", "anything"):
            with pytest.raises(AttributeError):
                setattr(keepalive, name, 1)
        for twin in (pickle.loads(pickle.dumps(keepalive)), copy.deepcopy(keepalive)):
            assert type(twin) is codec.PrimaryKeepalive
            assert twin == keepalive
    assert sent == made
    assert hash(sent) == hash(made)
    for other in (
        codec.PrimaryKeepalive(1, -5, True),
        codec.PrimaryKeepalive(8443003424, 5, True),
        codec.PrimaryKeepalive(8443003424, -5, False),
        None,
    ):
        assert made != other


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ((-1, 0, False), OverflowError),
        ((2**64, 0, False), OverflowError),
        ((0, 2**63, False), OverflowError),
        ((1.5, 0, False), TypeError),
        ((0, "0", False), TypeError),
        ((0, 0), TypeError),
    ],
)
def test_what_a_keepalive_cannot_be_made_of(
    codec: ModuleType, fields: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        codec.PrimaryKeepalive(*fields)


# Times


@given(st.integers(-63_082_281_600_000_000, 252_455_615_999_999_999))
def test_server_datetime_is_aware_and_exact(codec: ModuleType, time: int) -> None:
    expected = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    assert codec.XLogData(0, 0, time, b"").server_datetime == expected
    assert codec.PrimaryKeepalive(0, time, False).server_datetime == expected
    assert expected.utcoffset() == timedelta(0)


@pytest.mark.parametrize("time", [252_455_616_000_000_000, -63_082_281_600_000_001, 2**63 - 1])
def test_a_time_that_python_cannot_say(codec: ModuleType, time: int) -> None:
    for each in (codec.XLogData(0, 0, time, b""), codec.PrimaryKeepalive(0, time, False)):
        assert each.server_time == time
        with pytest.raises(OverflowError):
            _ = each.server_datetime
