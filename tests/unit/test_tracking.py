"""What rows bring by the million is nothing for Python's garbage collector, and goes without it.

Only the native twin can hide what it makes.
"""

from __future__ import annotations

import gc
import sys
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from pgrepl.codec import Row
from pgrepl.lsn import Lsn
from pgrepl.messages import Column, Commit, Delete, Insert, Message, Relation, Update
from tests.support.pgoutput_encoder import encode

ITEM = Relation(16389, "public", "item", "d", (Column("id", 2950, -1, True),))
KEY = "6ecd8c99-4036-403d-bf84-cf8400f67836"


def row() -> Row:
    return Row(ITEM, (KEY,))


MESSAGES = (
    Insert(ITEM, row()),
    Update(ITEM, None, row(), row()),
    Delete(ITEM, None, row()),
    Message(True, Lsn(1), "prefix", b"content"),
    Commit(Lsn(1), Lsn(2), 3),
)


@pytest.fixture
def decoder(codec: ModuleType) -> Any:
    if not codec.__name__.endswith("_native"):
        pytest.skip("the pure twin makes objects as Python does")
    made = codec.Decoder(1)
    made.feed(encode(ITEM))
    return made


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_the_collector_does_not_see_it(decoder: Any, message: Any) -> None:
    made = decoder.feed(encode(message))
    assert type(made) is type(message)
    assert not gc.is_tracked(made)


def test_nor_its_values(decoder: Any) -> None:
    value = decoder.feed(encode(MESSAGES[0])).new["id"]
    assert value == UUID(KEY)
    assert type(value) is UUID
    assert not gc.is_tracked(value)


def test_it_lets_go_of_everything(decoder: Any) -> None:
    kept = decoder.feed(encode(MESSAGES[1]))
    found = []
    for _ in range(2):
        others = [decoder.feed(encode(MESSAGES[1])) for _ in range(100)]
        found.append(sys.getrefcount(kept.relation))
        del others
        found.append(sys.getrefcount(kept.relation))
    full, empty, full_again, empty_again = found
    assert (full, empty) == (full_again, empty_again) == (empty + 100, empty)
