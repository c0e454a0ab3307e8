"""Rows of both twins: by position and by name, each value made when it is first read."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest

from pgrepl.errors import DecodeError, UsageError
from pgrepl.lsn import Lsn
from pgrepl.messages import UNCHANGED, Column, Delete, Insert, Relation, Update
from tests.support.pgoutput_encoder import encode

ID, NOTE, AREA = (
    Column("id", 23, -1, True),
    Column("note", 25, -1, False),
    Column("area", 1700, 786438, True),
)
ITEM = Relation(16389, "public", "item", "i", (ID, NOTE, AREA))
VALUES = ("1", None, "2.50")

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle 2": lambda value: pickle.loads(pickle.dumps(value, 2)),
    "pickle": lambda value: pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)),
}


def decoded(codec: Any, change: Any, **options: Any) -> Any:
    """The message that a decoder makes of a change."""
    decoder = codec.Decoder(**options)
    decoder.feed(encode(change.relation))
    return decoder.feed(encode(change), lsn=Lsn("1/2"))


def made(codec: ModuleType) -> tuple[Any, Any]:
    return codec.Row(ITEM, VALUES), codec.Row(ITEM, ("1", "2.50"), key_only=True)


def sent(codec: ModuleType) -> tuple[Any, Any]:
    key = codec.Row(ITEM, ("1", "2.50"), key_only=True)
    update = decoded(codec, Update(ITEM, key, None, codec.Row(ITEM, VALUES)), typed=False)
    return update.new, update.key


@pytest.fixture(params=[made, sent])
def rows(codec: ModuleType, request: pytest.FixtureRequest) -> Any:
    """A row and a key-only one, made from values or decoded."""
    return request.param(codec)


class TestRow:
    def test_reads_by_position_and_by_name(self, rows: Any) -> None:
        row, _ = rows
        assert (row[0], row[1], row[-1]) == ("1", None, "2.50")
        assert (row["id"], row["note"], row["area"]) == ("1", None, "2.50")
        assert row[1:] == (None, "2.50")

    def test_names_what_it_does_not_have(self, rows: Any) -> None:
        row, key = rows
        with pytest.raises(KeyError, match="price"):
            row["price"]
        with pytest.raises(KeyError, match="note"):
            key["note"]
        for position in (3, -4, 2**70):
            with pytest.raises(IndexError):
                row[position]
        with pytest.raises(TypeError):
            row[1.0]

    def test_get_tells_null_from_absent(self, rows: Any) -> None:
        row, key = rows
        assert row.get("id") == "1"
        assert row.get("note", "default") is None
        assert row.get("price") is None
        assert row.get("price", "default") == "default"
        assert key.get("note", "default") == "default"

    def test_is_as_long_as_its_values_and_iterates_over_them(self, rows: Any) -> None:
        row, key = rows
        assert (len(row), len(key)) == (3, 2)
        assert list(row) == list(row.values()) == list(row.astuple()) == ["1", None, "2.50"]

    def test_contains_names(self, rows: Any) -> None:
        row, key = rows
        assert "note" in row
        assert "note" not in key
        assert "1" not in row
        assert 0 not in row

    def test_gives_keys_values_and_items_in_order(self, rows: Any) -> None:
        row, key = rows
        assert row.keys() == ("id", "note", "area")
        assert row.values() == VALUES
        assert list(row.items()) == [("id", "1"), ("note", None), ("area", "2.50")]
        assert list(row.asdict().items()) == list(row.items())
        assert list(key.asdict().items()) == [("id", "1"), ("area", "2.50")]

    def test_asdict_is_the_callers_own(self, rows: Any) -> None:
        row, _ = rows
        row.asdict()["id"] = "changed"
        assert row.asdict()["id"] == row["id"] == "1"

    def test_has_the_columns_of_its_relation(self, rows: Any) -> None:
        row, key = rows
        assert row.columns == (ID, NOTE, AREA)
        assert key.columns == (ID, AREA)
        assert (key[1], key["area"]) == ("2.50", "2.50")

    def test_compares_by_names_and_values(self, codec: Any, rows: Any) -> None:
        row, key = rows
        assert codec.Row(ITEM, VALUES) == row
        assert row == codec.Row(ITEM, VALUES)
        assert hash(codec.Row(ITEM, VALUES)) == hash(row)
        for others in (("1", UNCHANGED, "2.50"), ("1", "", "2.50")):
            assert codec.Row(ITEM, others) != row
        other = Relation(1, "s", "t", "d", (ID, NOTE, dataclasses.replace(AREA, name="size")))
        assert codec.Row(other, VALUES) != row
        assert row != VALUES
        assert len({row, key, codec.Row(ITEM, VALUES)}) == 2

    def test_shows_names_and_values(self, rows: Any) -> None:
        row, key = rows
        assert repr(row) == "<Row id='1' note=None area='2.50'>"
        assert repr(key) == "<Row id='1' area='2.50'>"

    def test_cannot_be_changed(self, rows: Any) -> None:
        row, _ = rows
        for name in ("columns", "colour"):
            with pytest.raises(AttributeError):
                setattr(row, name, ())
        with pytest.raises(AttributeError):
            del row.columns
        with pytest.raises(TypeError):
            row["id"] = "2"
        with pytest.raises(TypeError, match="twice"):
            row.__init__(ITEM, VALUES)
        assert not hasattr(row, "__dict__")

    @pytest.mark.parametrize("duplicate", COPIES.values(), ids=list(COPIES))
    def test_survives_copying(self, rows: Any, duplicate: Callable[[Any], Any]) -> None:
        for row in rows:
            again = duplicate(row)
            assert type(again) is type(row)
            assert again == row
            assert again.columns == row.columns
            assert again["area"] == "2.50"

    def test_of_a_table_without_columns_is_empty(self, codec: Any) -> None:
        relation = Relation(1, "s", "t", "d", ())
        row = codec.Row(relation, ())
        for empty in (row, decoded(codec, Insert(relation, row)).new):
            assert (len(empty), list(empty), empty.asdict()) == (0, [], {})

    def test_finds_the_first_of_two_equal_names(self, codec: Any) -> None:
        twice = Relation(1, "s", "t", "d", (ID, dataclasses.replace(ID, type_oid=25)))
        assert codec.Row(twice, ("first", "second"))["id"] == "first"

    @pytest.mark.parametrize("values", [(), ("1", None), ("1", None, "2", "3")])
    def test_takes_as_many_values_as_there_are_columns(self, codec: Any, values: Any) -> None:
        with pytest.raises(ValueError, match=f"expected 3 values, got {len(values)}"):
            codec.Row(ITEM, values)

    def test_takes_as_many_values_as_there_are_key_columns(self, codec: Any) -> None:
        with pytest.raises(ValueError, match="expected 2 values, got 3"):
            codec.Row(ITEM, VALUES, key_only=True)


class Recorder:
    """Decodes integers and takes note of each call."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, value: Any) -> Any:
        self.calls.append(value)
        return int(value)


