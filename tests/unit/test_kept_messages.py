"""Messages, their integers and their views stay what they are, whatever is kept and let go.

The native twin uses a message again, and its integers, once nobody refers to them. So a loop that
keeps this and drops that, at random, must find everything that it kept as it was.
"""

from __future__ import annotations

import random
import struct
from types import ModuleType
from typing import Any

import pytest

HEADER = struct.Struct(">ciBQQq")


def batches(codec: ModuleType, headers: list[tuple[int, int, int]]) -> Any:
    """A reader's batches of XLogData with these headers, each with its own number as payload."""
    reader = codec.FrameReader(4096)
    for number, header in enumerate(headers):
        payload = str(number).encode()
        reader.feed(HEADER.pack(b"d", 29 + len(payload), ord("w"), *header) + payload)
        if number % 50 == 49:
            yield from iter(lambda: codec.next_batch(reader), None)
    yield from iter(lambda: codec.next_batch(reader), None)


def random_headers(count: int, seed: int) -> list[tuple[int, int, int]]:
    """Positions and times of every size in digits, small ones that Python shares among them."""
    chance = random.Random(seed)
    headers = []
    for _ in range(count):
        start = chance.getrandbits(chance.choice([1, 8, 10, 29, 31, 45, 60, 61, 64]))
        end = start if chance.random() < 0.7 else chance.getrandbits(chance.choice([9, 33, 64]))
        time = chance.getrandbits(chance.choice([5, 30, 50, 62])) * chance.choice([1, 1, -1])
        headers.append((start, end, time))
    return headers


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_kept_stays_as_it_was(codec: ModuleType, seed: int) -> None:
    headers = random_headers(1000, seed)
    chance = random.Random(seed)
    kept: list[tuple[Any, Any]] = []
    number = 0
    for batch in batches(codec, headers):
        for message in batch:
            start, end, time = headers[number]
            payload = str(number).encode()
            assert (message.wal_start, message.wal_end, message.server_time) == (start, end, time)
            assert bytes(message) == payload
            ways: list[tuple[Any, Any]] = [
                (message, codec.XLogData(start, end, time, payload)),
                (message.wal_start, start),
                (message.wal_end, end),
                (message.server_time, time),
                (message.data, payload),
            ]
            kept += chance.sample(ways, chance.choice([0, 0, 0, 1, 2, 5]))
            number += 1
    assert number == len(headers)
    for thing, expected in kept:
        assert thing == expected


def test_two_iterators_do_not_share_messages(codec: ModuleType) -> None:
    (batch,) = batches(codec, [(n, n, n) for n in range(10**6, 10**6 + 40)])
    for left, right in zip(batch, batch, strict=True):
        assert left == right
        assert left is not right


def test_shared_small_integers_keep_their_value(codec: ModuleType) -> None:
    headers = [(n % 2000, n % 2000, n % 2000) for n in range(4000)]
    for batch in batches(codec, headers):
        for _ in batch:
            pass
    assert [int(str(n)) for n in range(-5, 1100)] == list(range(-5, 1100))
