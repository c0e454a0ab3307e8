"""Streamed transactions on both twins: whatever comes, and however it is kept meanwhile, the same
transactions or the same error."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgrepl.codec.spool
from pgrepl.codec import _pure
from pgrepl.codec.spool import Spool
from pgrepl.errors import ProtocolError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    LogicalMessage,
    Message,
    Origin,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
)
from tests.parity.twins import exact, twins
from tests.support.feeding import read
from tests.support.pgoutput_encoder import encode
from tests.support.pgoutput_server import Server
from tests.support.spooling import (
    END,
    ITEM,
    LSN,
    SUBXID,
    TIME,
    WIDE,
    XID,
    batch_of,
    described,
    insert,
    read_transactions,
)

BLOCK: tuple[LogicalMessage, ...] = (
    StreamStart(XID, True),
    Origin(Lsn(0), "elsewhere"),
    Type(99, "s", "mood", XID),
    described(ITEM, XID),
    described(WIDE, SUBXID),
    insert(ITEM, 1, XID),
    insert(WIDE, 2, SUBXID),
    Truncate((ITEM, WIDE), True, False, XID),
    Message(True, LSN, "prefix", b"content", XID),
    Message(False, LSN, "prefix", b"content", XID),
    StreamStop(),
    StreamAbort(XID, SUBXID),
    StreamCommit(XID, LSN, END, TIME),
)


@pytest.fixture(scope="module")
def native() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgrepl.codec.spool, "LEAST_LIMIT", 0)
        yield twins()[0]


def outcomes(
    codec: ModuleType, payloads: Sequence[bytes], limit: int, cut: int, typed: bool = False
) -> list[Any]:
    """What comes of these payloads, in batches of `cut`: transactions, then an error perhaps."""
    spool = Spool(limit)
    decoder = codec.Decoder(3, "on", typed=typed, ordered=True)
    found: list[Any] = []
    batches = (
        batch_of(codec, payloads[at : at + cut], at + 1) for at in range(0, len(payloads), cut)
    )
    try:
        for made, changes in read_transactions(decoder, spool, batches):
            values = [exact(read(change)) for change in changes]
            found.append((repr(made), exact(made.origin), made.end_lsn, values, decoder.delivered))
    except ProtocolError as error:
        position = getattr(error, "lsn", None)
        found.append((type(error), str(error), error.tag, error.offset, position))
    found.append((decoder.delivered, decoder.is_between, decoder.totals, len(spool)))
    spool.close()
    return found


def agreed(native: ModuleType, payloads: Sequence[bytes], limit: int, cut: int) -> list[Any]:
    found = outcomes(native, payloads, limit, cut)
    assert found == outcomes(_pure, payloads, limit, cut)
    return found


LIMITS = st.sampled_from([1, 300, 1 << 20])
CUTS = st.sampled_from([1, 2, 7, 1000])


@given(seed=st.integers(0, 2**64 - 1), limit=LIMITS, cut=CUTS)
def test_what_a_server_sends(native: ModuleType, seed: int, limit: int, cut: int) -> None:
    payloads = [encode(message) for message in Server(seed).messages(50)]
    found = agreed(native, payloads, limit, cut)
    assert not any(isinstance(each[0], type) for each in found)


def with_types(messages: Iterable[LogicalMessage], chance: random.Random) -> Iterator[bytes]:
    """Describe a type before each relation, often as it was before, and let a column have it."""
    for message in messages:
        if isinstance(message, Relation):
            yield encode(Type(99, "s", chance.choice(("mood", "mood", "temper")), message.xid))
            first, *others = message.columns
            message = replace(message, columns=(replace(first, type_oid=99), *others))
        yield encode(message)


@given(seed=st.integers(0, 2**64 - 1), limit=LIMITS, cut=CUTS)
def test_what_a_server_says_of_types(native: ModuleType, seed: int, limit: int, cut: int) -> None:
    payloads = [*with_types(Server(seed).messages(50), random.Random(seed))]
    found = outcomes(native, payloads, limit, cut, typed=True)
    assert found == outcomes(_pure, payloads, limit, cut, typed=True)
    assert not any(isinstance(each[0], type) for each in found)


@given(
    seed=st.integers(0, 2**64 - 1),
    chance=st.randoms(use_true_random=False),
    limit=LIMITS,
    cut=CUTS,
)
def test_in_any_order(
    native: ModuleType, seed: int, chance: random.Random, limit: int, cut: int
) -> None:
    # What a server sends, and now and then something left out, moved or with another xid.
    payloads = [encode(message) for message in (*BLOCK, *Server(seed).messages(40))]
    for _ in range(chance.randint(1, 3)):
        payloads.insert(chance.randint(0, len(payloads)), chance.choice(payloads))
        del payloads[chance.randrange(len(payloads))]
    agreed(native, payloads, limit, cut)


def test_each_message_with_any_one_bit_flipped(native: ModuleType) -> None:
    payloads = [encode(message) for message in BLOCK]
    faulty = 0
    for place, payload in enumerate(payloads):
        for bit in range(len(payload) * 8):
            mutant = bytearray(payload)
            mutant[bit // 8] ^= 1 << bit % 8
            changed = [*payloads[:place], bytes(mutant), *payloads[place + 1 :]]
            found = agreed(native, changed, 1 if bit % 2 else 1 << 20, 1000)
            faulty += any(isinstance(each[0], type) for each in found)
    assert 0 < faulty < sum(map(len, payloads)) * 8


def test_each_message_cut_short_anywhere(native: ModuleType) -> None:
    payloads = [encode(message) for message in BLOCK]
    for place, payload in enumerate(payloads):
        for size in range(len(payload)):
            cut = [*payloads[:place], payload[:size], *payloads[place + 1 :]]
            found = agreed(native, cut, 1 << 20, 1000)
            assert isinstance(found[-2][0], type)
