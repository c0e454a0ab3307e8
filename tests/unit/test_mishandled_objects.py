"""Objects of the native twin in the hands of somebody who does what nobody should: an exception at
most, and never the end of the process."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from pgrepl.messages import Column, Relation
from tests.support import mishandling
from tests.support.builders import copy_data, xlog_data
from tests.support.spooling import ITEM, XID, batch_of, block_of


@pytest.fixture(scope="module")
def native() -> ModuleType:
    module: ModuleType = pytest.importorskip("pgrepl.codec._native", exc_type=ImportError)
    return module


def test_every_method_of_every_class(native: ModuleType) -> None:
    run = subprocess.run(
        [sys.executable, "-m", mishandling.__name__], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    classes, instances, calls = map(int, run.stdout.split())
    assert classes == len(mishandling.classes()) >= 18
    assert instances > 100
    assert calls > 10_000


def test_an_instance_that_was_not_initialised_is_not_to_be_had(codec: Any) -> None:
    if codec.__name__.endswith("_pure"):
        pytest.skip("Python's own classes raise AttributeError")
    for cls in (codec.Row, codec.XLogData, codec.PrimaryKeepalive):
        with pytest.raises(TypeError, match="argument"):
            cls.__new__(cls)
        with pytest.raises(TypeError, match="not safe"):
            object.__new__(cls)
    for made in (iter(codec.WalBatch()), codec.Decoder().decode_batch(codec.WalBatch())):
        with pytest.raises(TypeError, match="cannot create"):
            type(made)()


def test_what_is_immutable_is_initialised_once(codec: Any) -> None:
    row, data = codec.Row(ITEM, [1]), codec.XLogData(1, 2, 3, b"data")
    keepalive = codec.PrimaryKeepalive(1, 2, True)
    others: list[tuple[Any, tuple[Any, ...]]] = [
        (row, (ITEM, [2])),
        (data, (4, 5, 6, b"")),
        (keepalive, (3, 4, False)),
    ]
    for each, others_fields in others:
        before = repr(each)
        with pytest.raises(TypeError, match="twice"):
            each.__init__(*others_fields)
        assert repr(each) == before


def test_a_relation_has_its_columns_to_itself(codec: Any) -> None:
    columns = [Column("id", 23, -1, True)]
    relation = Relation(1, "s", "t", "d", columns)  # type: ignore[arg-type]
    row = codec.Row(relation, [1], key_only=True)
    columns.append(Column("more", 23, -1, True))
    assert relation.columns == relation.key_columns == (Column("id", 23, -1, True),)
    assert hash(relation)
    with pytest.raises(IndexError):
        row[1]
    with pytest.raises(TypeError, match="expected columns, got str"):
        Relation(1, "s", "t", "d", ("id",))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a Relation, got str"):
        codec.Row("relation", [1])


def test_a_tail_is_of_what_was_received(codec: Any) -> None:
    """Also where somebody writes to the room that a driver was given, when it is too late."""
    reader = codec.FrameReader()
    frames = b"".join(copy_data(xlog_data(n, n, 0, b"payload")) for n in range(1, 6))
    room = reader.get_buffer()
    room[: len(frames)] = frames
    reader.buffer_updated(len(frames))
    batch = codec.next_batch(reader)
    if codec.__name__.endswith("_native"):
        room[: len(frames)] = b"\x7f" * len(frames)
    assert [[message.wal_start for message in batch.tail(at)] for at in range(6)] == [
        list(range(at + 1, 6)) for at in range(6)
    ]


@pytest.mark.parametrize("depth", [10, 100_000])
def test_a_row_within_rows(codec: Any, depth: int) -> None:
    row = codec.Row(ITEM, [1])
    for _ in range(depth):
        row = codec.Row(ITEM, [row])
    if depth == 10:
        assert hash(row) == hash(row)
    else:
        with pytest.raises(RecursionError):
            hash(row)


def test_what_cannot_be_pickled_says_so(codec: Any) -> None:
    batch = batch_of(codec, block_of(1))
    decoder = codec.Decoder(3, "on")
    cannot = (codec.FrameReader(), decoder, decoder.decode_batch(batch), batch, codec.Types())
    for each in cannot:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(each, protocol)


def test_pickles_name_no_more_than_a_class_and_its_fields(codec: Any) -> None:
    insert = codec.Decoder(3, "on", typed=False)
    *_, change = map(insert.feed, (b"".join((bytes(m),)) for m in batch_of(codec, block_of(1))[:3]))
    for each in (
        change,
        change.new,
        codec.XLogData(1, 2, 3, b""),
        codec.PrimaryKeepalive(1, 2, True),
    ):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            copied = pickle.loads(pickle.dumps(each, protocol))
            assert (type(copied), copied) == (type(each), each)
    assert change.xid == XID


def test_pickles_of_both_twins_are_alike(native: ModuleType) -> None:
    pure = importlib.import_module("pgrepl.codec._pure")
    rows = [codec.Row(ITEM, [1]) for codec in (native, pure)]
    one, other = (row.__reduce__()[1] for row in rows)
    assert one == other
