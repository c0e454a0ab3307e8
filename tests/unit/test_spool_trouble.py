"""What can go wrong with files that streamed transactions are put aside in, on both twins: the
stream stops, and nothing counts as delivered that was not."""

from __future__ import annotations

import errno
import io
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgrepl.codec.spool
from pgrepl.codec.spool import Spool
from pgrepl.codec.spool_file import SpoolFile
from pgrepl.errors import SpoolError
from pgrepl.messages import Message, StreamStart, StreamStop, Truncate
from tests.support.spooling import (
    ITEM,
    LSN,
    SUBXID,
    XID,
    batch_of,
    block_of,
    commit,
    described,
    insert,
    transactions,
)

START, STOP = StreamStart(XID, True), StreamStop()
MEBIBYTE = 1 << 20


class FailingFile:
    """A temporary file that takes `size` bytes, one at a time or all, and then fails."""

    def __init__(self, size: int, error: BaseException | None, most: int = 1 << 30) -> None:
        self._file = io.BytesIO()
        self._left, self._error, self._most = size, error, most

    def write(self, data: memoryview) -> int:
        count = min(len(data), self._left, self._most)
        self._left -= count
        if not count and self._error is not None:
            raise self._error
        return self._file.write(data[:count])

    def readinto(self, room: memoryview) -> int:
        return self._file.readinto(room[: self._most])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


FULL = OSError(errno.ENOSPC, "No space left on device")


class TestTrouble:
    @pytest.fixture
    def file_that(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FailingFile]:
        def prepare(*arguments: Any) -> FailingFile:
            file = FailingFile(*arguments)
            monkeypatch.setattr(tempfile, "TemporaryFile", lambda **keywords: file)
            return file

        return prepare

    @pytest.mark.parametrize("size", [0, 3, 5000, 700_000])
    def test_a_full_disk_stops_the_stream(
        self, codec: Any, file_that: Callable[..., FailingFile], size: int
    ) -> None:
        file_that(size, FULL)
        spool, decoder = Spool(MEBIBYTE), codec.Decoder(3, "on")
        changes = decoder.decode_batch(batch_of(codec, [*block_of(3000), commit(XID)]), spool)
        for number in range(3):
            with pytest.raises(SpoolError, match="No space left on device. Make room") as caught:
                list(changes)
            assert (caught.value.__cause__ is FULL) == (number == 0)
        assert decoder.delivered == 0
        again = decoder.decode_batch(batch_of(codec, [commit(XID)]), spool)
        with pytest.raises(SpoolError, match="No space left"):
            next(again)
        spool.close()

    def test_a_directory_that_is_not_there(self, codec: Any, tmp_path: Path) -> None:
        spool = Spool(MEBIBYTE, tmp_path / "missing")
        changes = codec.Decoder(3, "on").decode_batch(batch_of(codec, block_of(1500)), spool)
        with pytest.raises(SpoolError, match="missing, and .* No such file or directory"):
            list(changes)

    def test_interrupted_while_it_is_written(
        self, codec: Any, file_that: Callable[..., FailingFile]
    ) -> None:
        file_that(10_000, KeyboardInterrupt())
        spool, decoder = Spool(MEBIBYTE), codec.Decoder(3, "on")
        changes = decoder.decode_batch(batch_of(codec, [*block_of(1500), commit(XID)]), spool)
        with pytest.raises(KeyboardInterrupt):
            list(changes)
        for _ in range(2):
            with pytest.raises(SpoolError, match="cut off in the middle"):
                list(changes)

    def test_pieces_that_the_system_takes_and_gives_in_parts(
        self, codec: Any, file_that: Callable[..., FailingFile]
    ) -> None:
        file_that(1 << 30, None, 999)
        (found,) = transactions(codec, Spool(MEBIBYTE), [*block_of(1500), commit(XID)])
        assert len(found.changes) == 1500

    @given(data=st.data())
    def test_a_damaged_file_is_an_error_or_other_values(self, codec: Any, data: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            file = FailingFile(1 << 30, None)
            patch.setattr(tempfile, "TemporaryFile", lambda **keywords: file)
            patch.setattr(pgrepl.codec.spool, "LEAST_LIMIT", 0)
            spool, decoder = Spool(1), codec.Decoder(3, "on")
            block: list[Any] = [insert(ITEM, 1, XID), Truncate((ITEM,), False, False, XID)]
            block += [Message(True, LSN, "p", b"c", XID), insert(ITEM, 2, SUBXID)]
            list(
                decoder.decode_batch(batch_of(codec, [START, described(ITEM, XID), *block]), spool)
            )
            list(decoder.decode_batch(batch_of(codec, [STOP, commit(XID)]), spool))
        contents = bytearray(file.getvalue())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(contents) - 1))
            contents[place] = data.draw(st.sampled_from([0, 1, 73, 84, 127, 255]))
        file.seek(0)
        file.truncate(data.draw(st.sampled_from([0, len(contents) // 2, len(contents)])))
        file.write(memoryview(contents))
        file.truncate(data.draw(st.sampled_from([len(contents) // 2, len(contents)])))
        replay = decoder.decode_batch(batch_of(codec, []), spool).streamed(XID)
        try:
            for change in replay:
                repr(change)
        except SpoolError as error:
            assert "damaged" in str(error)
            with pytest.raises(SpoolError, match="damaged"):
                next(replay)


def test_a_file_that_is_being_closed_is_found_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool looks it up by a weak reference, in one thread, while the last reader leaves it in
    another."""
    found: list[SpoolFile | None] = []

    class Closing(io.BytesIO):
        def close(self) -> None:
            found.append(reference())
            super().close()

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Closing())
    file = SpoolFile(None)
    reference = weakref.ref(file)
    del file
    assert found[0] is None
