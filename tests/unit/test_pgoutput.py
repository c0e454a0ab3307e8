"""pgoutput payloads into messages, on both twins: what is right, what is at fault, and how."""

from __future__ import annotations

import gc
import pickle
import re
import struct
import sys
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from pgrepl.codec import Row, _pure
from pgrepl.errors import DecodeError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Truncate,
    Type,
    Update,
)
from tests.support.feeding import read
from tests.support.pgoutput_captured import CAPTURED, K
from tests.support.pgoutput_encoder import encode
from tests.support.pgoutput_strategies import Conversation, conversations

ITEM = Relation(
    16389, "public", "item", "d", (Column("id", 23, -1, True), Column("note", 25, -1, False))
)
OID = struct.pack("!I", ITEM.oid)
ONE_ROW = b"\0\2t\0\0\0\x011n"  # ('1', None)
FIRST = Row(ITEM, ("1", None))

SAMPLES: dict[str, LogicalMessage] = {
    "begin": Begin(Lsn("1/F73E0220"), 848653377652022, 732),
    "commit": Commit(Lsn("1/F73E0220"), Lsn("1/F73E0250"), -1),
    "origin": Origin(Lsn(0), "elsewhere"),
    "relation": ITEM,
    "type": Type(16385, "public", "mood"),
    "insert": Insert(ITEM, Row(ITEM, ("1", b"\0\xff"))),
    "update": Update(ITEM, None, None, Row(ITEM, ("1", UNCHANGED))),
    "update with key": Update(ITEM, Row(ITEM, ("1",), True), None, Row(ITEM, ("2", "x"))),
    "update with old": Update(ITEM, None, Row(ITEM, ("1", "x")), Row(ITEM, ("1", None))),
    "delete with key": Delete(ITEM, Row(ITEM, ("1",), True), None),
    "delete with old": Delete(ITEM, None, Row(ITEM, ("1", None))),
    "truncate": Truncate((ITEM, ITEM), cascade=True, restart_identity=False),
    "message": Message(True, Lsn(2**64 - 1), "prefix", b"content\0"),
}
every_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=list(SAMPLES))


def ready(codec: Any, *relations: Relation) -> Any:
    """Return a decoder that has the relations described to it, `ITEM` if there are none."""
    decoder = codec.Decoder(typed=False)
    for relation in relations or (ITEM,):
        decoder.feed(encode(relation))
    return decoder


