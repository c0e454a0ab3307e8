"""The values that pgoutput is decoded into: immutable, comparable, matchable, and safe to copy."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from pgrepl.codec import Row
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Unchanged,
    Update,
    to_datetime,
)
from tests.support.pgoutput_strategies import Conversation, conversations

ID, NOTE, AREA = (
    Column("id", 23, -1, True),
    Column("note", 25, -1, False),
    Column("area", 1700, 786438, True),
)
ITEM = Relation(16389, "public", "item", "i", (ID, NOTE, AREA))
ROW = Row(ITEM, ("1", None, "2.50"))
KEY = Row(ITEM, ("1", "2.50"), key_only=True)

BEGIN = Begin(Lsn("1/F73E0220"), 848653377652022, 732)
TIME = 848653377652022
COMMIT = Commit(Lsn("1/F73E0220"), Lsn("1/F73E0250"), TIME)
PREPARED = (Lsn("1/F73E0220"), Lsn("1/F73E0250"), TIME, 732, "gid")
STREAM_ABORT = StreamAbort(732, 734, Lsn("1/F73E0220"), TIME)
UPDATE = Update(ITEM, KEY, None, Row(ITEM, ("2", UNCHANGED, b"\0\1")))
MESSAGES: dict[str, LogicalMessage] = {
    "begin": BEGIN,
    "commit": COMMIT,
    "origin": Origin(Lsn(0), "elsewhere"),
    "relation": ITEM,
    "type": Type(16385, "public", "mood"),
    "insert": Insert(ITEM, ROW),
    "update": UPDATE,
    "delete": Delete(ITEM, None, ROW),
    "truncate": Truncate((ITEM,), cascade=True, restart_identity=False),
    "message": Message(False, Lsn(1), "prefix", b"content"),
    "streamed insert": Insert(ITEM, ROW, 733),
    "stream start": StreamStart(732, first_segment=True),
    "stream stop": StreamStop(),
    "stream commit": StreamCommit(732, Lsn("1/F73E0220"), Lsn("1/F73E0250"), TIME),
    "stream abort": StreamAbort(732, 733),
    "stream abort with details": STREAM_ABORT,
    "begin prepare": BeginPrepare(*PREPARED),
    "prepare": Prepare(*PREPARED),
    "commit prepared": CommitPrepared(*PREPARED),
    "rollback prepared": RollbackPrepared(Lsn(1), Lsn(2), TIME, TIME, 732, "gid"),
    "stream prepare": StreamPrepare(*PREPARED),
}
every_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=list(MESSAGES))

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle 2": lambda value: pickle.loads(pickle.dumps(value, 2)),
    "pickle": lambda value: pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)),
}
every_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=list(COPIES))


class TestUnchanged:
    def test_has_no_truth_value(self) -> None:
        with pytest.raises(TypeError, match="is UNCHANGED"):
            bool(UNCHANGED)
        with pytest.raises(TypeError):
            if ROW[0] and UNCHANGED:
                pytest.fail("an unchanged value was taken for one")

    def test_equals_nothing_but_itself(self) -> None:
        assert [Unchanged()] == [UNCHANGED]
        others: tuple[Any, ...] = (None, "", "UNCHANGED", b"", 0, False, Ellipsis)
        for other in others:
            assert other != UNCHANGED

    def test_is_the_only_one(self) -> None:
        assert Unchanged() is UNCHANGED

    @every_copy
    def test_stays_the_only_one(self, duplicate: Callable[[Any], Any]) -> None:
        assert duplicate(UNCHANGED) is UNCHANGED
        assert duplicate(Row(ITEM, ("1", UNCHANGED, "2")))["note"] is UNCHANGED

    def test_can_be_hashed_and_shown(self) -> None:
        assert {UNCHANGED: 1}[UNCHANGED] == 1
        assert repr(UNCHANGED) == str(UNCHANGED) == "UNCHANGED"
        assert not hasattr(UNCHANGED, "__dict__")


class TestMessages:
    @every_message
    def test_cannot_be_changed(self, message: LogicalMessage) -> None:
        for name in (*message.__match_args__, "colour"):
            # A frozen class with slots says TypeError for a name that it does not have.
            with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
                setattr(message, name, None)
        for name in message.__match_args__:
            with pytest.raises(dataclasses.FrozenInstanceError):
                delattr(message, name)
        assert not hasattr(message, "__dict__")

    @every_message
    @every_copy
    def test_survives_copying(
        self, message: LogicalMessage, duplicate: Callable[[Any], Any]
    ) -> None:
        again = duplicate(message)
        assert type(again) is type(message)
        assert (again, repr(again), hash(again)) == (message, repr(message), hash(message))

    @every_copy
    def test_what_is_derived_survives_copying(self, duplicate: Callable[[Any], Any]) -> None:
        update = duplicate(UPDATE)
        assert update.relation.key_columns == (ID, AREA)
        assert (update.key["area"], update.new["area"]) == ("2.50", b"\0\1")
        assert Row(update.relation, ("1", "2"), key_only=True)["area"] == "2"
        assert type(duplicate(BEGIN).final_lsn) is Lsn

    @given(conversations())
    def test_any_message_survives_pickling(self, conversation: Conversation) -> None:
        for message in (*conversation.before, conversation.message):
            again = pickle.loads(pickle.dumps(message))
            assert (again, repr(again)) == (message, repr(message))

    @every_message
    def test_compares_by_value(self, message: LogicalMessage) -> None:
        again = dataclasses.replace(message)
        assert again is not message
        assert (again, hash(again)) == (message, hash(message))
        others = [other for other in MESSAGES.values() if other is not message]
        assert message not in others

    @every_message
    def test_differs_by_each_field(self, message: LogicalMessage) -> None:
        for name in message.__match_args__:
            if name == "xid" and isinstance(message, Relation | Type):
                continue
            other: Any = (ID,) if name == "columns" else object()
            assert dataclasses.replace(message, **{name: other}) != message, name

    @pytest.mark.parametrize("message", [ITEM, MESSAGES["type"]])
    def test_a_description_is_what_it_says_wherever_it_comes_from(self, message: Any) -> None:
        streamed = dataclasses.replace(message, xid=733)
        assert (streamed, hash(streamed)) == (message, hash(message))
        assert "xid=733" in repr(streamed)
        assert repr(streamed) != repr(message)

    @pytest.mark.parametrize("cls", [Insert, Update, Delete, Truncate, Message, Relation, Type])
    def test_the_xid_comes_last_and_is_none_outside_of_streams(self, cls: Any) -> None:
        assert cls.__match_args__[-1] == "xid"
        messages: list[Any] = [each for each in MESSAGES.values() if type(each) is cls]
        assert messages[0].xid is None

    @pytest.mark.parametrize(
        ("schema", "name", "full"),
        [
            ("public", "item", "public.item"),
            ("public", "Item", 'public."Item"'),
            ("a b", 'q"', '"a b"."q"""'),
            ("user", "table", '"user"."table"'),
            ("s", "größe", 's."größe"'),
            ("_x1", "1x", '_x1."1x"'),
            ("s", "a$b", 's."a$b"'),
            ("s", "", 's.""'),
            ("s", "a\n", 's."a\n"'),
        ],
    )
    def test_the_full_name_is_quoted_where_sql_needs_it(
        self, schema: str, name: str, full: str
    ) -> None:
        assert dataclasses.replace(ITEM, schema=schema, name=name).full_name == full

    def test_a_replaced_relation_derives_anew(self) -> None:
        narrow = dataclasses.replace(ITEM, columns=(NOTE, AREA))
        assert narrow.key_columns == (AREA,)
        assert Row(narrow, ("x", "1"))["area"] == "1"

    @every_message
    def test_every_time_is_an_aware_datetime_too(self, message: LogicalMessage) -> None:
        moment = datetime(2026, 11, 22, 9, 2, 57, 652022, tzinfo=UTC)
        times = [name for name in message.__match_args__ if name.endswith("_time")]
        for name in times:
            found = getattr(message, name.removesuffix("time") + "datetime")
            if getattr(message, name) is None:
                assert found is None
            else:
                assert (found, found.tzinfo) == (moment, UTC)
        assert len(times) == sum(name.endswith("_datetime") for name in dir(message))

    def test_what_prepares_is_not_mistaken_for_one_another(self) -> None:
        # They share a base, which no pattern must be able to tell.
        for message in (BeginPrepare(*PREPARED), Prepare(*PREPARED), StreamPrepare(*PREPARED)):
            assert [isinstance(message, cls) for cls in (BeginPrepare, Prepare, StreamPrepare)] == [
                type(message) is cls for cls in (BeginPrepare, Prepare, StreamPrepare)
            ]

    def test_all_fit_one_match_statement(self) -> None:
        assert [describe(message) for message in MESSAGES.values()] == [
            "begin 732 at 1/F73E0220",
            "commit up to 1/F73E0250",
            "origin elsewhere at 0/0",
            "relation item of 3 columns, id first",
            "type mood",
            "insert 1 into item",
            "key 1 of item became 2",
            "delete 1 from item",
            "truncate item, cascade",
            "message prefix: content",
            "insert 1 into item by 733",
            "stream 732 first",
            "stream stop",
            "stream 732 committed up to 1/F73E0250",
            "stream 732 without 733",
            "stream 732 without 734 at 1/F73E0220",
            "gid begins at 1/F73E0220",
            "gid prepared up to 1/F73E0250",
            "gid committed up to 1/F73E0250",
            "gid prepared up to 0/1 rolled back up to 0/2",
            "gid of stream 732 prepared up to 1/F73E0250",
        ]


