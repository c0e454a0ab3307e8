"""The tables of a publication: how an old row is named, and what the publication restricts.

Source: PostgreSQL documentation, "REPLICA IDENTITY" (ALTER TABLE), "Row Filters", "Column Lists",
"Generated Column Replication".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from .catalogue import Publication, PublishedTable
from .finding import Finding, Level
from .identities import Uses, better_key, full_is_taken, mending, unpublished
from .shown_sql import identifier

__all__ = ["check_table", "is_refused", "published_again"]

_REFUSED: Final = "The server refuses writers every UPDATE and DELETE of that table."


def check_table(publication: Publication, table: PublishedTable, uses: Uses) -> Iterator[Finding]:
    """Look at one table of a publication.

    `uses`: what all publications make of it, so that what mends one breaks no other.
    """
    if publication.needs_identity and table.is_written:
        if table.identity is None:
            yield _identity_missing(publication, table, uses)
        else:
            yield from _check_full(table, uses)
            yield from _check_column_list(publication, table, table.identity, uses)
            yield from _check_row_filter(publication, table, table.identity, uses)
            yield from _check_generated(publication, table, table.identity, uses)
            yield from _check_partition(table, table.identity, uses)
    if table.has_stored_long_values and "update" in publication.operations:
        yield from _check_long_values(table)


def is_refused(publication: Publication, table: PublishedTable) -> bool:
    """Whether a publication would have the server refuse a table's writers."""
    found = check_table(publication, table, [(publication, table)])
    return any(each.level is Level.PROBLEM for each in found)


def _subject(table: PublishedTable) -> dict[str, str]:
    return {"publication": table.publication, **_table_subject(table)}


def _table_subject(table: PublishedTable) -> dict[str, str]:
    """The subject of what is the same for all publications, and so said once."""
    return {"schema": table.schema, "table": table.table}


def _by_hand(table: PublishedTable, uses: Uses) -> str:
    """What is to be done where no replica identity would do."""
    names = list(dict.fromkeys(repr(each.name) for each, _ in uses))
    if len(names) > 1:
        return (
            f"no replica identity suits all of {', '.join(names)}: alter a publication, or give "
            "the columns of row filters to the key, and the columns of the key to column lists"
        )
    key = "primary key, not deferrable," if table.has_deferrable_key else "primary key"
    return f"give it a {key} of columns that are published, and the identity DEFAULT"


def _told_operations(publication: Publication) -> str:
    return " and ".join(kind for kind in ("update", "delete") if kind in publication.operations)


def _identity_missing(publication: Publication, table: PublishedTable, uses: Uses) -> Finding:
    sql = mending(uses)
    is_deferrable = table.has_deferrable_key
    reason = {
        "d": "a primary key that is deferrable, which cannot be the replica identity"
        if is_deferrable
        else "no primary key",
        "i": "lost the index of its replica identity",
        "n": "the replica identity NOTHING",
    }.get(table.identity_kind, "no replica identity")
    has = "" if table.identity_kind == "i" else "has "
    then = _by_hand(table, uses) if not sql else ""
    if sql.endswith("FULL;"):
        make = "make its primary key again, not deferrable" if is_deferrable else ""
        filtered = dict.fromkeys(name for _, each in uses for name in each.filter_columns)
        with_those = f" with {', '.join(filtered)} among its columns" if filtered else ""
        then = f"or {make or 'give it a primary key'}{with_those}, which costs less"
    return Finding(
        "replica_identity_missing",
        Level.PROBLEM,
        f"{table.name} {has}{reason}, while {publication.name!r} publishes its "
        f"{_told_operations(publication)}",
        "Nothing tells which row was meant, so the server refuses writers every UPDATE and "
        "DELETE of it that is published.",
        (sql,) if sql else (),
        then,
        _subject(table),
    )


def _check_full(table: PublishedTable, uses: Uses) -> Iterator[Finding]:
    # Where the server refuses it, that is a finding of its own.
    if table.identity_kind == "f" and full_is_taken(uses):
        better = mending(uses) if better_key(uses) else ""
        # Where row filters ask for columns, it takes a key that has them.
        is_free = not any(each.filter_columns for _, each in uses)
        would_do = is_free and not (table.has_primary_key or better)
        key = "key that is not deferrable" if table.has_deferrable_key else "key"
        yield Finding(
            "replica_identity_full",
            Level.WARNING if better else Level.HINT,
            f"{table.name} has the replica identity FULL",
            "Every UPDATE and DELETE writes and sends the whole old row besides; keep it only "
            "where a consumer wants the old values.",
            (better,) if better else (),
            f"a primary {key} would do instead" if would_do else "",
            _table_subject(table),
        )


