"""Streams as a server sends them, and what random damage makes of them. All of it follows from a
`random.Random`, so that a seed says everything about a failure."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.support import builders

# Lengths on which a careless reader stumbles.
_LENGTHS = (-(2**31), -1, 0, 1, 3, 4, 5, 22, 29, 30, 30000, 30001, 2**30 - 1, 2**30, 2**31 - 1)
_TAGS = b"dDTENAVRKSZCcWHGIv123nstwk\0\xffQX"


def stream(rng: random.Random) -> bytes:
    """A piece of a session: a handshake, answers to queries, or a stream with all that happens."""
    return rng.choice((_handshake, _answers, _replication, _replication, _replication))(rng)


def _handshake(rng: random.Random) -> bytes:
    return b"".join(
        [
            builders.sasl_mechanisms("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"),
            builders.authentication(11, rng.randbytes(84)),
            builders.authentication(12, rng.randbytes(46)),
            builders.authentication(0),
            *(builders.parameter_status(name, "on") for name in ("in_hot_standby", "TimeZone")),
            builders.backend_key_data(),
            builders.notice_response("mind the gap", hint="jump"),
            builders.ready_for_query(),
        ]
    )


def _answers(rng: random.Random) -> bytes:
    answers = []
    for _ in range(rng.randrange(4)):
        columns = [f"column{i}" for i in range(rng.randrange(5))]
        rows = [[rng.choice((None, "", "x" * rng.randrange(200)))] * len(columns)] * rng.randrange(
            4
        )
        answers += [builders.row_description(*columns), *(builders.data_row(*r) for r in rows)]
        answers.append(builders.command_complete(f"SELECT {len(rows)}"))
    ends = (builders.empty_query_response(), builders.error_response("no", sqlstate="42601"))
    return b"".join([*answers, rng.choice(ends), builders.ready_for_query()])


def _replication(rng: random.Random) -> bytes:
    position = rng.choice((0, rng.randrange(2**40), rng.randrange(2**64 - 2**20)))
    messages = [builders.copy_both_response()] * rng.randrange(2)
    for _ in range(rng.randrange(1, 25)):
        position += rng.randrange(300)
        chance = rng.random()
        if chance < 0.7:
            payload = rng.randbytes(rng.choice((0, 1, 20, 150, 155, 160, 700)))
            end = rng.choice((position, position + 4711, 0))
            body = builders.xlog_data(position, end, rng.randrange(2**50), payload)
            messages.append(builders.copy_data(body))
        elif chance < 0.95:
            body = builders.keepalive(position, rng.randrange(2**50), rng.random() < 0.3)
            messages.append(builders.copy_data(body))
        else:
            messages.append(builders.notice_response("skipped loading publication"))
    ends = (
        b"",
        builders.copy_done() + builders.command_complete("COPY 0") + builders.ready_for_query(),
        builders.command_complete("COPY 0"),
        builders.error_response("canceled", sqlstate="57014") + builders.ready_for_query(),
    )
    return b"".join(messages) + rng.choice(ends)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` with no, one or a few things wrong."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        if changed:
            rng.choice(_DAMAGES)(changed, rng)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """`data` in the pieces that reads may bring: few, many, or a byte at a time."""
    if data and rng.random() < 0.03:
        return [bytes((byte,)) for byte in data]
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 2, 5, 20))))
    return [data[i:j] for i, j in zip([0, *places], [*places, len(data)], strict=True)]


def _change_byte(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 4, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _flip_bit(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _change_length(data: bytearray, rng: random.Random) -> None:
    at = rng.choice(_frame_starts(data))
    data[at + 1 : at + 5] = struct.pack("!i", rng.choice(_LENGTHS))


def _nudge_length(data: bytearray, rng: random.Random) -> None:
    at = rng.choice(_frame_starts(data))
    if len(data) >= at + 5:
        (length,) = struct.unpack_from("!i", data, at + 1)
        near = min(max(length + rng.choice((-2, -1, 1, 2)), -(2**31)), 2**31 - 1)
        struct.pack_into("!i", data, at + 1, near)


def _change_tag(data: bytearray, rng: random.Random) -> None:
    data[rng.choice(_frame_starts(data))] = rng.choice(_TAGS)


def _change_kind(data: bytearray, rng: random.Random) -> None:
    at = rng.choice(_frame_starts(data)) + 5
    if at < len(data):
        data[at] = rng.choice(_TAGS)


def _leave_out(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 5, 30))]


def _slip_in(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 5, 30)))


def _repeat(data: bytearray, rng: random.Random) -> None:
    starts = [*_frame_starts(data), len(data)]
    first, last = sorted(rng.choices(starts, k=2))
    data[last:last] = data[first:last]


def _cut_off(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


_DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _change_byte,
    _flip_bit,
    _change_length,
    _nudge_length,
    _change_tag,
    _change_kind,
    _leave_out,
    _slip_in,
    _repeat,
    _cut_off,
)


def _frame_starts(data: bytearray) -> list[int]:
    """Where frames begin, as far as the lengths make sense."""
    starts, at = [0], 0
    while at + 5 <= len(data):
        (length,) = struct.unpack_from("!i", data, at + 1)
        if not 4 <= length < len(data) - at:
            break
        at += 1 + length
        starts.append(at)
    return [start for start in starts if start < len(data)]
