"""The tables of a publication: how an old row is named, and what the publication restricts.

Source: PostgreSQL documentation, "REPLICA IDENTITY" (ALTER TABLE), "Row Filters", "Column Lists".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..sql import identifier
from .catalogue import Publication, PublishedTable
from .finding import Finding, Level

__all__ = ["check_column_lists", "check_table"]


def check_table(publication: Publication, table: PublishedTable) -> Iterator[Finding]:
    """Look at one table of a publication."""
    if publication.needs_identity:
        yield from _identity(publication, table)
        yield from _restrictions(publication, table)
    if table.has_stored_long_values and "update" in publication.operations:
        yield from _long_values(table)


def _subject(table: PublishedTable) -> dict[str, str]:
    return {"publication": table.publication, "schema": table.schema, "table": table.table}


def _identity(publication: Publication, table: PublishedTable) -> Iterator[Finding]:
    told = " and ".join(kind for kind in ("update", "delete") if kind in publication.operations)
    if table.identity is None:
        mending = _better_identity(table, otherwise="FULL")
        reason = {
            "d": "no primary key",
            "i": "lost the index of its replica identity",
            "n": "the replica identity NOTHING",
        }.get(table.identity_kind, "no replica identity")
        has = "" if table.identity_kind == "i" else "has "
        yield Finding(
            "replica_identity_missing",
            Level.PROBLEM,
            f"{table.name} {has}{reason}, while {publication.name!r} publishes its {told}",
            "Nothing tells which row was meant, so the server refuses writers every UPDATE and "
            "DELETE of it that is published.",
            (mending,),
            "or give it a primary key, which costs less" if mending.endswith("FULL;") else "",
            _subject(table),
        )
    elif table.identity_kind == "f":
        # A row filter may need all of the old row's columns.
        better = "" if table.row_filter is not None else _better_identity(table, otherwise="")
        yield Finding(
            "replica_identity_full",
            Level.WARNING if better else Level.HINT,
            f"{table.name} has the replica identity FULL",
            "Every UPDATE and DELETE writes and sends the whole old row besides; keep it only "
            "where a consumer wants the old values.",
            (better,) if better else (),
            "" if table.has_primary_key or better else "a primary key would do instead",
            _subject(table),
        )


def _better_identity(table: PublishedTable, otherwise: str) -> str:
    """Return the statement for the narrowest replica identity; "" where there is none."""
    if table.has_primary_key:
        choice = "DEFAULT"
    elif table.candidate is not None:
        choice = f"USING INDEX {identifier(table.candidate)}"
    else:
        choice = otherwise
    return f"ALTER TABLE {table.sql} REPLICA IDENTITY {choice};" if choice else ""


def _restrictions(publication: Publication, table: PublishedTable) -> Iterator[Finding]:
    """A column list or row filter that the replica identity does not fit."""
    if table.identity is None:
        return
    is_full = table.identity_kind == "f"
    lacking = [name for name in table.identity if name not in (table.columns or ())]
    if table.columns is not None and (is_full or lacking):
        without = "all columns" if is_full else ", ".join(lacking)
        columns = () if is_full else (*table.columns, *lacking)
        yield Finding(
            "column_list_identity",
            Level.PROBLEM,
            f"the column list of {publication.name!r} for {table.name} leaves out columns of its "
            f"replica identity: {without}",
            "The server refuses writers every UPDATE and DELETE of that table.",
            _published_again(publication, table, columns),
            subject=_subject(table),
        )
    elif table.columns is None and not is_full:
        foreign = [name for name in table.filter_columns if name not in table.identity]
        if foreign:
            yield Finding(
                "row_filter_identity",
                Level.PROBLEM,
                f"the row filter of {publication.name!r} for {table.name} asks for columns that "
                f"are not of its replica identity: {', '.join(foreign)}",
                "The server refuses writers every UPDATE and DELETE of that table.",
                (f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL;",),
                subject=_subject(table),
            )


def _published_again(
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


def _long_values(table: PublishedTable) -> Iterator[Finding]:
    if table.identity_kind != "f":
        yield Finding(
            "toast",
            Level.HINT,
            f"{table.name} has long values that are stored out of line",
            "An UPDATE that leaves such a value alone does not send it: a consumer gets UNCHANGED, "
            "and keeps the value that it has.",
            subject=_subject(table),
        )


def check_column_lists(
    publications: Sequence[Publication], tables: Sequence[PublishedTable]
) -> Iterator[Finding]:
    """Look for tables that publications of one stream restrict to different columns."""
    by_name = {each.name: each for each in publications}
    first: dict[tuple[str, str], PublishedTable] = {}
    for table in tables:
        before = first.setdefault((table.published_schema, table.published_table), table)
        same = (before.columns is None) == (table.columns is None) and (
            set(before.columns or ()) == set(table.columns or ())
        )
        if same or before.publication == table.publication:
            continue
        yield Finding(
            "column_lists_differ",
            Level.PROBLEM,
            f"{before.publication!r} and {table.publication!r} publish different columns of "
            f"{table.published_schema}.{table.published_table}",
            "A stream of both ends with an error at the first change of that table.",
            _published_again(by_name[table.publication], table, before.columns or ()),
            subject=_subject(table),
        )