def _check_column_list(
    publication: Publication, table: PublishedTable, identity: Sequence[str], uses: Uses
) -> Iterator[Finding]:
    """A column list that lacks something of the replica identity."""
    if table.columns is None:
        return
    is_full = table.identity_kind == "f"
    lacking = [name for name in identity if name not in table.columns]
    if not is_full and not lacking:
        return
    sql: tuple[str, ...] = ()
    if better_key(uses) is not None:
        sql = (mending(uses),)
    elif is_full:
        others = [each for each in uses if each[1] is not table]
        if full_is_taken([*others, (publication, replace(table, columns=None))]):
            sql = published_again(publication, table, ())
    elif not _cannot_be_listed(publication, table, lacking):
        sql = published_again(publication, table, (*table.columns, *lacking))
    yield Finding(
        "column_list_identity",
        Level.PROBLEM,
        f"the column list of {publication.name!r} for {table.name} leaves out columns of its "
        f"replica identity: {'all columns' if is_full else ', '.join(lacking)}",
        _REFUSED,
        sql,
        "" if sql else _by_hand(table, uses),
        _subject(table),
    )


def _cannot_be_listed(
    publication: Publication, table: PublishedTable, names: Sequence[str]
) -> bool:
    """Whether a column list cannot have some columns: before 18 no generated ones."""
    return publication.generated is None and any(name in table.stored_columns for name in names)


def _check_row_filter(
    publication: Publication, table: PublishedTable, identity: Sequence[str], uses: Uses
) -> Iterator[Finding]:
    """A row filter that asks for more than the replica identity."""
    foreign = [name for name in table.filter_columns if name not in identity]
    if table.identity_kind == "f" or not foreign:
        return
    sql = mending(uses)
    then = "" if sql else _by_hand(table, uses)
    if not sql and len(uses) == 1:
        then = (
            "filter by columns of the replica identity alone, or give the table an identity that "
            "has those columns: a unique index of published columns that are NOT NULL"
        )
    yield Finding(
        "row_filter_identity",
        Level.PROBLEM,
        f"the row filter of {publication.name!r} for {table.name} asks for columns that "
        f"are not of its replica identity: {', '.join(foreign)}",
        _REFUSED,
        (sql,) if sql else (),
        then,
        _subject(table),
    )


def _check_generated(
    publication: Publication, table: PublishedTable, identity: Sequence[str], uses: Uses
) -> Iterator[Finding]:
    """Generated columns of the replica identity that are not published."""
    if table.columns is not None:
        return  # it has to list them, and that is looked at already
    is_full = table.identity_kind == "f"
    hidden = unpublished(publication, table, table.all_columns if is_full else identity)
    is_refused = publication.generated is not None
    if not hidden or (is_full and not is_refused):
        return
    can_publish = is_refused and not any(name in table.virtual_columns for name in hidden)
    publish = f"ALTER PUBLICATION {publication.sql} SET (publish_generated_columns = stored);"
    sql, then = "", _by_hand(table, uses)
    if better_key(uses) is not None:
        sql = mending(uses)
        then = f"or, for all tables of the publication, {publish[:-1]}" if can_publish else ""
    elif can_publish:
        sql, then = publish, ""
    yield Finding(
        "generated_identity",
        Level.PROBLEM if is_refused else Level.WARNING,
        f"the replica identity of {table.name} has generated columns that {publication.name!r} "
        f"does not publish: {', '.join(hidden)}",
        _REFUSED
        if is_refused
        else "An UPDATE or DELETE is told without them, so that nothing tells for sure which row "
        "was meant; PostgreSQL 18 refuses it.",
        (sql,) if sql else (),
        then,
        _subject(table),
    )


def _check_partition(
    table: PublishedTable, identity: Sequence[str], uses: Uses
) -> Iterator[Finding]:
    """A partition that is published as its root, whose old rows are named in another way."""
    root = table.published_identity
    if not table.level or (root is not None and set(root) == set(identity)):
        return
    told = "no column" if root is None else ", ".join(root) or "all columns"
    named = ", ".join(identity) or "all columns"
    would_do = root == () and full_is_taken(uses)
    yield Finding(
        "partition_identity",
        Level.WARNING,
        f"old rows of {table.name} are named by {named}, while {table.published_name}, by whose "
        f"name it is published, tells of {told}",
        "The server goes by the partition, and tells consumers of the partitioned table's key: who "
        "goes by that finds rows by other columns than those that come, or by none.",
        (f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL;",) if would_do else (),
        ""
        if would_do
        else "give both the same replica identity: a primary key of the partitioned table is that "
        "of all its partitions",
        _table_subject(table),
    )


def published_again(
    publication: Publication, table: PublishedTable, columns: Sequence[str]
) -> tuple[str, ...]:
    """Return the statement, in one transaction, that gives a table another column list.

    None where the row filter cannot be shown as it is, and so not be repeated.
    """
    where = "" if table.row_filter is None else f" WHERE {table.row_filter}"
    if not where.isprintable():
        return ()
    listed = f" ({', '.join(map(identifier, columns))})" if columns else ""
    name, again = publication.sql, table.published_sql
    return (
        f"BEGIN; ALTER PUBLICATION {name} DROP TABLE {again}; "
        f"ALTER PUBLICATION {name} ADD TABLE {again}{listed}{where}; COMMIT;",
    )


def _check_long_values(table: PublishedTable) -> Iterator[Finding]:
    if table.identity_kind != "f":
        yield Finding(
            "toast",
            Level.HINT,
            f"{table.name} has long values that are stored out of line",
            "An UPDATE that leaves such a value alone does not send it: a consumer gets UNCHANGED, "
            "and keeps the value that it has.",
            subject=_table_subject(table),
        )
