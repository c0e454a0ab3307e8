"""Where memory is short, at whichever allocation: a MemoryError, after which all that arrived
is still there, or the decoder says that it cannot go on. The native twin allocates by itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_testcapi = pytest.importorskip(
    "_testcapi", reason="this Python was built without its test modules"
)
_native = pytest.importorskip("pgrepl.codec._native", exc_type=ImportError)

COMPREHENSION = re.compile(r"[\[{](?=[^\]\[{}]*\bfor \w+(?:, \w+)* in )[^\]}]*[\]}]")

PROGRAM = """
import sys, _testcapi
from dataclasses import replace
from pgrepl.codec import _native as codec
from pgrepl.codec.spool import Spool
from pgrepl.messages import StreamStart, StreamStop, Truncate
from tests.support.builders import copy_data, xlog_data
from tests.support.pgoutput_encoder import encode
from tests.support.spooling import ITEM, XID, batch_of, commit, insert

def failing(first, act):
    # Each allocation from `first` on fails.
    _testcapi.set_nomemory(first, 0)
    try:
        return act()
    finally:
        _testcapi.remove_mem_hooks()

def everywhere(act, check):
    # `act` with memory that is short at the first allocation, the second, and so on.
    first = 0
    while True:
        try:
            made = failing(first, act)
        except MemoryError:
            check()
            first += 1
            continue
        return made, first

sizes = [30, 700, 5, 3000, 64, 0, 9000, 100] * 3
stream = b"".join(
    copy_data(xlog_data(n + 1, n + 1, 0, bytes([n]) * size)) for n, size in enumerate(sizes)
)

def frames():
    # Fed piece by piece, taken frame by frame, with views kept so that chunks are not used again.
    reader, found, kept, failures = codec.FrameReader(1024), [], [], 0
    for at in range(0, len(stream), 333):
        piece = stream[at : at + 333]
        before = reader.pending
        def intact():
            assert reader.pending == before, (reader.pending, before)
        _, count = everywhere(lambda: reader.feed(piece), intact)
        failures += count
        kept.append(reader.get_buffer() if at % 2 else None)
        while True:
            before = reader.pending
            frame, count = everywhere(reader.next_frame, intact)
            failures += count
            if frame is None:
                break
            found.append(frame[1])
    assert b"".join(copy_data(each) for each in found) == stream
    return failures

def batches():
    reader, found, failures = codec.FrameReader(1024), [], 0
    for at in range(0, len(stream), 777):
        reader.feed(stream[at : at + 777])
        while True:
            before = reader.pending
            def intact():
                assert reader.pending == before
            batch, count = everywhere(lambda: codec.next_batch(reader), intact)
            failures += count
            if batch is None:
                break
            messages, count = everywhere(lambda: list(batch), lambda: None)
            _, more = everywhere(lambda: list(batch.tail(len(batch) // 2)), lambda: None)
            failures += count + more
            found += [bytes(each) for each in messages]
    assert found == [bytes([n]) * size for n, size in enumerate(sizes)]
    return failures

def rows():
    decoder = codec.Decoder()
    decoder.feed(encode(ITEM))
    row = decoder.feed(encode(insert(ITEM, 7))).new
    failures = 0
    acts = (lambda: row["id"], row.astuple, row.asdict, lambda: row.raw("id"), lambda: hash(row))
    for act in acts:
        made, count = everywhere(act, lambda: None)
        failures += count
    assert (row["id"], row.raw("id"), row.asdict()) == (7, b"7", {"id": 7})
    return failures

def decoded():
    # What is decoded with short memory is what was sent up to there, and then nothing more.
    block = [replace(ITEM, xid=XID), *(insert(ITEM, n, XID) for n in range(40))]
    block.append(Truncate((ITEM,), False, False, XID))
    messages = [StreamStart(XID, True), *block, StreamStop(), commit(XID)]
    plain = [ITEM, *(insert(ITEM, n) for n in range(5)), Truncate((ITEM,), False, False)]
    failures = 0
    for sent, spooled in ((plain, False), (messages, True)):
        batch = batch_of(codec, sent)
        expected = list(
            codec.Decoder(3, "on", typed=False).decode_batch(batch, Spool() if spooled else None)
        )
        first = 0
        while True:
            decoder, spool = codec.Decoder(3, "on", typed=False), Spool() if spooled else None
            changes, found = decoder.decode_batch(batch, spool), []
            try:
                failing(first, lambda: found.extend(changes))
            except MemoryError:
                pass
            else:
                break
            rest = []
            try:
                rest = list(changes)
            except Exception as error:
                assert "cut off in the middle" in str(error), error
            got = [*found, *rest]
            assert not rest or got == expected[-len(got):], (first, found, rest)
            first += 1
        failures += first
    return failures

print(globals()[sys.argv[1]]())
"""


def test_the_native_twin_has_neither_comprehensions_nor_with() -> None:
    """Cython 3.3.1 lets go of an element twice where the list of a comprehension cannot grow, and a
    `with` passes a null pointer on where memory is too short for a traceback."""
    folder = Path(_native.__path__[0])
    sources = [*folder.glob("*.pyx"), *folder.glob("*.pxi")]
    found = [line for each in sources for line in COMPREHENSION.findall(each.read_text("utf-8"))]
    assert len(sources) == 14
    assert found == []
    assert not any("\n        with " in each.read_text("utf-8") for each in sources)


@pytest.mark.parametrize("what", ["frames", "batches", "rows"])
def test_what_arrived_is_still_there(what: str) -> None:
    assert failures_of(what) > 0


def test_a_message_is_decoded_or_nothing_is_any_more() -> None:
    assert failures_of("decoded") > 10


def failures_of(what: str) -> int:
    """Run a part of the program, and return how many allocations failed in it."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return int(run.stdout)
