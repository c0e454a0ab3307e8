"""Streamed transactions put aside until they end, on both twins: what comes back is what was
committed, from memory or from files, and nothing is lost where that fails."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgrepl.codec.spool
from pgrepl.codec import Row
from pgrepl.codec.spool import Spool
from pgrepl.errors import DecodeError, SpoolError, UsageError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from tests.support import spooling
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
    Transaction,
    batch_of,
    block_of,
    commit,
    committed,
    described,
    insert,
    transactions,
)

OTHER, INNER = 750, 742
START, AGAIN, STOP = StreamStart(XID, True), StreamStart(XID, False), StreamStop()
MEBIBYTE = 1 << 20


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a spool have a limit of any size: with a few bytes each record goes to a file."""
    monkeypatch.setattr(pgrepl.codec.spool, "LEAST_LIMIT", 0)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[io.FileIO]:
    """The temporary files that are made."""
    made: list[io.FileIO] = []
    make = tempfile.TemporaryFile

    def noting(*arguments: Any, **keywords: Any) -> Any:
        made.append(make(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noting)
    return made


def contents(codec: Any, spool: Spool, *messages: LogicalMessage) -> list[Transaction]:
    return transactions(codec, spool, messages)


class TestWhatComesBack:
    def test_each_kind_of_change(self, codec: Any, tiny: None) -> None:
        changes: list[Any] = [
            insert(ITEM, 1, XID),
            Update(ITEM, Row(ITEM, ("1",), True), None, Row(ITEM, ("2",)), XID),
            Update(ITEM, None, Row(ITEM, ("2",)), Row(ITEM, ("3",)), XID),
            Delete(ITEM, Row(ITEM, ("1",), True), None, XID),
            Delete(ITEM, None, Row(ITEM, ("1",)), XID),
            Truncate((ITEM, WIDE), True, False, XID),
            Truncate((), False, True, XID),
            Message(True, LSN, "präfix", b"\0content", XID),
        ]
        block = [described(ITEM, XID), described(WIDE, XID), Type(99, "s", "mood", XID), *changes]
        for limit in (1, MEBIBYTE):
            (found,) = contents(codec, Spool(limit), START, *block, STOP, commit(XID))
            assert [each.xid for each in found.changes] == [XID] * len(changes)
            assert found == ("commit", XID, None, None, changes)

    def test_savepoints_rolled_back_are_not_in_it(self, codec: Any) -> None:
        (found,) = contents(
            codec,
            Spool(),
            *(START, described(ITEM, XID), insert(ITEM, 1, XID), insert(ITEM, 2, SUBXID)),
            *(insert(ITEM, 3, INNER), insert(ITEM, 4, SUBXID), STOP),
            StreamAbort(XID, INNER),
            *(AGAIN, described(ITEM, XID), insert(ITEM, 5, SUBXID), STOP),
            StreamAbort(XID, SUBXID),
            *(AGAIN, described(ITEM, XID), insert(ITEM, 6, XID), STOP),
            commit(XID),
        )
        assert found.changes == [insert(ITEM, 1, XID), insert(ITEM, 6, XID)]

    def test_transactions_come_in_the_order_of_their_ends(self, codec: Any, tiny: None) -> None:
        for limit in (1, MEBIBYTE):
            found = contents(
                codec,
                Spool(limit),
                *(START, described(ITEM, XID), insert(ITEM, 1, XID), STOP),
                *(StreamStart(OTHER, True), described(ITEM, OTHER), insert(ITEM, 2, OTHER), STOP),
                *(Begin(LSN, TIME, 1), ITEM, insert(ITEM, 3), Commit(LSN, END, TIME)),
                *(AGAIN, insert(ITEM, 4, XID), STOP),
                StreamPrepare(LSN, END, TIME, OTHER, "gid"),
                commit(XID, 1),
            )
            assert found == [
                ("commit", 1, None, None, [insert(ITEM, 3)]),
                ("prepare", OTHER, "gid", None, [insert(ITEM, 2, OTHER)]),
                ("commit", XID, None, None, [insert(ITEM, 1, XID), insert(ITEM, 4, XID)]),
            ]

    def test_a_change_means_what_it_meant_when_it_came(self, codec: Any, tiny: None) -> None:
        altered = replace(WIDE, oid=ITEM.oid)
        renamed = replace(ITEM, name="other")
        for limit in (1, MEBIBYTE):
            found = contents(
                codec,
                Spool(limit),
                # Described to all, by another transaction, before and in between.
                *(Begin(LSN, TIME, 1), ITEM, Commit(LSN, END, TIME)),
                *(START, insert(ITEM, 1, XID), described(altered, SUBXID)),
                *(insert(altered, 2, SUBXID), STOP),
                *(Begin(END, TIME, 2), renamed, insert(renamed, 3), Commit(END, END, TIME)),
                StreamAbort(XID, SUBXID),
                *(AGAIN, described(altered, XID), insert(altered, 4, XID), STOP),
                *(AGAIN, described(renamed, XID), Truncate((renamed,), False, False, XID), STOP),
                commit(XID, 1),
            )
            wanted = [(ITEM, "Insert"), (altered, "Insert"), (renamed, "Truncate")]
            changes = found[-1].changes
            assert [(relation_of(each), type(each).__name__) for each in changes] == wanted

    def test_an_origin_is_the_transactions(self, codec: Any) -> None:
        origin = Origin(Lsn(0), "elsewhere")
        (found,) = contents(codec, Spool(), START, origin, STOP, commit(XID))
        assert found == ("commit", XID, None, origin, [])

    def test_a_message_that_is_not_transactional_comes_at_once(self, codec: Any) -> None:
        at_once = Message(False, LSN, "prefix", b"content", XID)
        for others in (
            (),
            (Origin(Lsn(0), "elsewhere"), described(ITEM, XID), insert(ITEM, 1, XID)),
        ):
            block = (START, at_once, *others, STOP)
            found = contents(codec, Spool(), *block, StreamAbort(XID, XID))
            assert found == [("message", None, None, None, [at_once])]

    def test_a_value_at_fault_says_where_it_came_from(self, codec: Any) -> None:
        bad = Insert(ITEM, Row(ITEM, (b"\1\2\3",)), XID)
        messages: list[Any] = [START, described(ITEM, XID), bad, STOP, commit(XID)]
        decoder = codec.Decoder(3, "on")
        *_, flat = [decoder.feed(encode(each), lsn=10 + n) for n, each in enumerate(messages[:3])]
        with pytest.raises(DecodeError) as expected:
            read(flat)
        decoder = codec.Decoder(3, "on")
        changes = decoder.decode_batch(batch_of(codec, messages, first=10), Spool())
        assert [type(each) for each in changes] == [StreamStart, StreamStop, StreamCommit]
        (replayed,) = changes.streamed(XID)
        with pytest.raises(DecodeError) as caught:
            read(replayed)
        assert str(caught.value) == str(expected.value)
        assert (caught.value.offset, caught.value.lsn) == (expected.value.offset, 12)


def relation_of(change: Any) -> Relation:
    relation: Relation = change.relations[0] if isinstance(change, Truncate) else change.relation
    return relation


@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 60),
    limit=st.sampled_from([1, 200, 1000, MEBIBYTE]),
)
def test_what_is_delivered_is_what_was_committed(
    codec: Any, seed: int, steps: int, limit: int
) -> None:
    messages = list(Server(seed).messages(steps))
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgrepl.codec.spool, "LEAST_LIMIT", 0)
        spool = Spool(limit)
        found = transactions(codec, spool, messages, cuts=lambda: rng.choice((1, 3, 50)))
    assert found == committed(messages)
    assert spool.memory == sum(stored.memory for stored in spool._known.values())
    spool.close()
    assert spool.memory == 0


