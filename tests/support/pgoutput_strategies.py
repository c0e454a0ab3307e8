"""Hypothesis strategies for what pgoutput can say, at its edges and between them."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from hypothesis import strategies as st

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
    Update,
)

__all__ = ["DIALECTS", "Conversation", "Dialect", "conversations", "relations"]


class Dialect(NamedTuple):
    """What the server was asked for: the arguments of a decoder."""

    proto_version: int
    streaming: str


DIALECTS = (
    Dialect(1, "off"),
    Dialect(2, "on"),
    Dialect(3, "on"),
    Dialect(4, "on"),
    Dialect(4, "parallel"),
)


class Conversation(NamedTuple):
    """A message, what has to come before it, and what has to come before anything else can."""

    dialect: Dialect
    before: tuple[LogicalMessage, ...]
    message: LogicalMessage

    @property
    def after(self) -> tuple[LogicalMessage, ...]:
        """The StreamStop of the block that is open then, if one is."""
        messages = (*self.before, self.message)
        starts = sum(isinstance(message, StreamStart) for message in messages)
        stops = sum(isinstance(message, StreamStop) for message in messages)
        return (StreamStop(),) * (starts - stops)


_lsns = st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
lsns = _lsns.map(Lsn)
times = st.sampled_from([-(2**63), -1, 0, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)
oids = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
xids = oids
type_modifiers = st.sampled_from([-(2**31), -1, 0, 2**31 - 1]) | st.integers(-(2**31), 2**31 - 1)
# PostgreSQL's names and values hold every character but NUL; surrogates are no characters.
texts = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=20)
names = st.sampled_from(["", "public", "é", "\U0001f418", "x" * 63]) | texts
# An empty schema on the wire stands for pg_catalog, so no decoded one is empty.
schemas = names.map(lambda name: name or "pg_catalog")
sent_values: st.SearchStrategy[Any] = st.text("ab\0é\U0001f418", max_size=200) | st.binary()
values: st.SearchStrategy[Any] = st.none() | st.just(UNCHANGED) | sent_values
columns = st.builds(Column, names, oids, type_modifiers, st.booleans())

Marks: TypeAlias = st.SearchStrategy[int | None]
"""The `xid` of a message: None outside of stream blocks, any number inside."""
unmarked: Marks = st.none()


def relations(max_columns: int = 8, marks: Marks = unmarked) -> st.SearchStrategy[Relation]:
    """Relations with any columns, equal names and no columns at all among them."""
    identities = st.sampled_from("dnfi")
    lists = st.lists(columns, max_size=max_columns).map(tuple)
    return st.builds(Relation, oids, schemas, names, identities, lists, marks)


@st.composite
def conversations(draw: st.DrawFn, dialect: Dialect | None = None) -> Conversation:
    """Any message of a dialect, inside of a stream block or outside."""
    dialect = dialect or draw(st.sampled_from(DIALECTS))
    block = dialect.proto_version >= 2 and draw(st.booleans())
    before: list[LogicalMessage] = [draw(_starts)] if block else []
    marks: Marks = xids if block else unmarked
    kind = draw(st.sampled_from(["alone", "insert", "update", "delete", "truncate"]))
    message: LogicalMessage
    if kind == "alone":
        message = draw(_anywhere(marks) | (_inside if block else _outside(dialect)))
    elif kind == "truncate":
        several = draw(st.lists(relations(3, marks), max_size=4, unique_by=lambda r: r.oid))
        listed = draw(st.lists(st.sampled_from(several), max_size=6)) if several else []
        before += several
        message = Truncate(tuple(listed), draw(st.booleans()), draw(st.booleans()), draw(marks))
    else:
        relation = draw(relations(marks=marks))
        before.append(relation)
        message = draw(_changes(kind, relation, marks))
    return Conversation(dialect, tuple(before), message)


_starts = st.builds(StreamStart, xids, st.booleans())
_inside: st.SearchStrategy[LogicalMessage] = st.builds(StreamStop)


def _anywhere(marks: Marks) -> st.SearchStrategy[LogicalMessage]:
    return st.one_of(
        st.builds(Origin, lsns, names),
        st.builds(Type, oids, schemas, names, marks),
        st.builds(Message, st.booleans(), lsns, names, st.binary(), marks),
        relations(marks=marks),
    )


def _outside(dialect: Dialect) -> st.SearchStrategy[LogicalMessage]:
    known: list[st.SearchStrategy[LogicalMessage]] = [
        st.builds(Begin, lsns, times, xids),
        st.builds(Commit, lsns, lsns, times),
    ]
    if dialect.streaming == "parallel":
        known.append(st.builds(StreamAbort, xids, xids, lsns, times))
    else:
        known.append(st.builds(StreamAbort, xids, xids))
    if dialect.proto_version >= 2:
        known += [_starts, st.builds(StreamCommit, xids, lsns, lsns, times)]
    if dialect.proto_version >= 3:
        known += [
            st.builds(each, lsns, lsns, times, xids, names)
            for each in (BeginPrepare, Prepare, CommitPrepared, StreamPrepare)
        ]
        known.append(st.builds(RollbackPrepared, lsns, lsns, times, times, xids, names))
    return st.one_of(known)


def _rows(relation: Relation) -> st.SearchStrategy[Row]:
    cells = st.tuples(*[values] * len(relation.columns))
    return cells.map(lambda cells: Row(relation, cells))


def _keys(relation: Relation) -> st.SearchStrategy[Row]:
    """Key-only rows: of the columns that are marked as the key mostly, and of any others."""
    marked = [place for place, column in enumerate(relation.columns) if column.is_key]
    each = st.sampled_from(range(len(relation.columns))) if relation.columns else st.nothing()
    places = st.just(marked) | st.sets(each).map(sorted)
    return places.flatmap(
        lambda chosen: st.tuples(*[sent_values] * len(chosen)).map(
            lambda cells: Row(relation, cells, places=chosen)
        )
    )


def _changes(kind: str, relation: Relation, marks: Marks) -> st.SearchStrategy[LogicalMessage]:
    new, key = _rows(relation), _keys(relation)
    one, none = st.just(relation), st.none()
    if kind == "insert":
        return st.builds(Insert, one, new, marks)
    if kind == "delete":
        return st.builds(Delete, one, key, none, marks) | st.builds(Delete, one, none, new, marks)
    return st.one_of(
        st.builds(Update, one, none, none, new, marks),
        st.builds(Update, one, key, none, new, marks),
        st.builds(Update, one, none, new, new, marks),
    )
