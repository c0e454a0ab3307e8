"""The publications of a database: what they publish, and what writers and consumers run into.

Source: PostgreSQL documentation, "Publication", "Row Filters", "Column Lists",
"REPLICA IDENTITY" (ALTER TABLE).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import Final

from .catalogue import (
    Publication,
    PublishedTable,
    UnpublishedTable,
    read_publications,
    read_tables,
    read_unpublished,
)
from .combinations import check_combinations
from .finding import Finding, Level
from .identities import uses_of_tables
from .questions import Questions
from .shown_sql import identifier, qualified
from .tables import check_table, is_refused

__all__ = ["check_publications"]

_NEW: Final = "pgrepl"
_SHOWN: Final = 8
_KEYS_FIRST: Final = (
    "before that, give every table a primary key, or name those that have one: the server refuses "
    "UPDATE and DELETE of a published table without"
)


def check_publications(version: int, names: Sequence[str]) -> Questions[list[Finding]]:
    """Look at the publications of these names, at all of the database where none is named."""
    existing = yield from read_publications(version)
    looked_at = [each for each in existing if not names or each.name in names]
    found = list(_find_missing(existing, names))
    if not looked_at:
        return found
    everything = yield from read_tables(version, [each.name for each in existing])
    unpublished = yield from read_unpublished(version, looked_at)
    found += _check_existing(existing, looked_at, everything, unpublished)
    if names:
        tables = [each for each in everything if each.publication in names]
        found += _find_refusals_by_others(existing, everything, set(names))
        found += check_combinations(version, looked_at, tables)
    return found


def _check_existing(
    existing: Sequence[Publication],
    looked_at: Sequence[Publication],
    everything: Sequence[PublishedTable],
    unpublished: Sequence[UnpublishedTable],
) -> Iterator[Finding]:
    """What is to be said of each publication that is looked at, and of its tables."""
    uses = uses_of_tables(existing, everything)
    told = set()
    for publication in looked_at:
        its_tables = [each for each in everything if each.publication == publication.name]
        yield from _check_publication(publication, its_tables)
        for each in unpublished:
            if each.publication == publication.name:
                yield _passed_over(publication, each)
        for table in its_tables:
            for finding in check_table(
                publication, table, uses.get((table.schema, table.table), ())
            ):
                key = finding.id, finding.found, frozenset(finding.subject.items())
                if key not in told:  # what is said of the table alone is said once
                    told.add(key)
                    yield finding


def _find_refusals_by_others(
    publications: Sequence[Publication],
    tables: Sequence[PublishedTable],
    chosen: Set[str],
) -> Iterator[Finding]:
    """What writers of the chosen publications' tables are refused for by other publications."""
    uses = uses_of_tables(publications, tables)
    written = {(each.schema, each.table) for each in tables if each.publication in chosen}
    by_name = {each.name: each for each in publications}
    for table in tables:
        name = table.schema, table.table
        if table.publication in by_name and table.publication not in chosen and name in written:
            for finding in check_table(by_name[table.publication], table, uses.get(name, ())):
                if finding.level is Level.PROBLEM:
                    yield finding


def _find_missing(existing: Sequence[Publication], names: Sequence[str]) -> Iterator[Finding]:
    there = {each.name for each in existing}
    for name in dict.fromkeys(names):
        if name not in there:
            yield Finding(
                "publication_missing",
                Level.PROBLEM,
                f"the publication {name!r} does not exist in this database",
                "A stream says which publications it wants, and has the changes of their tables.",
                (f"CREATE PUBLICATION {identifier(name)} FOR ALL TABLES;",),
                _KEYS_FIRST,
                {"publication": name},
            )
    if not names and not existing:
        yield Finding(
            "publication_none",
            Level.WARNING,
            "there is no publication in this database",
            "A stream says which publications it wants, and has the changes of their tables.",
            (f"CREATE PUBLICATION {identifier(_NEW)} FOR ALL TABLES;",),
            _KEYS_FIRST,
        )


def _check_publication(
    publication: Publication, tables: Sequence[PublishedTable]
) -> Iterator[Finding]:
    subject = {"publication": publication.name}
    published = {(each.published_schema, each.published_table): each for each in tables}
    if not published:
        yield _empty(publication)
    else:
        yield Finding(
            "publication",
            Level.OK,
            _summary(publication, list(published.values())),
            subject=subject,
        )
    if publication.unpublished_operations:
        yield _unpublished_operations(publication, tables)
    roots = sorted({each.root for each in tables if each.root is not None})
    if roots and not publication.via_root:
        yield Finding(
            "partitions",
            Level.HINT,
            f"the publication {publication.name!r} publishes changes of {_listed(roots)} as those "
            "of the partitions",
            "A consumer sees the partitions' names, and new partitions as new tables.",
            (f"ALTER PUBLICATION {publication.sql} SET (publish_via_partition_root = true);",),
            subject=subject,
        )
    yield from _check_generated(publication, list(published.values()))


