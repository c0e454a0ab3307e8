"""Ways to read a stream: which of them goes on from what another has left open, and which is
refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from pgrepl.errors import UsageError
from tests.hostile.decoded import decoded, leave, said, stream_of, until_hang_up
from tests.hostile.test_decoded_stream import ITEM, transaction
from tests.support.scripted import ScriptedServer

#: Begins to read in each way, and asks for what comes first; nothing waits for what does not come.
WAYS: Final[dict[str, Callable[[Any], object]]] = {
    "messages": lambda stream: next(iter(stream)),
    "events": lambda stream: stream.receive(timeout=0.01),
    "transactions": lambda stream: next(stream.transactions()),
    "whole": lambda stream: next(stream.transactions(whole=True)),
    "batches": lambda stream: next(stream.batches(max_rows=1)),
}


def leave_nothing(stream: Any) -> None:
    next(stream.transactions()).read()


def leave_unread(stream: Any) -> None:
    next(stream.transactions())


def leave_unwanted(stream: Any) -> None:
    next(stream.transactions()).skip()


def leave_batched(stream: Any) -> None:
    next(stream.batches(max_rows=1))


#: What is left open, and the ways that go on from there.
LEFT: Final[dict[str, tuple[Callable[[Any], None], set[str]]]] = {
    "nothing": (leave_nothing, set(WAYS) - {"events"}),
    "unread": (leave_unread, set()),
    "unwanted": (leave_unwanted, {"transactions", "whole", "batches"}),
    "batched": (leave_batched, {"batches"}),
}

TWO_EACH: Final = said(ITEM) + transaction(0x2000, 1, 2) + transaction(0x3000, 3, 4)


@pytest.mark.parametrize("left", LEFT)
def test_what_goes_on_from_what_was_left(connect: Callable[..., Any], left: str) -> None:
    prepare, expected = LEFT[left]
    gone_on = set()
    with ScriptedServer(*(decoded(TWO_EACH, until_hang_up) for _ in WAYS)) as server:
        for way, begin_to_read in WAYS.items():
            connection, stream = stream_of(connect, server)
            prepare(stream)
            try:
                begin_to_read(stream)
                gone_on.add(way)
            except UsageError as error:
                # What was received and not read is the nearer reason, where events are asked for.
                reason = "all that was received" if way == "events" else "left in the middle"
                assert reason in str(error)
            leave(connection, stream)
    assert gone_on == expected