class TestDecoding:
    def test_a_value_is_made_when_it_is_first_read_and_only_then(self, codec: Any) -> None:
        recorder = Recorder()
        insert = Insert(ITEM, codec.Row(ITEM, ("17", "a", "2.50")))
        row = decoded(codec, insert, types={"int4": recorder}).new
        assert (len(row), "id" in row, row["note"]) == (3, True, "a")
        assert recorder.calls == []
        assert (row["id"], row[0], row.get("id"), row.astuple()) == (17, 17, 17, (17, "a", row[2]))
        assert row.asdict() == {"id": 17, "note": "a", "area": Decimal("2.50")}
        assert recorder.calls == ["17"]

    def test_what_was_read_one_by_one_is_what_is_read_at_once(self, codec: Any) -> None:
        columns = tuple(Column(f"c{i}", 23, -1, i % 3 == 0) for i in range(300))
        relation = Relation(1, "s", "wide", "d", columns)
        values = tuple(str(i) if i % 7 else None for i in range(300))
        whole = codec.Row(relation, values)
        key = codec.Row(relation, [str(i) for i in range(0, 300, 3)], key_only=True)
        for order in (range(300), reversed(range(300)), (5, 250, 5, 0)):
            row = decoded(codec, Insert(relation, whole)).new
            for i in order:
                value = values[i]
                assert row[i] == (int(value) if value else None)
            assert row.astuple() == tuple(v and int(v) for v in values)
        row = decoded(codec, Delete(relation, key, None)).key
        assert [row[f"c{i}"] for i in (297, 0, 3)] == [297, 0, 3]
        assert row.astuple() == tuple(range(0, 300, 3))

    def test_a_decoder_of_values_may_read_the_row_itself(self, codec: Any) -> None:
        rows: list[Any] = []
        seen: list[Any] = []

        def curious(value: Any) -> Any:
            if rows and not seen:
                seen.append(None)
                seen.append(rows[0].astuple())
            return value

        insert = Insert(ITEM, codec.Row(ITEM, ("17", "a", "2.50")))
        rows.append(decoded(codec, insert, types={"int4": curious}).new)
        assert rows[0]["id"] == "17"
        assert seen[1] == rows[0].astuple() == ("17", "a", Decimal("2.50"))

    def test_the_payload_may_change_before_a_value_is_read(self, codec: Any) -> None:
        decoder = codec.Decoder()
        decoder.feed(encode(ITEM))
        memory = bytearray(encode(Insert(ITEM, codec.Row(ITEM, ("17", "a", "2.50")))))
        row = decoder.feed(memory).new
        memory[:] = b"\xff" * len(memory)
        memory.clear()
        assert row.astuple() == (17, "a", Decimal("2.50"))

    def test_a_type_described_later_does_not_change_a_row(self, codec: Any) -> None:
        mood = Relation(1, "s", "t", "d", (Column("mood", 16385, -1, False),))
        decoder = codec.Decoder(types={"mood": str.upper})
        decoder.feed(encode(mood))
        row = decoder.feed(encode(Insert(mood, codec.Row(mood, ("sad",))))).new
        decoder.feed(b"Y\0\0\x40\1s\0mood\0")
        assert row["mood"] == "sad"
        decoder.feed(encode(mood))
        assert decoder.feed(encode(Insert(mood, codec.Row(mood, ("sad",))))).new["mood"] == "SAD"