def _unpublished_operations(publication: Publication, tables: Sequence[PublishedTable]) -> Finding:
    lacking = ", ".join(publication.unpublished_operations)
    every = (*publication.operations, *publication.unpublished_operations)
    whole = replace(publication, operations=every, unpublished_operations=())
    refused = {each.name: None for each in tables if is_refused(whole, each)}
    sql = f"ALTER PUBLICATION {publication.sql} SET (publish = '{', '.join(every)}');"
    # With UPDATE or DELETE among what it publishes, that is a finding of its own already.
    is_safe = publication.needs_identity or not refused
    return Finding(
        "publication_operations",
        Level.HINT,
        f"the publication {publication.name!r} does not publish {lacking}",
        "A consumer never hears of these, and a copy of the tables comes to differ.",
        (sql,) if is_safe else (),
        ""
        if is_safe
        else f"before you publish these, have a replica identity that suits the publication for "
        f"{_listed(list(refused))}: without it the server refuses writers UPDATE and DELETE",
        {"publication": publication.name},
    )


def _summary(publication: Publication, tables: Sequence[PublishedTable]) -> str:
    names = [f"{each.published_schema}.{each.published_table}" for each in tables]
    scope = "all tables, now " if publication.all_tables else ""
    text = (
        f"the publication {publication.name!r} publishes "
        f"{', '.join(publication.operations) or 'nothing'} of {scope}{_listed(names)}"
    )
    for each, name in zip(tables, names, strict=True):
        if each.columns is not None:
            text += f"; of {name} the columns {', '.join(each.columns)}"
        if each.row_filter is not None:
            text += f"; of {name} rows where {each.row_filter}"
    return text


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _empty(publication: Publication) -> Finding:
    schemas = publication.schemas
    if publication.all_tables or schemas:
        scope = f"the schema {schemas[0]!r}" if len(schemas) == 1 else "its scope"
        return Finding(
            "publication_empty",
            Level.HINT,
            f"the publication {publication.name!r} publishes every table of "
            f"{'the database' if publication.all_tables else scope}, and there is none",
            "It has nothing to tell until there is a table.",
            subject={"publication": publication.name},
        )
    return Finding(
        "publication_empty",
        Level.WARNING,
        f"the publication {publication.name!r} has no tables",
        "It has nothing to tell until it has.",
        then=f"ALTER PUBLICATION {publication.sql} ADD TABLE ... for each table that is wanted",
        subject={"publication": publication.name},
    )


def _check_generated(
    publication: Publication, tables: Sequence[PublishedTable]
) -> Iterator[Finding]:
    if publication.generated:
        return
    names = [
        f"{each.published_schema}.{each.published_table}.{column}"
        for each in tables
        if each.columns is None
        for column in each.stored_columns
    ]
    if not names:
        return
    can = publication.generated is not None
    yield Finding(
        "generated_columns",
        Level.HINT,
        f"the publication {publication.name!r} leaves out the generated columns {_listed(names)}",
        "A consumer does not see them and has to compute them itself"
        + ("." if can else "; PostgreSQL 18 can publish them."),
        (f"ALTER PUBLICATION {publication.sql} SET (publish_generated_columns = stored);",)
        if can
        else (),
        subject={"publication": publication.name},
    )


def _passed_over(publication: Publication, table: UnpublishedTable) -> Finding:
    kind = "foreign" if table.is_foreign else "unlogged"
    name = f"{table.schema}.{table.table}"
    change = f"ALTER TABLE {qualified(table.schema, table.table)} SET LOGGED"
    is_safe = table.has_identity or not publication.needs_identity
    then = (
        f"give it a primary key, and then {change}: without one the server would refuse writers "
        "UPDATE and DELETE"
    )
    return Finding(
        f"table_{kind}",
        Level.HINT if table.is_foreign else Level.WARNING,
        f"the publication {table.publication!r} passes over {name}, which is {kind}",
        "Its rows are on another server: publish it there."
        if table.is_foreign
        else "Changes of an unlogged table are in no WAL, so that nobody can decode them.",
        (f"{change};",) if is_safe and not table.is_foreign else (),
        "" if is_safe or table.is_foreign else then,
        {
            "publication": table.publication,
            "schema": table.schema,
            "table": table.table,
        },
    )
