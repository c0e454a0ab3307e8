"""Frames on both twins: from the same bytes in the same pieces the same frames, at the same moment,
or the same fault. PGREPL_LONG=1 tries some thirty times as many streams."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.streams import cut, damaged, stream
from tests.parity.twins import ROUNDS, Fault, outcome, twins
from tests.support.feeding import fill, pieces

NATIVE, PURE = twins()


def trace(reader: Any, parts: list[bytes], in_place: bool) -> Iterator[Any]:
    """What a reader gives after each part, and how much it then holds; it goes on after a fault."""
    for part in parts:
        if in_place:
            fill(reader, part)
        else:
            reader.feed(part)
        while True:
            got = outcome(reader.next_frame)
            yield got, reader.pending
            if got is None or isinstance(got, Fault):
                break


@pytest.mark.timeout(3600)  # with PGREPL_LONG=1
def test_damaged_streams_in_any_pieces() -> None:
    faults = frames = 0
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        parts = cut(damaged(stream(rng), rng), rng)
        chunk_size = rng.choice((64, 100, 4096, 131072))
        limit = rng.choice((100, 30000, 65536, 2**30 - 1))
        in_place = rng.random() < 0.5
        traces = []
        for twin in (NATIVE, PURE):
            reader = twin.FrameReader(chunk_size)
            reader.limit = limit
            traces.append(list(trace(reader, parts, in_place)))
        assert traces[0] == traces[1], f"seed {seed}"
        faults += isinstance(traces[0][-1][0], Fault)
        frames += sum(isinstance(got, tuple) and not isinstance(got, Fault) for got, _ in traces[0])
    # Else the damage is either none or total, and shows nothing.
    assert 0.1 * ROUNDS < faults < 0.9 * ROUNDS
    assert frames > 5 * ROUNDS


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.tuples(st.sampled_from(b"dDZEXk\0"), st.integers(-2, 60), st.binary(max_size=40))
        ).map(
            lambda each: b"".join(
                bytes((tag,)) + length.to_bytes(4, "big", signed=True) + body
                for tag, length, body in each
            )
        ),
    ),
    cuts=st.lists(st.integers(0, 400), max_size=10),
)
@settings(deadline=None)
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    parts = list(pieces(data, cuts))
    native, pure = (list(trace(twin.FrameReader(64), parts, True)) for twin in (NATIVE, PURE))
    assert native == pure