def describe(message: LogicalMessage) -> str:
    """Take every class apart by position, and some by name."""
    match message:
        case Begin(final_lsn, _, xid):
            return f"begin {xid} at {final_lsn}"
        case Commit(_, end_lsn, _):
            return f"commit up to {end_lsn}"
        case Origin(commit_lsn, name):
            return f"origin {name} at {commit_lsn}"
        case Relation(_, "public", name, "i", (Column(first, _, -1, True), *_) as columns):
            return f"relation {name} of {len(columns)} columns, {first} first"
        case Type(_, "public", name):
            return f"type {name}"
        case Insert(Relation(name=name), new, None):
            return f"insert {new['id']} into {name}"
        case Insert(Relation(name=name), new, xid):
            return f"insert {new['id']} into {name} by {xid}"
        case Update(relation, Row() as key, None, new):
            return f"key {key['id']} of {relation.name} became {new['id']}"
        case Delete(relation, None, Row() as old):
            return f"delete {old['id']} from {relation.name}"
        case Truncate((relation,), cascade=True, restart_identity=False):
            return f"truncate {relation.name}, cascade"
        case Message(transactional=False, prefix=prefix, content=content):
            return f"message {prefix}: {content.decode()}"
        case _:
            return describe_transaction(message)


def describe_transaction(message: LogicalMessage) -> str:
    match message:
        case StreamStart(xid, first_segment=True):
            return f"stream {xid} first"
        case StreamStop():
            return "stream stop"
        case StreamCommit(xid, _, end_lsn, _):
            return f"stream {xid} committed up to {end_lsn}"
        case StreamAbort(xid, subxid, None, None):
            return f"stream {xid} without {subxid}"
        case StreamAbort(xid, subxid, abort_lsn, _):
            return f"stream {xid} without {subxid} at {abort_lsn}"
        case BeginPrepare(prepare_lsn, _, _, _, gid):
            return f"{gid} begins at {prepare_lsn}"
        case Prepare(_, end_lsn, _, _, gid):
            return f"{gid} prepared up to {end_lsn}"
        case CommitPrepared(_, end_lsn, _, _, gid):
            return f"{gid} committed up to {end_lsn}"
        case RollbackPrepared(prepare_end_lsn, rollback_end_lsn, _, _, _, gid):
            return f"{gid} prepared up to {prepare_end_lsn} rolled back up to {rollback_end_lsn}"
        case StreamPrepare(_, end_lsn, _, xid, gid):
            return f"{gid} of stream {xid} prepared up to {end_lsn}"
    raise AssertionError(f"nothing matched {message!r}")


class TestTime:
    def test_counts_from_the_year_2000(self) -> None:
        assert to_datetime(0) == datetime(2000, 1, 1, tzinfo=UTC)
        assert to_datetime(-1) == datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
        assert to_datetime(0).tzinfo is UTC

    def test_reaches_from_the_year_1_to_9999(self) -> None:
        assert to_datetime(-63082281600000000) == datetime.min.replace(tzinfo=UTC)
        assert to_datetime(252455615999999999) == datetime.max.replace(tzinfo=UTC)

    @pytest.mark.parametrize("time", [-(2**63), -63082281600000001, 252455616000000000, 2**63 - 1])
    def test_raises_beyond(self, time: int) -> None:
        with pytest.raises(OverflowError):
            to_datetime(time)
        # The number itself stays readable.
        assert Begin(Lsn(0), time, 0).commit_time == time