class Odd:
    """A value of a user's class that cannot be shown."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        raise RuntimeError(self.text)


class TestRules:
    """What a rule of `types` raises is the row's, and is told with where it was raised."""

    FAILED = (
        "expected a rule of `types` to make a value of what came in message 'I', got an "
        "exception; row.raw() gives the bytes, in column "
    )

    @pytest.mark.parametrize(
        "raised", [RuntimeError("no"), ValueError("no"), UnicodeDecodeError("x", b"", 0, 1, "no")]
    )
    @pytest.mark.parametrize("value", ["a", b"a"], ids=["text", "binary"])
    def test_one_that_raises(self, codec: Any, raised: Exception, value: Any) -> None:
        def rule(value: Any) -> Any:
            raise raised

        change = Insert(ITEM, codec.Row(ITEM, ("17", value, "2.50")))
        row = decoded(codec, change, types={"text": rule}).new
        for read in (lambda: row["note"], row.astuple, row.asdict, lambda: row[1], lambda: row[1]):
            with pytest.raises(DecodeError) as caught:
                read()
            error = caught.value
            assert str(error) == (
                f'{self.FAILED}"note" of public.item, type text: {type(raised).__name__} '
                "(offset 20, LSN 1/2)"
            )
            assert (error.tag, error.offset, error.lsn) == (b"I", 20, Lsn("1/2"))
            assert error.__cause__ is raised
            assert error.__context__ is None
        assert (row.raw("note"), row["id"], row["area"]) == (b"a", 17, Decimal("2.50"))
        assert repr(row) == "<Row id=17 note=<cannot be decoded: b'a'> area=Decimal('2.50')>"

    def test_one_of_a_part_names_the_part(self, codec: Any) -> None:
        relation = Relation(1, "s", "t", "d", (Column("tags", 1009, -1, False),))

        def rule(value: Any) -> Any:
            raise KeyError(value)

        change = Insert(relation, codec.Row(relation, ("{a,b}",)))
        row = decoded(codec, change, types={"text": rule}).new
        with pytest.raises(DecodeError, match='"tags" of s.t, type text: KeyError') as caught:
            row[0]
        assert repr(caught.value.__cause__) == "KeyError('a')"

    def test_what_is_no_error_is_let_through(self, codec: Any) -> None:
        def rule(value: Any) -> Any:
            raise KeyboardInterrupt

        change = Insert(ITEM, codec.Row(ITEM, VALUES))
        row = decoded(codec, change, types={"int4": rule}).new
        for read in (lambda: row[0], row.astuple, lambda: repr(row)):
            with pytest.raises(KeyboardInterrupt):
                read()

    def test_a_value_that_cannot_be_shown(self, codec: Any) -> None:
        change = Insert(ITEM, codec.Row(ITEM, ("17", "a", "2.50")))
        row = decoded(codec, change, types={"text": Odd}).new
        assert row["note"].text == "a"
        assert repr(row) == "<Row id=17 note=<cannot be shown: RuntimeError> area=Decimal('2.50')>"
        assert repr(row) in repr(Insert(ITEM, row))


