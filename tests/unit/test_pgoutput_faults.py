"""What pgoutput's messages can be at fault for, and what is said of it: on both twins."""

from __future__ import annotations

import copy
import pickle
import re
import struct
from typing import Any

import pytest

from pgrepl.errors import DecodeError
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    Column,
    LogicalMessage,
    Relation,
)
from tests.support.pgoutput_encoder import encode
from tests.unit.test_pgoutput import ITEM, OID, ONE_ROW, SAMPLES, every_sample, fault, ready

# What the bytes are at fault for: payload, tag, offset of the field, and the words.
FAULTS: tuple[tuple[str, bytes, bytes | None, int, str], ...] = (
    ("empty", b"", None, 0, "expected a pgoutput message, got no bytes"),
    ("tag", b"Z", b"Z", 0, "tag of a pgoutput message of protocol version 1, got 'Z'"),
    ("tag of a later version", b"S\0\0\0\1\1", b"S", 0, "of protocol version 1, got 'S'"),
    ("tag without a glyph", b"\x07", b"\x07", 0, "got 0x07"),
    ("begin, no field", b"B", b"B", 1, "expected 8 more bytes in message 'B', got 0"),
    ("begin, half a time", b"B" + b"\0" * 12, b"B", 9, "expected 8 more bytes .* got 4"),
    ("begin, half an xid", b"B" + b"\0" * 19, b"B", 17, "expected 4 more bytes .* got 3"),
    ("begin, trailing", b"B" + b"\0" * 23, b"B", 21, "expected the end of message 'B', got 3"),
    ("commit, flags", b"C\x80" + b"\0" * 24, b"C", 1, "expected known flags .* got 128"),
    ("commit, flags alone", b"C\1", b"C", 1, "expected known flags"),
    ("origin, no NUL", b"O" + b"\0" * 8 + b"abc", b"O", 9, "expected a zero byte"),
    ("origin, no name", b"O" + b"\0" * 8, b"O", 9, "expected a zero byte"),
    ("type, trailing", b"Y\0\0\0\1s\0t\0!", b"Y", 9, "expected the end of message 'Y', got 1"),
    ("relation, identity", b"R\0\0\0\1s\0t\0x\0\0", b"R", 9, "replica identity .* got 'x'"),
    ("relation, negative count", b"R\0\0\0\1s\0t\0d\xff\xfe", b"R", 10, "count of 0 .* got -2$"),
    ("relation, missing column", b"R\0\0\0\1s\0t\0d\x7f\xff", b"R", 12, "1 more bytes .* got 0"),
    ("column, flags", b"R\0\0\0\1s\0t\0d\0\1\2a\0", b"R", 12, "expected known flags .* got 2"),
    ("column, no NUL", b"R\0\0\0\1s\0t\0d\0\1\1ab", b"R", 13, "expected a zero byte"),
    ("column, half a type", b"R\0\0\0\1s\0t\0d\0\1\1a\0\0\0", b"R", 15, "4 more bytes .* got 2"),
    ("insert, mark", b"I" + OID + b"K" + ONE_ROW, b"I", 5, "tuple mark .* 'I', got 'K'"),
    ("update, mark", b"U" + OID + b"\0" + ONE_ROW, b"U", 5, "tuple mark .* 'U', got 0x00"),
    ("update, two keys", b"U" + OID + b"K\0\0K\0\0", b"U", 8, "tuple mark .* got 'K'"),
    ("update, key alone", b"U" + OID + b"K\0\0", b"U", 8, "1 more bytes .* got 0"),
    ("delete, mark", b"D" + OID + b"N" + ONE_ROW, b"D", 5, "tuple mark .* 'D', got 'N'"),
    ("delete, two tuples", b"D" + OID + b"K\0\0N\0\0", b"D", 8, "end of message 'D', got 3"),
    ("tuple, negative count", b"I" + OID + b"N\x80\0", b"I", 6, "got -32768$"),
    ("tuple, no columns", b"I" + OID + b"N\x7f\xff", b"I", 8, "1 more bytes .* got 0"),
    ("tuple, kind", b"I" + OID + b"N\0\2nx", b"I", 9, "kind 'n', 'u', 't' or 'b' .* got 'x'"),
    ("tuple, length -1", b"I" + OID + b"N\0\1t\xff\xff\xff\xff", b"I", 9, "0 or more .* got -1$"),
    ("tuple, length -2", b"I" + OID + b"N\0\1b\xff\xff\xff\xfe", b"I", 9, "0 or more .* got -2$"),
    ("tuple, least length", b"I" + OID + b"N\0\1t\x80\0\0\0", b"I", 9, "got -2147483648$"),
    ("tuple, most length", b"I" + OID + b"N\0\1t\x7f\xff\xff\xffa", b"I", 13, "2147483647 .* 1$"),
    ("truncate, negative", b"T\xff\xff\xff\xff\0", b"T", 1, "count of 0 or more .* got -1$"),
    ("truncate, flags", b"T\0\0\0\0\4", b"T", 5, "expected known flags .* got 4"),
    ("truncate, too few", b"T\0\0\0\2\0" + OID, b"T", 6, "expected 8 more bytes .* got 4"),
    ("truncate, most", b"T\x7f\xff\xff\xff\0" + OID, b"T", 6, "expected 8589934588 more .* got 4"),
    ("truncate, too many", b"T\0\0\0\0\0" + OID, b"T", 6, "expected the end .* got 4"),
    ("message, flags", b"M\3", b"M", 1, "expected known flags .* got 3"),
    ("message, negative", b"M\0" + b"\0" * 9 + b"\xff" * 4, b"M", 11, "0 or more .* got -1$"),
    ("message, short", b"M\0" + b"\0" * 9 + b"\0\0\0\2x", b"M", 15, "2 more bytes .* got 1$"),
    # What a payload is at fault for in the light of others.
    ("insert, unknown", b"I\0\0\0\1N" + ONE_ROW, b"I", 1, "before message 'I', got OID 1$"),
    ("delete, unknown", b"D\xff\xff\xff\xffK\0\0", b"D", 1, "got OID 4294967295$"),
    ("truncate, unknown", b"T\0\0\0\2\0" + OID + b"\0\0\0\7", b"T", 10, "'T', got OID 7$"),
    ("insert, narrow", b"I" + OID + b"N\0\1n", b"I", 6, "expected 2 columns .* 'I', got 1$"),
    ("insert, wide", b"I" + OID + b"N\0\3nnn", b"I", 6, "expected 2 columns .* got 3$"),
    ("update, old", b"U" + OID + b"O\0\1nN\0\0", b"U", 6, "expected 2 columns .* got 1$"),
    ("update, new", b"U" + OID + b"K\0\2nnN\0\0", b"U", 11, "expected 2 columns .* got 0$"),
    ("delete, key as key alone", b"D" + OID + b"K\0\1n", b"D", 6, "expected 2 columns"),
)