class TestFaults:
    SOUND: tuple[LogicalMessage, ...] = (START, described(ITEM, XID), insert(ITEM, 1, XID))
    FAULTY = (
        encode(insert(replace(ITEM, oid=1), 1, XID)),
        encode(insert(replace(WIDE, oid=ITEM.oid), 1, XID)),
        encode(Update(ITEM, Row(ITEM, ("1",), True), None, Row(ITEM, ("2",)), XID))[:-1],
        encode(Delete(WIDE, None, Row(WIDE, ("1", "2")), XID)),
        encode(Truncate((ITEM, WIDE), False, False, XID)),
        encode(insert(ITEM, 1, XID)) + b"!",
        encode(Begin(LSN, TIME, 1)),
        encode(StreamStart(OTHER, True)),
        b"",
    )

    @pytest.mark.parametrize("payload", FAULTY, ids=range(len(FAULTY)))
    def test_are_found_when_they_come(self, codec: Any, payload: bytes) -> None:
        stream = [*map(encode, self.SOUND), payload, encode(STOP)]
        raised = []
        for spool in (None, Spool()):
            changes = codec.Decoder(3, "on").decode_batch(batch_of(codec, stream), spool)
            for _ in range(2):
                with pytest.raises(DecodeError) as caught:
                    list(changes)
                error = caught.value
                raised.append((str(error), error.tag, error.offset, error.lsn))
        assert len(set(raised)) == 1

    @pytest.mark.parametrize("end", [commit(XID), AGAIN])
    def test_what_was_not_streamed_from_its_first_block(self, codec: Any, end: Any) -> None:
        changes = codec.Decoder(3, "on").decode_batch(batch_of(codec, [end, STOP]), Spool())
        for _ in range(2):
            with pytest.raises(DecodeError, match=f"first block on, got .* {XID} ") as caught:
                next(changes)
            assert caught.value.offset == 1
            assert caught.value.lsn == 1

    def test_an_abort_or_prepare_of_what_was_never_sent_is_none(self, codec: Any) -> None:
        found = contents(
            codec,
            Spool(),
            StreamAbort(XID, XID),
            StreamAbort(XID, SUBXID),
            StreamPrepare(LSN, END, TIME, OTHER, "gid"),
        )
        assert found == [("prepare", OTHER, "gid", None, [])]

    def test_a_transaction_that_begins_anew(self, codec: Any, tiny: None) -> None:
        first = (START, described(ITEM, XID), insert(ITEM, 1, XID), STOP, StreamAbort(XID, SUBXID))
        again = (START, described(ITEM, XID), insert(ITEM, 2, SUBXID), STOP)
        for limit in (1, MEBIBYTE):
            (found,) = contents(codec, Spool(limit), *first, *again, commit(XID))
            assert found.changes == [insert(ITEM, 2, SUBXID)]

    def test_a_block_that_began_without_a_spool(self, codec: Any) -> None:
        decoder = codec.Decoder(3, "on")
        list(decoder.decode_batch(batch_of(codec, [START, described(ITEM, XID)])))
        changes = decoder.decode_batch(batch_of(codec, [insert(ITEM, 1, XID)]), Spool())
        with pytest.raises(UsageError, match="either message by message or by transactions"):
            next(changes)

    @pytest.mark.parametrize("message", [STOP, AGAIN, commit(XID), StreamAbort(XID, SUBXID)])
    def test_what_began_with_a_spool(self, codec: Any, message: Any) -> None:
        decoder = codec.Decoder(3, "on")
        block: list[Any] = [START] if message is STOP else [START, STOP]
        list(decoder.decode_batch(batch_of(codec, block), Spool()))
        with pytest.raises(UsageError, match="either message by message or by transactions"):
            decoder.feed(encode(message))

    def test_streamed_without_a_spool(self, codec: Any) -> None:
        changes = codec.Decoder(3, "on").decode_batch(batch_of(codec, [START, STOP, commit(XID)]))
        assert len(list(changes)) == 3
        with pytest.raises(ValueError, match="decoded with a spool"):
            changes.streamed(XID)