class TestRepr:
    def test_is_short_however_long_the_values(self, codec: Any) -> None:
        many = ["y" * 50] * 10**4
        row = codec.Row(ITEM, ("x" * 10**6, b"\0" * 10**6, many))
        assert repr(row) == (
            f"<Row id='{'x' * 100}'... of 1000000 note={bytes(100)!r}... of 1000000 "
            f"area={str(many)[:200]}...>"
        )
        bad = decoded(codec, Insert(ITEM, codec.Row(ITEM, (b"1" * 1000, None, None)))).new
        assert repr(bad) == (
            f"<Row id=<cannot be decoded: {b'1' * 100!r}... of 1000> note=None area=None>"
        )

    def test_is_short_however_many_the_columns(self, codec: Any) -> None:
        columns = tuple(Column(f"c{i}", 23, -1, False) for i in range(1600))
        relation = Relation(1, "s", "wide", "d", columns)
        recorder = Recorder()
        row = decoded(
            codec,
            Insert(relation, codec.Row(relation, ["1"] * 1600)),
            types={"int4": recorder},
        ).new
        assert repr(row).startswith("<Row c0=1 c1=1 ")
        assert repr(row).endswith(" c22=1 c23=1 and 1576 more columns>")
        assert len(recorder.calls) == 24
        assert repr(relation) == (
            f"<Relation s.wide ({', '.join(f'c{i}' for i in range(24))} and 1576 more) oid=1 "
            "replica_identity=d>"
        )

    def test_cannot_steer_a_terminal(self, codec: Any) -> None:
        class Steering:
            def __repr__(self) -> str:
                return "\x1b[2J"

        assert "\x1b" not in repr(codec.Row(ITEM, (Steering(), None, None)))


class TestIdentity:
    """By what a changed row can be found, and what an update leaves out."""

    def test_of_an_update_is_key_or_old_or_what_did_not_change(self, codec: Any) -> None:
        new, key = codec.Row(ITEM, ("2", None, "2.50")), codec.Row(ITEM, ("1", "2.50"), True)
        for key_given, old in ((key, None), (None, codec.Row(ITEM, VALUES))):
            by_hand = Update(ITEM, key_given, old, new)
            for update in (by_hand, decoded(codec, by_hand)):
                assert update.identity is (update.key or update.old)
        by_hand = Update(ITEM, None, None, new)
        for update in (by_hand, decoded(codec, by_hand)):
            identity = update.identity
            assert (identity.columns, identity.places) == ((ID, AREA), (0, 2))
            assert [str(value) for value in identity] == ["2", "2.50"]
        assert identity.raw("area") == b"2.50"
        update.new.astuple()
        assert update.identity == identity
        assert update.identity.lsn == update.lsn == Lsn("1/2")

    def test_is_refused_where_no_value_would_mean_every_row(self, codec: Any) -> None:
        bare = dataclasses.replace(ITEM, replica_identity="d", columns=(NOTE,))
        full = dataclasses.replace(ITEM, replica_identity="f")
        for change in (
            Update(bare, None, None, codec.Row(bare, ("x",))),
            Update(full, None, None, codec.Row(full, VALUES)),
            Delete(bare, codec.Row(bare, (), True), None),
            Delete(bare, None, None),
        ):
            with pytest.raises(UsageError, match="by which values a row can be found"):
                change.identity  # noqa: B018

    def test_complete_fills_in_what_is_known(self, codec: Any) -> None:
        new = codec.Row(ITEM, (UNCHANGED, UNCHANGED, "2.50"))
        key = codec.Row(ITEM, ("1", "2.50"), True)
        whole = codec.Row(ITEM, ("1", "long", "2"))
        for (key_given, old), expected in (
            ((None, None), (UNCHANGED, UNCHANGED)),
            ((key, None), (1, UNCHANGED)),
            ((None, whole), (1, "long")),
            # What is stored out of line is not NULL.
            ((None, codec.Row(ITEM, ("1", None, "2"))), (1, UNCHANGED)),
        ):
            update = decoded(codec, Update(ITEM, key_given, old, new))
            again = update.complete()
            assert again.astuple() == (*expected, Decimal("2.50"))
            assert (again is update.new) == ((key_given, old) == (None, None))
            assert (again.columns, again.lsn) == (ITEM.columns, update.lsn)
            assert Update(ITEM, update.key, update.old, again).complete() == again
            assert pickle.loads(pickle.dumps(update)).complete() == again

    def test_complete_reads_nothing_where_nothing_is_missing(self, codec: Any) -> None:
        recorder = Recorder()
        row = codec.Row(ITEM, VALUES)
        update = decoded(codec, Update(ITEM, None, row, row), types={"int4": recorder})
        assert update.complete() is update.new
        assert recorder.calls == []

    def test_a_key_row_of_other_columns_is_one_of_values_too(self, codec: Any) -> None:
        row = codec.Row(ITEM, ("x", "2.50"), places=(1, 2))
        assert row.asdict() == {"note": "x", "area": "2.50"}
        for places in ((2, 1), (1, 1), (1, 3), (-1, 1), (1.5, 2)):
            with pytest.raises(ValueError, match="places of columns in their order"):
                codec.Row(ITEM, ("x", "2.50"), places=places)


