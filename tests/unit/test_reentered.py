"""Who comes to a decoder or a transaction's changes while a message is decoded: a profiler, a
finalizer, another thread. It gets an error, and the one at work gets everything, in order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from pgrepl.codec.spool import Spool
from pgrepl.errors import UsageError
from pgrepl.messages import Insert, LogicalMessage, StreamAbort, StreamStart, StreamStop
from tests.support.spooling import ITEM, SUBXID, WIDE, XID, batch_of, commit, insert

START, STOP = StreamStart(XID, True), StreamStop()


@contextmanager
def interrupting(act: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Do something at each call and return of Python's own while a message is decoded."""
    raised: list[BaseException] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "return"):
            return
        sys.setprofile(None)
        try:
            act()
        except UsageError as error:
            raised.append(error)
        finally:
            sys.setprofile(profile)

    sys.setprofile(profile)
    try:
        yield raised
    finally:
        sys.setprofile(None)


def numbers(changes: list[Any]) -> list[int]:
    return [change.new["id"] for change in changes if isinstance(change, Insert)]


def test_a_replay(codec: Any) -> None:
    spool, decoder = Spool(1 << 20), codec.Decoder(3, "on")
    block: list[LogicalMessage] = [START, replace(ITEM, xid=XID), replace(WIDE, xid=XID)]
    for number in range(300):
        block.append(insert(ITEM, number, XID + number % 3))
        block.append(insert(WIDE, 1000 + number, XID))
    for_sure = [*block, STOP, StreamAbort(XID, SUBXID), commit(XID)]
    changes = decoder.decode_batch(batch_of(codec, for_sure), spool)
    list(changes)
    replay = changes.streamed(XID)
    found: list[Any] = []
    with interrupting(lambda: found.append(next(replay, None))) as raised:
        for change in replay:
            found.append(change)
    expected = [n for n in range(300) if n % 3 != 1] + list(range(1000, 1300))
    assert sorted(numbers(found)) == sorted(expected)
    assert any("one reader at a time" in str(error) for error in raised)


def test_a_decoder(codec: Any) -> None:
    messages: list[LogicalMessage] = []
    for number in range(50):
        messages += [replace(ITEM, name=f"item{number}"), insert(ITEM, number)]
    changes = codec.Decoder().decode_batch(batch_of(codec, messages))
    found: list[Any] = []
    with interrupting(lambda: found.append(next(changes, None))) as raised:
        for message in changes:
            found.append(message)
    assert sorted(numbers(found)) == list(range(50))
    assert any("one reader at a time" in str(error) for error in raised)


@pytest.mark.parametrize("with_spool", [False, True])
def test_what_was_cut_off_is_not_passed_over(codec: Any, with_spool: bool) -> None:
    """Ctrl-C in the middle of a message: the next one would be taken for the first."""
    decoder = codec.Decoder(3, "on")
    spool = Spool() if with_spool else None
    messages: list[Any] = [replace(ITEM, name="other"), insert(ITEM, 1), insert(ITEM, 2)]
    changes = decoder.decode_batch(batch_of(codec, messages), spool)

    def interrupt(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name == "__post_init__":
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(changes)
    finally:
        sys.setprofile(None)
    for _ in range(2):
        with pytest.raises(Exception, match="cut off in the middle: start the stream again"):
            next(changes)
