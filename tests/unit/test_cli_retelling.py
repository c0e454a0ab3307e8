"""What a stream tells once, however often its connection is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import pgrepl
from pgrepl.cli.stream.formats import TextFormat
from pgrepl.cli.stream.retelling import Retelling
from pgrepl.codec import Row
from pgrepl.messages import (
    Begin,
    BeginPrepare,
    Column,
    Commit,
    Insert,
    LogicalMessage,
    Message,
    Prepare,
    Relation,
    StreamAbort,
)

T = Relation(7, "public", "t", "d", (Column("id", 23, -1, True),))


def begin(xid: int) -> tuple[LogicalMessage, int]:
    return Begin(pgrepl.Lsn(16 * xid), 0, xid), 0


def commit(xid: int) -> tuple[LogicalMessage, int]:
    return Commit(pgrepl.Lsn(16 * xid), pgrepl.Lsn(16 * xid + 8), 0), 16 * xid + 8


def insert(number: int) -> tuple[LogicalMessage, int]:
    return Insert(T, Row(T, (str(number),))), 0


RELATION: tuple[LogicalMessage, int] = (T, 0)
WHOLE = [begin(1), RELATION, insert(1), insert(2), insert(3), commit(1)]


def tell(retelling: Retelling, messages: Sequence[tuple[LogicalMessage, int]]) -> list[str]:
    """The first words and numbers of the lines that one connection brings."""
    retelling.begin()
    lines = [
        retelling.line(message, pgrepl.StreamEvent(message, 0, position))
        for message, position in messages
    ]
    return [line.split(" at ")[0].partition("public.t ")[2] or line[:6] for line in lines if line]


def retelling(**keywords: Any) -> Retelling:
    return Retelling(TextFormat(), **{"whole": True, **keywords})


TOLD = ["BEGIN ", "id=1", "id=2", "id=3", "COMMIT"]


@pytest.mark.parametrize("first", range(len(WHOLE) + 1))
@pytest.mark.parametrize("second", range(len(WHOLE) + 1))
def test_a_transaction_is_told_once(first: int, second: int) -> None:
    made = retelling()
    if first == len(WHOLE):
        # It is not sent again.
        assert tell(made, WHOLE) + tell(made, [begin(2), insert(4)]) == [*TOLD, "BEGIN ", "id=4"]
        return
    told = tell(made, WHOLE[:first]) + tell(made, WHOLE[:second])
    if second < len(WHOLE):
        told += tell(made, WHOLE)
    assert told == TOLD


def test_another_transaction_is_told_whole() -> None:
    made = retelling()
    tell(made, [begin(1), insert(1), insert(2)])
    other = [begin(2), insert(4), commit(2)]
    assert tell(made, other) == ["BEGIN ", "id=4", "COMMIT"]


def test_a_prepared_transaction_is_told_once() -> None:
    made = retelling()
    prepared = (pgrepl.Lsn(16), pgrepl.Lsn(24), 0, 7, "g")
    whole: list[tuple[LogicalMessage, int]] = [
        (BeginPrepare(*prepared), 0),
        insert(1),
        (Prepare(*prepared), 24),
    ]
    assert tell(made, whole[:2]) == ["BEGIN PREPARE 7 'g'"[:6], "id=1"]
    assert tell(made, whole) == ["PREPAR"]


def test_a_message_of_no_transaction_is_told_by_itself() -> None:
    made = retelling()
    message = Message(False, pgrepl.Lsn(16), "p", b"x"), 16
    assert tell(made, [message]) == tell(made, [message]) == ["MESSAG"]


def test_blocks_are_told_as_they_come() -> None:
    made = retelling(whole=False)
    assert tell(made, WHOLE[:3]) + tell(made, WHOLE[:3]) == ["BEGIN ", "id=1"] * 2
    assert tell(made, [(StreamAbort(1, 2), 0)]) == ["STREAM"]


def test_an_abort_of_what_never_came_is_not_told() -> None:
    assert tell(retelling(), [(StreamAbort(1, 2), 0)]) == []