@pytest.mark.parametrize(
    ("payload", "tag", "offset", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_v5_v6_v8_fault(
    codec: Any, payload: bytes, tag: bytes | None, offset: int, words: str
) -> None:
    error = fault(ready(codec), payload)
    assert (error.tag, error.offset, error.lsn) == (tag, offset, None)
    text, _, place = str(error).rpartition(" (")
    assert re.search(words, text), text
    assert place == f"offset {offset})"


NOT_UTF8: tuple[tuple[bytes, int, str], ...] = (
    (b"I" + OID + b"N\0\2nt\0\0\0\3a\xffb", 14, 'column "note" of public.item'),
    (b"D" + OID + b"K\0\2t\0\0\0\1\xffn", 13, 'column "id" of public.item'),
    # The first one in the order of the wire
    (b"U" + OID + b"O\0\2nt\0\0\0\1\xffN\0\2t\0\0\0\1\xffn", 14, 'column "note" of public.item'),
)


@pytest.mark.parametrize(("payload", "offset", "where"), NOT_UTF8)
def test_text_that_is_not_utf8(codec: Any, payload: bytes, offset: int, where: str) -> None:
    error = fault(ready(codec), payload)
    assert (error.tag, error.offset) == (payload[:1], offset)
    assert str(error) == (
        f"expected text that can be decoded in message '{chr(payload[0])}', got other bytes, which "
        f"row.raw() gives, in {where} (offset {offset})"
    )


@pytest.mark.parametrize(
    ("payload", "names"),
    [
        (b"O" + b"\0" * 8 + b"\xff\0", [r"\xff"]),
        (b"R\0\0\0\1\xe9\0caf\xe9\0d\0\0", [r"\xe9", r"caf\xe9"]),
        (
            b"R\0\0\0\1s\0\xc3\0d\0\1\0\xed\xa0\x80\xc3\xa9\0" + b"\0" * 8,
            ["s", r"\xc3", r"\xed\xa0\x80é"],
        ),
        (b"Y\0\0\0\1\xff\0\xfe\0", [r"\xff", r"\xfe"]),
        (b"M\0" + b"\0" * 8 + b"\xffa\0\0\0\0\0", [r"\xffa"]),
    ],
)
def test_names_that_are_not_utf8_are_written_with_their_bytes(
    codec: Any, payload: bytes, names: list[str]
) -> None:
    message = ready(codec).feed(payload)
    found = [
        getattr(message, name) for name in ("schema", "name", "prefix") if hasattr(message, name)
    ]
    found += [column.name for column in getattr(message, "columns", ())]
    assert found == names


def test_text_in_another_encoding(codec: Any) -> None:
    """Columns sent as text are read in it, whatever their type; names, and what is sent in binary,
    are not."""
    arrays = Relation(
        7, "s", "t", "d", tuple(Column("c", oid, -1, False) for oid in (25, 1009, 23))
    )
    for encoding, sent, value in (
        ("iso8859-1", b"caf\xe9", "café"),
        ("iso8859-1", b"\xc3\xa9", "Ã©"),
        ("euc_jp", b"\xc6\xfc\xcb\xdc", "日本"),
        ("ascii", b"\xc3\xa9", None),
        ("cp1252", b"\x81", None),
    ):
        decoder = codec.Decoder(encoding=encoding)
        decoder.feed(encode(arrays))
        size = struct.pack("!i", len(sent))
        quoted = struct.pack("!i", len(sent) + 4) + b'{"' + sent + b'"}'
        columns = b"t" + size + sent + b"t" + quoted + b"t\0\0\0\1" + b"7"
        row = decoder.feed(b"I\0\0\0\7N\0\3" + columns).new
        assert (row.raw(0), row[2]) == (sent, 7)
        if value is not None:
            assert (row[0], list(row[1])) == (value, [value])
            continue
        with pytest.raises(DecodeError, match="text that can be decoded"):
            row[0]
        assert row[2] == 7


def test_names_in_errors_are_safe_to_print(codec: Any) -> None:
    hostile = Relation(1, "a\x1b[31m", "b\n", "d", (Column("\x07" + "x" * 99, 25, -1, False),))
    error = fault(ready(codec, hostile), b"I\0\0\0\1N\0\1t\0\0\0\1\xff")
    where = 'column "\\x07' + "x" * 59 + '..." of a\\x1b[31m.b\\n'
    assert f", in {where} (offset" in str(error)


@every_sample
def test_v6_v10_a_message_cut_short_anywhere_is_a_fault(codec: Any, sample: LogicalMessage) -> None:
    payload = encode(sample)
    for size in range(1, len(payload)):
        error = fault(ready(codec), payload[:size])
        assert error.tag == payload[:1]
        assert error.offset is not None
        assert 1 <= error.offset <= size
        assert "more bytes in message" in str(error) or "expected a zero byte" in str(error)


@every_sample
def test_v10_a_byte_too_many_is_a_fault(codec: Any, sample: LogicalMessage) -> None:
    payload = encode(sample)
    error = fault(ready(codec), payload + b"\0")
    assert error.offset == len(payload)
    assert "got 1 more bytes" in str(error)


def test_v10_a_fault_is_raised_again_for_whatever_comes(codec: Any) -> None:
    decoder = ready(codec)
    first = fault(decoder, b"B\0", lsn=Lsn("1/2"))
    begin = encode(SAMPLES["begin"])
    for payload in (begin, encode(ITEM), b"", b"Z", codec.XLogData(9, 9, 0, begin)):
        again = fault(decoder, payload, lsn=Lsn("3/4"))
        assert again is not first
        assert (str(again), again.__dict__) == (str(first), first.__dict__)


def test_a_fault_says_nothing_of_the_data(codec: Any) -> None:
    # What was read stays out of the error, and so does Python's own error, which holds it.
    error = fault(ready(codec), b"I" + OID + b"N\0\2nt\0\0\0\7secret\xff")
    assert "secret" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_errors_survive_pickling_and_copying(codec: Any) -> None:
    error = fault(ready(codec), b"B\0", lsn=26)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is DecodeError
        assert str(twin) == "expected 8 more bytes in message 'B', got 1 (offset 1, LSN 0/1A)"
        assert (twin.tag, twin.offset, twin.lsn) == (b"B", 1, 26)
        assert type(twin.lsn) is Lsn


def test_the_position_is_that_of_the_message(codec: Any) -> None:
    message = codec.XLogData(0x1_0000_0002, 0, 0, b"B")
    assert fault(codec.Decoder(typed=False), message).lsn == 0x1_0000_0002
    assert str(fault(codec.Decoder(typed=False), message)).endswith("(offset 1, LSN 1/2)")
    assert fault(codec.Decoder(typed=False), message, lsn=7).lsn == 7
    assert fault(codec.Decoder(typed=False), message, lsn=0).lsn == 0
    assert fault(codec.Decoder(typed=False), b"B", lsn=7).lsn == 7
    assert fault(codec.Decoder(typed=False), b"B").lsn is None
