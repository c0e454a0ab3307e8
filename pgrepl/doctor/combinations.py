"""Publications of one stream that cannot be streamed together.

The server finds it at the first change of a table, and ends the stream with an error, each time it
comes to that change. Of a partition those publications count that publish it by the name of the
topmost partitioned table.

Source: PostgreSQL documentation, "Column Lists" (Combining Multiple Publications), "Generated
Column Replication".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from .catalogue import Publication, PublishedTable
from .finding import Finding, Level
from .tables import is_refused, published_again

__all__ = ["check_combinations"]

_ENDS: Final = "A stream of both ends with an error at the first change of that table."
# Before that, a list of all columns is as good as none only where none is dropped or generated.
_LIVE_COLUMNS: Final = 160000
_Pair: TypeAlias = tuple[Publication, PublishedTable]


def check_combinations(
    version: int, publications: Sequence[Publication], tables: Sequence[PublishedTable]
) -> Iterator[Finding]:
    """Look for tables that publications of one stream publish in different ways."""
    by_name = {each.name: each for each in publications}
    written: dict[tuple[str, str], list[PublishedTable]] = defaultdict(list)
    for table in tables:
        written[table.schema, table.table].append(table)
    told = set()
    for entries in written.values():
        level = max(each.level for each in entries)
        pairs = [(by_name[each.publication], each) for each in entries if each.level == level]
        published = pairs[0][1].published_schema, pairs[0][1].published_table
        if published not in told:
            told.add(published)
            yield from _check_pairs(version, pairs)


def _check_pairs(version: int, pairs: Sequence[_Pair]) -> Iterator[Finding]:
    first, *others = pairs
    unlisted = [each for each in pairs if each[1].columns is None]
    has_generated = bool(first[1].stored_columns or first[1].virtual_columns)
    for publication, table in unlisted[1:]:
        if has_generated and publication.generated != unlisted[0][0].generated:
            yield _generated_differ(unlisted[0][0], publication, table)
            return
    generated = bool(unlisted and unlisted[0][0].generated)
    columns = _published_columns(first[1], generated)
    for other in others:
        has_list = first[1].columns is not None
        is_told_apart = version < _LIVE_COLUMNS and has_list == (other[1].columns is None)
        if set(_published_columns(other[1], generated)) != set(columns) or (
            is_told_apart and (first[1].has_dropped_columns or first[1].stored_columns)
        ):
            yield _lists_differ(first, other, generated)
            return


def _published_columns(table: PublishedTable, generated: bool) -> tuple[str, ...]:
    """Return the columns that are published of a table."""
    if table.columns is not None:
        return table.columns
    hidden = table.virtual_columns if generated else (*table.stored_columns, *table.virtual_columns)
    return tuple(name for name in table.all_columns if name not in hidden)


def _subject(table: PublishedTable) -> dict[str, str]:
    return {
        "publication": table.publication,
        "schema": table.published_schema,
        "table": table.published_table,
    }


def _generated_differ(one: Publication, other: Publication, table: PublishedTable) -> Finding:
    # To publish them is never in a writer's way; not to may be.
    mended = other if one.generated else one
    return Finding(
        "generated_columns_differ",
        Level.PROBLEM,
        f"{one.name!r} and {other.name!r} have different values of publish_generated_columns, and "
        f"{table.published_name} has generated columns",
        _ENDS,
        (f"ALTER PUBLICATION {mended.sql} SET (publish_generated_columns = stored);",),
        subject=_subject(table),
    )


def _lists_differ(one: _Pair, other: _Pair, generated: bool) -> Finding:
    # A publication of all tables, or a schema's, has no list that could be changed.
    ways = [(kept, changed) for kept, changed in ((one, other), (other, one)) if changed[1].columns]
    sql = next(
        (sql for kept, changed in ways if (sql := _listed_alike(kept, changed, generated))), ()
    )
    return Finding(
        "column_lists_differ",
        Level.PROBLEM,
        f"{one[0].name!r} and {other[0].name!r} publish different columns of "
        f"{one[1].published_name}",
        _ENDS,
        sql,
        ""
        if sql
        else "give both the same columns, those of the replica identity among them: without these "
        "the server refuses writers UPDATE and DELETE",
        _subject(other[1] if other[1].columns is not None else one[1]),
    )


def _listed_alike(kept: _Pair, changed: _Pair, generated: bool) -> tuple[str, ...]:
    """Return the SQL that gives a publication the columns of the other one; none where its writers
    would be refused then."""
    publication, table = changed
    wanted = kept[1].columns
    if wanted is None and bool(kept[0].generated) != bool(publication.generated):
        wanted = _published_columns(kept[1], generated)
    if is_refused(publication, replace(table, columns=wanted)) and not is_refused(*changed):
        return ()
    return published_again(publication, table, wanted or ())