def test_a_limit_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="at least 1048576 bytes, got 1048575"):
        Spool(MEBIBYTE - 1)


class TestMemory:
    def test_stays_within_the_limit(self, codec: Any, files: list[io.FileIO]) -> None:
        spool, decoder = Spool(MEBIBYTE), codec.Decoder(3, "on")
        for xid in range(1, 21):
            for _ in decoder.decode_batch(batch_of(codec, block_of(30 * xid, xid)), spool):
                assert spool.memory <= MEBIBYTE
        assert len(spool) == 20
        assert 0 < len(files) < 20  # the small ones stayed
        held = sum(file.seek(0, io.SEEK_END) for file in files)
        assert held + spool.memory > 30 * 210 * 1000
        for xid in range(1, 21):
            changes = decoder.decode_batch(batch_of(codec, [commit(xid)]), spool)
            list(changes)
            assert len(list(changes.streamed(xid))) == 30 * xid
        assert spool.memory == len(spool) == 0
        assert all(file.closed for file in files)

    def test_those_that_had_to_give_way_go_on(self, codec: Any, files: list[io.FileIO]) -> None:
        spool, xids = Spool(MEBIBYTE), range(1, 21)
        note = "x" * 500
        expected: dict[int, list[Any]] = {xid: [] for xid in xids}
        messages: list[LogicalMessage] = []
        for turn in range(40):
            for xid in xids:
                some = [Insert(WIDE, Row(WIDE, (str(turn), note)), xid) for _ in range(turn % 7)]
                messages += [StreamStart(xid, turn == 0), described(WIDE, xid), *some, STOP]
                expected[xid] += some
        found = transactions(codec, spool, [*messages, *map(commit, xids, xids)])
        assert {made.xid: made.changes for made in found} == expected
        assert 1 < len(files) < 20

    def test_a_record_larger_than_the_limit(self, codec: Any) -> None:
        spool = Spool(MEBIBYTE)
        sizes = (10, 3 * MEBIBYTE, 10, 2 * MEBIBYTE)
        changes = [Insert(WIDE, Row(WIDE, ("1", "x" * size)), XID) for size in sizes]
        messages: list[Any] = [START, described(WIDE, XID), *changes, STOP, commit(XID)]
        (found,) = transactions(codec, spool, messages)
        assert found.changes == changes
        assert spool.memory == 0

    def test_descriptions_that_change_nothing_are_not_kept(self, codec: Any) -> None:
        spool = Spool()
        block: list[Any] = [
            described(ITEM, XID),
            insert(ITEM, 1, XID),
            Truncate((ITEM,), False, False, XID),
        ]
        changes = codec.Decoder(3, "on").decode_batch(
            batch_of(codec, [START, *block * 100, STOP]), spool
        )
        list(changes)
        assert len(spool.take(XID).bound) <= 2

    @pytest.mark.parametrize("limit", [MEBIBYTE, 4 * MEBIBYTE])  # a file, and memory alone
    def test_what_is_being_read_counts(
        self, codec: Any, files: list[io.FileIO], limit: int
    ) -> None:
        spool, decoder = Spool(limit), codec.Decoder(3, "on")
        messages = [*block_of(1500), commit(XID)]
        changes = decoder.decode_batch(batch_of(codec, messages), spool)
        list(changes)
        held = [spool.memory for _ in changes.streamed(XID)]
        assert len(files) == (limit == MEBIBYTE)
        assert len(held) == 1500
        assert 0 < min(held) <= max(held) < limit
        assert spool.memory == 0

    def test_what_was_aborted_takes_little(self) -> None:
        spool = Spool()
        spool.begin(XID, True)
        subxids = range(1_000_000, 1_200_000, 2)
        tracemalloc.start()
        try:
            for subxid in subxids:
                spool.abort(XID, subxid)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10 * len(subxids)  # four bytes each, and while they are moved as many again
        aborted = spool.take(XID).aborted
        assert all(subxid in aborted and subxid + 1 not in aborted for subxid in subxids)

    def test_aborts_in_any_order(self) -> None:
        spool, subxids = Spool(), [2**32 - 1, 3, 800, 799, 3, 2**31, 801]
        spool.begin(XID, True)
        for subxid in subxids:
            spool.abort(XID, subxid)
        aborted = spool.take(XID).aborted
        wanted = {*subxids, *(each + step for each in subxids for step in (-1, 1)), 0}
        assert {each for each in wanted if each in aborted} == set(subxids)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_of_the_process(self, codec: Any) -> None:
        """Its peak grows by less than the limit, as a transaction is written and as it is read."""
        limit = 8 * MEBIBYTE
        size = (300 if codec.__name__.endswith("_native") else 40) * MEBIBYTE
        peak = subprocess.run(
            [sys.executable, "-m", spooling.__name__, codec.__name__, str(size), str(limit)],
            capture_output=True,
            text=True,
            check=True,
        )
        before, after, count = map(int, peak.stdout.split())
        assert count >= size // 1050
        assert after - before < limit

    def test_a_directory_is_used(self, codec: Any, tmp_path: Path, files: list[io.FileIO]) -> None:
        spool = Spool(MEBIBYTE, tmp_path)
        list(codec.Decoder(3, "on").decode_batch(batch_of(codec, block_of(1500)), spool))
        if sys.platform == "linux":
            target = Path(f"/proc/self/fd/{files[0].fileno()}").readlink()
            assert target.is_relative_to(tmp_path)
            assert list(tmp_path.iterdir()) == []  # it has no name
        spool.close()