class TestRaw:
    def test_gives_the_bytes_that_were_sent(self, codec: Any) -> None:
        row = decoded(codec, Insert(ITEM, codec.Row(ITEM, ("17", UNCHANGED, b"\0\1")))).new
        assert (row.raw("id"), row.raw(1), row.raw(-1)) == (b"17", UNCHANGED, b"\0\1")
        assert decoded(codec, Insert(ITEM, codec.Row(ITEM, VALUES))).new.raw("note") is None
        key = codec.Row(ITEM, ("1", "2.50"), key_only=True)
        assert decoded(codec, Delete(ITEM, key, None)).key.raw("area") == b"2.50"
        with pytest.raises(KeyError):
            row.raw("price")

    def test_is_not_to_be_had_of_values(self, codec: Any) -> None:
        with pytest.raises(ValueError, match="made from values"):
            codec.Row(ITEM, VALUES).raw(0)

    def test_helps_where_a_value_cannot_be_made(self, codec: Any) -> None:
        payload = encode(Insert(ITEM, codec.Row(ITEM, ("17", "a?b", "2.50"))))
        decoder = codec.Decoder()
        decoder.feed(encode(ITEM))
        row = decoder.feed(payload.replace(b"?", b"\xff"), lsn=Lsn("1/2")).new
        for read in (lambda: row["note"], row.astuple, row.asdict, lambda: row[1], lambda: row[1]):
            with pytest.raises(DecodeError) as caught:
                read()
            error = caught.value
            assert str(error) == (
                "expected text that can be decoded in message 'I', got other bytes, which "
                "row.raw() gives, in column "
                '"note" of public.item (offset 20, LSN 1/2)'
            )
            assert (error.tag, error.offset, error.lsn) == (b"I", 20, Lsn("1/2"))
            assert error.__cause__ is None
            assert error.__context__ is None
        assert (row.raw("note"), row["id"], row["area"]) == (b"a\xffb", 17, Decimal("2.50"))
        assert repr(row) == (
            r"<Row id=17 note=<cannot be decoded: b'a\xffb'> area=Decimal('2.50')>"
        )
        # The stream itself is in order.
        assert decoder.feed(payload).new["note"] == "a?b"


def test_rows_of_both_twins_are_equal() -> None:
    native = pytest.importorskip("pgrepl.codec._native", exc_type=ImportError)
    from pgrepl.codec import _pure

    one, other = (
        decoded(twin, Insert(ITEM, twin.Row(ITEM, VALUES)), typed=False) for twin in (native, _pure)
    )
    assert one == other
    assert other == one
    assert hash(one.new) == hash(other.new)
    assert native.Row(ITEM, ("2", None, "2.50")) != other.new
    assert other.new != native.Row(ITEM, ("2", None, "2.50"))
