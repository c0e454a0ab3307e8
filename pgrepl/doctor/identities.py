"""Replica identities: which one the server takes for a table and what a publication makes of it.

What the server refuses a writer for is said where UPDATE and DELETE are checked: the identity has
to name a row, a column list has to have it, a row filter must not ask for more than it, and from
PostgreSQL 18 on all of its columns have to be published, generated ones too.

Source: PostgreSQL documentation, "REPLICA IDENTITY" (ALTER TABLE), "Row Filters", "Column Lists",
"Generated Column Replication".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from .catalogue import Key, Publication, PublishedTable
from .shown_sql import identifier

__all__ = ["Uses", "better_key", "full_is_taken", "mending", "unpublished", "uses_of_tables"]

Uses: TypeAlias = Sequence[tuple[Publication, PublishedTable]]
"""The publications that ask for the identity of one table, each with what it makes of it."""


def unpublished(
    publication: Publication, table: PublishedTable, columns: Iterable[str]
) -> list[str]:
    """Return which of some columns are generated and do not reach a consumer."""
    stored = () if publication.generated else table.stored_columns
    listed = table.columns or ()
    hidden = (*stored, *table.virtual_columns)
    return [name for name in columns if name in hidden and name not in listed]


def full_is_taken(uses: Uses) -> bool:
    """Whether the identity FULL would do for all publications of a table."""
    return all(_takes_full(publication, table) for publication, table in uses)


def _takes_full(publication: Publication, table: PublishedTable) -> bool:
    if table.columns is not None:
        return False
    # Before 18 generated columns are left out of the old row, and that is all.
    return publication.generated is None or not unpublished(publication, table, table.all_columns)


def better_key(uses: Uses) -> Key | None:
    """Return the best index that would do for all publications of a table."""
    keys = uses[0][1].keys if uses else ()
    return next(
        (
            key
            for key in keys
            if all(_takes_key(publication, table, key) for publication, table in uses)
        ),
        None,
    )


def _takes_key(publication: Publication, table: PublishedTable, key: Key) -> bool:
    return (
        set(table.filter_columns) <= set(key.columns)
        and (table.columns is None or set(key.columns) <= set(table.columns))
        and not unpublished(publication, table, key.columns)
    )


def mending(uses: Uses) -> str:
    """Return the statement for a replica identity that would do for all publications of a table;
    "" where there is none."""
    key = better_key(uses)
    if key is not None:
        choice = "DEFAULT" if key.is_primary else f"USING INDEX {identifier(key.index)}"
    elif full_is_taken(uses):
        choice = "FULL"
    else:
        return ""
    return f"ALTER TABLE {uses[0][1].sql} REPLICA IDENTITY {choice};"


def uses_of_tables(
    publications: Iterable[Publication], tables: Iterable[PublishedTable]
) -> dict[tuple[str, str], list[tuple[Publication, PublishedTable]]]:
    """Return by the schemas and names of tables which publications ask for their identities.

    All publications of the database count: a writer is refused for any one of them.
    """
    by_name = {each.name: each for each in publications}
    uses = defaultdict(list)
    for table in tables:
        publication = by_name.get(table.publication)
        if publication is not None and publication.needs_identity and table.is_written:
            uses[table.schema, table.table].append((publication, table))
    return uses
