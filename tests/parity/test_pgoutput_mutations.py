"""The bytes of 500 messages changed, one at a time, where they came in their session: either both
twins give the same message, or both the same `DecodeError`, and nothing else.

Those that real servers were seen to send get every other byte at each place; mixtures of the same
kind every bit and many bytes. With PGREPL_LONG=1 all of it, 800000 inputs; otherwise a few
of them, drawn anew each time.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from types import ModuleType
from typing import Final, NamedTuple

import pytest

from tests.parity.test_pgoutput_parity import agreed, native
from tests.support.pgoutput_captured import CAPTURED
from tests.support.pgoutput_captured_streams import ON, PARALLEL
from tests.support.pgoutput_encoder import encode
from tests.support.pgoutput_server import Server
from tests.support.pgoutput_strategies import Dialect

__all__ = ["native"]

IS_LONG: Final = os.environ.get("PGREPL_LONG") == "1"
COUNT: Final = 500
DRAWN: Final = 3000
# Lengths and counts at their edges, and what stands for a kind of tuple, column or message.
BYTES: Final = (
    0,
    1,
    2,
    3,
    4,
    8,
    0x20,
    0x3F,
    0x40,
    0x7E,
    0x7F,
    0x80,
    0x81,
    0xFE,
    0xFF,
    *b"NKOnutbd",
)
# What a message may refer to.
DESCRIBES: Final = b"RY"
TURNS: Final = b"SEcAp"


class Place(NamedTuple):
    """A message, and what came before it that it may depend on."""

    dialect: Dialect
    before: tuple[bytes, ...]
    payload: bytes
    is_recorded: bool

    def others(self, at: int) -> tuple[int, ...]:
        """What may stand there instead, each once."""
        byte = self.payload[at]
        bits = (byte ^ 1 << bit for bit in range(8))
        values = dict.fromkeys(range(256) if self.is_recorded else (*bits, *BYTES))
        return tuple(value for value in values if value != byte)

    def mutant(self, at: int, value: int) -> bytes:
        """The message with another byte there."""
        return self.payload[:at] + bytes((value,)) + self.payload[at + 1 :]


RECORDED: Final = (
    (Dialect(1, "off"), CAPTURED),
    (Dialect(3, "on"), ON),
    (Dialect(4, "parallel"), PARALLEL),
)


def sessions() -> Iterator[tuple[Dialect, list[bytes], bool]]:
    for dialect, session in RECORDED:
        yield dialect, [bytes.fromhex(text) for text, _ in session], True
    for seed in itertools.count():
        messages = Server(seed).messages(20)
        yield Dialect(3, "on"), [encode(message) for message in messages], False


def places() -> Iterator[Place]:
    for dialect, payloads, is_recorded in sessions():
        before: list[bytes] = []
        for payload in payloads:
            yield Place(dialect, tuple(before), payload, is_recorded)
            if payload[0] in DESCRIBES + TURNS:
                before.append(payload)


PLACES: Final = tuple(itertools.islice(places(), COUNT))


def inputs() -> Iterator[tuple[Place, bytes]]:
    if IS_LONG:
        for place in PLACES:
            for at in range(len(place.payload)):
                yield from ((place, place.mutant(at, value)) for value in place.others(at))
        return
    for _ in range(DRAWN):
        place = random.choice(PLACES)
        at = random.randrange(len(place.payload))
        yield place, place.mutant(at, random.choice(place.others(at)))


def test_the_messages_are_right_where_they_stand(native: ModuleType) -> None:
    assert len(PLACES) == COUNT
    for place in PLACES:
        *_, last = agreed(native, place.dialect, [*place.before, place.payload])
        assert last.error is None, place


@pytest.mark.timeout(7200)  # with PGREPL_LONG=1
def test_every_bit_and_byte(native: ModuleType) -> None:
    tried = broken = 0
    for place, mutant in inputs():
        *_, last = agreed(native, place.dialect, [*place.before, mutant])
        tried += 1
        broken += last.error is not None
    print(f"{tried} mutants of {len(PLACES)} messages, {broken} of them broken")
    assert tried // 20 < broken < tried
    assert tried > (790_000 if IS_LONG else DRAWN - 1)
