"""Hypothesis strategies for what pgoutput can say, at its edges and between them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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
    Row,
    Truncate,
    Type,
    Update,
)

__all__ = ["conversations", "relations"]

_lsns = st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
lsns = _lsns.map(Lsn)
times = st.sampled_from([-(2**63), -1, 0, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)
oids = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
type_modifiers = st.sampled_from([-(2**31), -1, 0, 2**31 - 1]) | st.integers(-(2**31), 2**31 - 1)
# PostgreSQL's names and values hold every character but NUL; surrogates are no characters.
texts = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=20)
names = st.sampled_from(["", "public", "é", "\U0001f418", "x" * 63]) | texts
# An empty schema on the wire stands for pg_catalog, so no decoded one is empty.
schemas = names.map(lambda name: name or "pg_catalog")
values: st.SearchStrategy[Any] = (
    st.none() | st.just(UNCHANGED) | st.text("ab\0é\U0001f418", max_size=200) | st.binary()
)
columns = st.builds(Column, names, oids, type_modifiers, st.booleans())


def relations(max_columns: int = 8) -> st.SearchStrategy[Relation]:
    """Relations with any columns, equal names and no columns at all among them."""
    identities = st.sampled_from("dnfi")
    lists = st.lists(columns, max_size=max_columns).map(tuple)
    return st.builds(Relation, oids, schemas, names, identities, lists)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[tuple[Relation, ...], LogicalMessage]:
    """A message, and before it the relations that have to be described for it."""
    described: tuple[Relation, ...] = ()
    kind = draw(st.sampled_from(["alone", "insert", "update", "delete", "truncate"]))
    if kind == "alone":
        return described, draw(_messages_alone)
    if kind == "truncate":
        described = tuple(draw(st.lists(relations(3), max_size=4, unique_by=lambda r: r.oid)))
        listed = draw(st.lists(st.sampled_from(described), max_size=6)) if described else []
        return described, Truncate(tuple(listed), draw(st.booleans()), draw(st.booleans()))
    relation = draw(relations())
    return (relation,), draw(_changes(kind, relation))


_messages_alone: st.SearchStrategy[LogicalMessage] = st.one_of(
    st.builds(Begin, lsns, times, oids),
    st.builds(Commit, lsns, lsns, times),
    st.builds(Origin, lsns, names),
    st.builds(Type, oids, schemas, names),
    st.builds(Message, st.booleans(), lsns, names, st.binary()),
    relations(),
)


def _rows(relation: Relation, key_only: bool = False) -> st.SearchStrategy[Row]:
    width = len(relation.key_columns if key_only else relation.columns)
    return st.tuples(*[values] * width).map(lambda cells: Row(relation, cells, key_only))


def _changes(kind: str, relation: Relation) -> st.SearchStrategy[LogicalMessage]:
    new, key = _rows(relation), _rows(relation, key_only=True)
    one, none = st.just(relation), st.none()
    if kind == "insert":
        return st.builds(Insert, one, new)
    if kind == "delete":
        return st.builds(Delete, one, key, none) | st.builds(Delete, one, none, new)
    return st.one_of(
        st.builds(Update, one, none, none, new),
        st.builds(Update, one, key, none, new),
        st.builds(Update, one, none, new, new),
    )
