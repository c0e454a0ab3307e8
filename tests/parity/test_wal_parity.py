"""WAL on both twins: from the same bytes in the same pieces the same messages, at the same moment,
or the same fault. PGREPL_LONG=1 tries some thirty times as many streams."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.streams import cut, damaged, stream
from tests.parity.twins import ROUNDS, Fault, outcome, twins
from tests.support.feeding import fill

NATIVE, PURE = twins()


def described(batch: Any) -> tuple[Any, ...]:
    """All that a batch says, by each of the ways to ask it."""
    messages = [
        (
            type(message).__name__,
            repr(message),
            message.wal_end,
            message.server_time,
            bytes(message) if hasattr(message, "data") else message.reply_requested,
        )
        for message in batch
    ]
    columns = [
        (column.format, column.itemsize, column.tolist())
        for column in (batch.wal_start, batch.wal_end, batch.server_time)
    ]
    middle = len(batch) // 2
    return (
        messages,
        columns,
        repr(batch),
        batch.reply_requested,
        (batch.received(False), batch.received(True), batch.nbytes, batch.tail(middle).nbytes),
        repr(batch[-1]),
        [hash(message) for message in batch.tail(middle)],
        [bytes(message.data) for message in batch[middle:] if hasattr(message, "data")],
        [batch.payloads(*each) for each in ((), (b"\n",), (b"--", middle), (b"", -1))],
    )


def trace(twin: ModuleType, parts: list[bytes], chunk_size: int) -> Iterator[Any]:
    """What a stream's consumer sees after each part: batches, and one frame where none begins."""
    reader = twin.FrameReader(chunk_size)

    def step() -> Any:
        batch = twin.next_batch(reader)
        return described(batch) if batch is not None else reader.next_frame()

    for part in parts:
        fill(reader, part)
        while True:
            got = outcome(step)
            yield got, reader.pending
            if got is None or isinstance(got, Fault):
                break


@pytest.mark.timeout(3600)  # with PGREPL_LONG=1
def test_damaged_streams_in_any_pieces() -> None:
    faults = batches = 0
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        parts = cut(damaged(stream(rng), rng), rng)
        chunk_size = rng.choice((64, 100, 4096, 131072))
        native, pure = (list(trace(twin, parts, chunk_size)) for twin in (NATIVE, PURE))
        assert native == pure, f"seed {seed}"
        faults += isinstance(native[-1][0], Fault)
        batches += sum(isinstance(got, tuple) and len(got) == 9 for got, _ in native)
    assert 0.1 * ROUNDS < faults < 0.9 * ROUNDS
    assert batches > ROUNDS


VALUES = st.one_of(
    st.integers(-(2**65), 2**65),
    st.sampled_from([0, 1, -1, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64]),
    st.booleans(),
    st.floats(),
    st.none(),
    st.text(max_size=3),
)


def verdict(make: Any, *arguments: Any) -> Any:
    try:
        return repr(make(*arguments))
    except (TypeError, ValueError, OverflowError) as error:
        return type(error)


@given(
    positions=st.tuples(VALUES, VALUES, VALUES),
    time=VALUES,
    data=st.one_of(st.binary(max_size=3), VALUES),
    flag=VALUES,
)
@settings(deadline=None)
def test_the_constructors_agree_on_what_they_take(
    positions: tuple[Any, Any, Any], time: Any, data: Any, flag: Any
) -> None:
    first, second, third = positions
    for native, pure, arguments in (
        (NATIVE.XLogData, PURE.XLogData, (first, second, time, data)),
        (NATIVE.PrimaryKeepalive, PURE.PrimaryKeepalive, (first, time, flag)),
        (NATIVE.standby_status, PURE.standby_status, (first, second, third, time, flag)),
    ):
        assert verdict(native, *arguments) == verdict(pure, *arguments)


@pytest.mark.parametrize("name", ["XLogData", "PrimaryKeepalive", "WalBatch", "FrameReader"])
def test_the_twins_have_the_same_public_names(name: str) -> None:
    native, pure = (
        {each for each in dir(getattr(twin, name)) if not each.startswith("_")}
        for twin in (NATIVE, PURE)
    )
    if name == "FrameReader":
        pure -= {"join"}  # between the modules of the pure twin
        assert {"data", "start"}.isdisjoint(native)
    assert native == pure


def test_equal_messages_of_both_twins_hash_alike() -> None:
    fields = (2**64 - 1, 1, -1, b"payload")
    assert hash(NATIVE.XLogData(*fields)) == hash(PURE.XLogData(*fields))
    assert hash(NATIVE.PrimaryKeepalive(1, 2, True)) == hash(PURE.PrimaryKeepalive(1, 2, True))
