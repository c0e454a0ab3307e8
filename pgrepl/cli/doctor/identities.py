"""Replica identities: which one the server takes for a table and what a publication makes of it.

What the server refuses a writer for is said where UPDATE and DELETE are checked: the identity has
to name a row, a column list has to have it, a row filter must not ask for more than it, and from
PostgreSQL 18 on all of its columns have to be published, generated ones too.

Source: PostgreSQL documentation, "REPLICA IDENTITY" (ALTER TABLE), "Row Filters", "Column Lists",
"Generated Column Replication".
"""

from __future__ import annotations

from collections.abc import Iterable

from ..sql import identifier
from .catalogue import Key, Publication, PublishedTable

__all__ = ["better_key", "full_is_taken", "mending", "unpublished"]


def unpublished(
    publication: Publication, table: PublishedTable, columns: Iterable[str]
) -> list[str]:
    """Return which of some columns are generated and do not reach a consumer."""
    stored = () if publication.generated else table.stored_columns
    listed = table.columns or ()
    hidden = (*stored, *table.virtual_columns)
    return [name for name in columns if name in hidden and name not in listed]


def full_is_taken(publication: Publication, table: PublishedTable) -> bool:
    """Whether the identity FULL would do, as the table is published."""
    if table.columns is not None:
        return False
    # Before 18 generated columns are left out of the old row, and that is all.
    return publication.generated is None or not unpublished(publication, table, table.all_columns)


def better_key(publication: Publication, table: PublishedTable) -> Key | None:
    """Return the best index that would do, as the table is published."""
    return next(
        (
            key
            for key in table.keys
            if set(table.filter_columns) <= set(key.columns)
            and (table.columns is None or set(key.columns) <= set(table.columns))
            and not unpublished(publication, table, key.columns)
        ),
        None,
    )


def mending(publication: Publication, table: PublishedTable) -> str:
    """Return the statement for a replica identity that would do; "" where there is none."""
    key = better_key(publication, table)
    if key is not None:
        choice = "DEFAULT" if key.is_primary else f"USING INDEX {identifier(key.index)}"
    elif full_is_taken(publication, table):
        choice = "FULL"
    else:
        return ""
    return f"ALTER TABLE {table.sql} REPLICA IDENTITY {choice};"