class TestWhatIsGivenBack:
    def spooled(self, codec: Any) -> tuple[Spool, Any]:
        """A spool with a transaction in memory and in a file; its commit was decoded."""
        spool, decoder = Spool(MEBIBYTE), codec.Decoder(3, "on")
        list(decoder.decode_batch(batch_of(codec, block_of(1500)), spool))
        assert spool.memory
        changes = decoder.decode_batch(batch_of(codec, [commit(XID)]), spool)
        next(changes)
        return spool, changes

    def test_at_the_end(self, codec: Any, files: list[io.FileIO]) -> None:
        spool, changes = self.spooled(codec)
        replay = changes.streamed(XID)
        assert sum(1 for _ in replay) == 1500
        assert (spool.memory, files[0].closed) == (0, True)
        assert next(replay, None) is None

    def test_where_the_rest_is_passed_over(self, codec: Any, files: list[io.FileIO]) -> None:
        spool, changes = self.spooled(codec)
        replay = changes.streamed(XID)
        next(replay)
        assert replay.peek() == "I"
        replay.release()
        assert (spool.memory, files[0].closed) == (0, True)
        assert replay.peek() is next(replay, None) is None

    def test_where_nobody_has_it(self, codec: Any, files: list[io.FileIO]) -> None:
        spool, changes = self.spooled(codec)
        replay = changes.streamed(XID)
        next(replay)
        del replay
        assert (spool.memory, files[0].closed) == (0, True)

    def test_after_an_abort(self, codec: Any, files: list[io.FileIO]) -> None:
        spool = Spool(MEBIBYTE)
        messages = [*block_of(1500), StreamAbort(XID, XID)]
        assert transactions(codec, spool, messages) == []
        assert (spool.memory, len(spool), files[0].closed) == (0, 0, True)

    def test_when_it_is_closed(self, codec: Any, files: list[io.FileIO]) -> None:
        spool, changes = self.spooled(codec)
        replay = changes.streamed(XID)
        first = next(replay)
        list(codec.Decoder(3, "on").decode_batch(batch_of(codec, block_of(1500, OTHER)), spool))
        spool.close()
        assert (spool.memory, len(spool)) == (0, 0)
        assert [file.closed for file in files] == [True, True]
        # What was read stands, and the end is not taken for that of the transaction.
        assert first.new["note"] == "x" * 1000
        for _ in range(2):
            with pytest.raises(UsageError, match="stopped in the middle of this transaction"):
                list(replay)


def test_so_many_transactions_at_a_time() -> None:
    """Each takes memory before anything of it is put aside."""
    spool = Spool(1 << 20)
    for xid in range(512):
        assert spool.begin(xid, True) is not None
    assert spool.begin(3, True) is not None
    with pytest.raises(SpoolError, match="expected at most 512 .* raise it"):
        spool.begin(512, True)
    spool.abort(7, 7)
    assert spool.begin(512, True) is not None