def fault(decoder: Any, payload: Any, **keywords: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        read(decoder.feed(payload, **keywords))
    return caught.value


def test_what_a_real_server_sent(codec: Any) -> None:
    decoder = codec.Decoder(typed=False)
    for text, expected in CAPTURED:
        payload = bytes.fromhex(text)
        message = decoder.feed(payload)
        assert repr(message) == repr(expected)
        assert message == expected
        # The encoder, which the other tests stand on, is held to the same bytes.
        assert encode(expected) == payload


@given(conversations())
def test_every_message_round_trips(codec: Any, conversation: Conversation) -> None:
    decoder = codec.Decoder(*conversation.dialect, typed=False)
    for message in (*conversation.before, conversation.message):
        decoded = decoder.feed(encode(message))
        # Equality does not tell an Lsn from an int, or True from 1; the text does.
        assert repr(decoded) == repr(message)
        assert decoded == message


@every_sample
def test_positions_are_lsns_and_flags_are_booleans(codec: Any, sample: LogicalMessage) -> None:
    decoded = ready(codec).feed(encode(sample))
    for name in sample.__match_args__:
        field, expected = getattr(decoded, name), getattr(sample, name)
        assert type(field) is (codec.Row if isinstance(expected, Row) else type(expected)), name


def test_empty_schema_means_pg_catalog(codec: Any) -> None:
    decoder = codec.Decoder(typed=False)
    assert decoder.feed(b"R\0\0\0\1\0pg_class\0n\0\0").schema == "pg_catalog"
    assert decoder.feed(b"Y\0\0\0\x17\0int4\0") == Type(23, "pg_catalog", "int4")


def test_numbers_are_unsigned_where_postgresql_has_them_unsigned(codec: Any) -> None:
    high = b"\xff" * 4
    decoder = codec.Decoder(typed=False)
    relation = decoder.feed(b"R" + high + b"s\0t\0d\0\1\1c\0" + high + b"\x80\0\0\0")
    assert relation.oid == 2**32 - 1
    assert relation.columns == (Column("c", 2**32 - 1, -(2**31), True),)
    assert decoder.feed(b"D" + high + b"K\0\1n").relation is relation
    begin = decoder.feed(b"B" + high * 2 + high * 2 + high)
    assert (begin.final_lsn, begin.commit_time, begin.xid) == (2**64 - 1, -1, 2**32 - 1)


def test_a_key_row_has_the_columns_whose_values_came(codec: Any) -> None:
    # Whatever the relation marks: a column that identifies a row is never NULL.
    decoder = ready(codec, K)
    head = b"D" + struct.pack("!I", K.oid) + b"K\0\4"
    marked, others, none = (
        decoder.feed(head + tuple_).key
        for tuple_ in (b"t\0\0\0\x011nt\0\0\0\x012n", b"nt\0\0\0\1xub\0\0\0\1\xff", b"nnun")
    )
    assert marked == Row(K, ("1", "2"), key_only=True)
    assert marked.columns == K.key_columns
    assert (marked["c"], "b" in marked) == ("2", False)
    b, d = K.columns[1].name, K.columns[3].name
    assert others.asdict() == {b: "x", d: b"\xff"}
    assert others == Row(K, ("x", b"\xff"), places=(1, 3))
    assert (others.columns, others.places) == ((K.columns[1], K.columns[3]), (1, 3))
    assert (others[0], others[d], others[-1]) == ("x", b"\xff", b"\xff")
    assert (others.raw(b), others.raw(1)) == (b"x", b"\xff")
    assert (others.get("a"), "a" in others) == (None, False)
    assert pickle.loads(pickle.dumps(others)) == others
    assert (len(none), none.asdict(), none.columns, list(none)) == (0, {}, (), [])


def test_a_key_row_of_a_relation_without_key_has_what_came(codec: Any) -> None:
    relation = Relation(7, "s", "t", "n", (Column("a", 23, -1, False),))
    decoder = ready(codec, relation)
    assert decoder.feed(b"D\0\0\0\7K\0\1n").key.asdict() == {}
    assert decoder.feed(b"D\0\0\0\7K\0\1t\0\0\0\0014").key.asdict() == {"a": "4"}


def test_rows_share_the_columns_of_their_relation(codec: Any) -> None:
    decoder = codec.Decoder(typed=False)
    relation = decoder.feed(encode(ITEM))
    change = decoder.feed(encode(SAMPLES["update with key"]))
    assert change.relation is relation
    assert change.new.columns is relation.columns
    assert change.key.columns == relation.key_columns
    again = decoder.feed(encode(SAMPLES["update with key"]))
    assert again.key.columns is change.key.columns


def test_a_relation_is_replaced_by_the_next_one_with_its_oid(codec: Any) -> None:
    decoder = ready(codec)
    before = decoder.feed(b"I" + OID + b"N" + ONE_ROW)
    wider = Relation(ITEM.oid, "public", "item", "f", (*ITEM.columns, Column("x", 16, -1, True)))
    decoder.feed(encode(wider))
    after = decoder.feed(b"I" + OID + b"N\0\3t\0\0\0\x011nt\0\0\0\1f")
    assert before.new.asdict() == {"id": "1", "note": None}
    assert after.new.asdict() == {"id": "1", "note": None, "x": "f"}
    assert after.relation == wider
    assert "expected 3 columns" in str(fault(decoder, b"I" + OID + b"N" + ONE_ROW))


def test_as_many_columns_as_the_protocol_can_count(codec: Any) -> None:
    columns = tuple(Column(f"c{i}", 23, -1, i % 2 == 0) for i in range(2**15 - 1))
    relation = Relation(1, "s", "wide", "d", columns)
    values = tuple(str(i) if i % 3 else None for i in range(len(columns)))
    decoder = codec.Decoder(typed=False)
    assert decoder.feed(encode(relation)) == relation
    insert = Insert(relation, Row(relation, values))
    assert decoder.feed(encode(insert)) == insert
    assert len(decoder.feed(b"D" + encode(insert)[1:5] + b"K" + encode(insert)[6:]).key) == 21844


def test_values_keep_every_character(codec: Any) -> None:
    text = "\0a\n\x7f\x80é\ud7ff\ufffe\U0010ffff"
    insert = Insert(ITEM, Row(ITEM, (text, text.encode())))
    assert ready(codec).feed(encode(insert)).new.astuple() == (text, text.encode())


@pytest.mark.parametrize("relation_count", [0, 1, 3])
def test_truncate_lists_relations_in_order(codec: Any, relation_count: int) -> None:
    relations = [Relation(9 - i, "s", f"t{i}", "d", ()) for i in range(relation_count)]
    message = Truncate(tuple(relations), False, True)
    decoder = ready(codec, *relations)
    assert decoder.feed(encode(message)) == message


BYTES_LIKE: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "slice": lambda payload: memoryview(b"<" + payload + b">")[1:-1],
    "signed bytes": lambda payload: memoryview(payload).cast("b"),
    "two dimensions": lambda payload: memoryview(payload).cast("B", (3, len(payload) // 3)),
    "array of words": lambda payload: array("h", payload),
    "pure XLogData": lambda payload: _pure.XLogData(1, 1, 0, payload),
}


@pytest.mark.parametrize("wrap", BYTES_LIKE.values(), ids=list(BYTES_LIKE))
def test_payloads_of_every_kind(codec: Any, wrap: Any) -> None:
    message = Message(False, Lsn(5), "p", b"12345678")
    payload = encode(message)
    assert len(payload) % 6 == 0
    assert codec.Decoder(typed=False).feed(wrap(payload)) == message
    assert codec.Decoder(typed=False).feed(codec.XLogData(1, 1, 0, payload)) == message


@pytest.mark.parametrize("payload", ["B", 21, None, [66], object()])
def test_a_payload_that_has_no_bytes_is_a_type_error(codec: Any, payload: Any) -> None:
    decoder = ready(codec)
    with pytest.raises(TypeError, match=f"bytes-like .* got {type(payload).__name__}"):
        decoder.feed(payload)
    # The caller's mistake, not the server's: the decoder goes on.
    assert decoder.feed(encode(SAMPLES["begin"])) == SAMPLES["begin"]


def test_a_payload_with_gaps_is_a_buffer_error(codec: Any) -> None:
    decoder = ready(codec)
    with pytest.raises(BufferError):
        decoder.feed(memoryview(b"B.........")[::2])
    with pytest.raises(ValueError, match="released"):
        decoder.feed(released())
    assert decoder.feed(encode(SAMPLES["begin"])) == SAMPLES["begin"]


def released() -> memoryview:
    view = memoryview(b"B")
    view.release()
    return view


def test_the_payload_is_let_go(codec: Any) -> None:
    memory = bytearray(encode(SAMPLES["insert"]))
    decoder = ready(codec)
    message = decoder.feed(memory)
    # A bytearray refuses to change its size while somebody holds on to its memory.
    memory[:] = b"I" * 1000
    assert message == SAMPLES["insert"]
    error = fault(decoder, memory)
    memory.clear()
    assert error.tag == b"I"


def test_messages_let_go_of_what_they_share(codec: Any) -> None:
    decoder = codec.Decoder(typed=False)
    relation = decoder.feed(encode(ITEM))
    shared = (relation, relation.columns, relation.key_columns, UNCHANGED, Insert, Row)
    payloads = [encode(sample) for sample in SAMPLES.values() if sample is not ITEM]
    gc.collect()  # what earlier tests left behind would count
    before = [sys.getrefcount(thing) for thing in shared]
    for _ in range(100):
        for payload in payloads:
            decoder.feed(payload)
        fault(ready(codec), b"I" + OID + b"N\0\2ut\0\0\0\1\xff")
    gc.collect()  # an error's traceback holds on to the row
    assert [sys.getrefcount(thing) for thing in shared] == before


@pytest.mark.parametrize("version", [0, 5, -1, 2**40, 1.5, "1", None, []])
def test_other_protocol_versions_are_refused(codec: Any, version: Any) -> None:
    words = re.escape(f"expected a pgoutput protocol version from 1 to 4, got {version!r}")
    with pytest.raises(ValueError, match=words):
        codec.Decoder(version, typed=False)
    with pytest.raises(ValueError, match=words):
        codec.Decoder(proto_version=version, typed=False)


@pytest.mark.parametrize("streaming", ["", "ON", "true", True, None, []])
def test_other_modes_of_streaming_are_refused(codec: Any, streaming: Any) -> None:
    words = re.escape(f"expected streaming 'off', 'on' or 'parallel', got {streaming!r}")
    with pytest.raises(ValueError, match=words):
        codec.Decoder(4, streaming, typed=False)
    with pytest.raises(ValueError, match=words):
        codec.Decoder(proto_version=4, streaming=streaming, typed=False)


@pytest.mark.parametrize(
    ("streaming", "since"), [("off", 1), ("on", 2), ("parallel", 4)], ids=["off", "on", "parallel"]
)
def test_streaming_needs_a_version(codec: Any, streaming: str, since: int) -> None:
    for version in range(1, since):
        words = f"version {since} or later for streaming '{streaming}', got {version}"
        with pytest.raises(ValueError, match=words):
            codec.Decoder(version, streaming, typed=False)
    for version in range(since, 5):
        begin = SAMPLES["begin"]
        assert codec.Decoder(version, streaming, typed=False).feed(encode(begin)) == begin


def test_a_change_can_be_matched(codec: Any) -> None:
    match ready(codec).feed(b"I" + OID + b"N" + ONE_ROW):
        case Insert(Relation(name="item"), new):
            assert new == FIRST
            assert (new["id"], new["note"]) == ("1", None)
        case other:
            pytest.fail(f"expected an Insert into item, got {other!r}")


def test_decoders_do_not_know_each_others_relations(codec: Any) -> None:
    ready(codec)
    assert "described before" in str(fault(codec.Decoder(typed=False), b"I" + OID + b"N" + ONE_ROW))


ORDERED: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("a change by itself", (), "insert", "expected a transaction to begin first, got message 'I'"),
    ("a commit by itself", (), "commit", "expected a transaction to begin first, got message 'C'"),
    (
        "a change after the commit",
        ("begin", "insert", "commit"),
        "insert",
        "expected a transaction to begin first, got message 'I'",
    ),
    (
        "a transaction in another one",
        ("begin", "insert"),
        "begin",
        "expected the transaction that 'B' began to end first, got message 'B'",
    ),
    (
        "a message of a transaction by itself",
        (),
        "message",
        "expected a transaction to begin first, got message 'M'",
    ),
)


@pytest.mark.parametrize(
    ("before", "last", "words"), [case[1:] for case in ORDERED], ids=[case[0] for case in ORDERED]
)
def test_order_is_looked_at_where_asked_for(
    codec: Any, before: tuple[str, ...], last: str, words: str
) -> None:
    decoder = codec.Decoder(typed=False, ordered=True)
    lax = ready(codec)
    for payload in (encode(ITEM), *(encode(SAMPLES[name]) for name in before)):
        assert decoder.feed(payload) == lax.feed(payload)
    payload = encode(SAMPLES[last])
    assert lax.feed(payload) == SAMPLES[last]
    error = fault(decoder, payload, lsn=26)
    assert str(error) == f"{words} (offset 0, LSN 0/1A)"
    assert (error.tag, error.offset, error.lsn) == (payload[:1], 0, Lsn(26))
    # The stream stops here.
    assert str(fault(decoder, encode(SAMPLES["begin"]))) == str(error)


@pytest.mark.parametrize("lsn", [-1, 2**64, "x/y"])
def test_a_position_that_is_none_is_refused(codec: Any, lsn: Any) -> None:
    decoder = ready(codec)
    with pytest.raises(ValueError):
        decoder.feed(encode(SAMPLES["begin"]), lsn=lsn)
    assert decoder.feed(encode(SAMPLES["begin"]), lsn="1/F7") == SAMPLES["begin"]
