"""Publications, and the tables whose changes they publish, as the catalogue has them.

Source: PostgreSQL documentation, "pg_publication", "pg_publication_tables", "pg_index",
"pg_depend".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import ProtocolError
from ..protocol.sql import Record, literal
from .questions import Questions, ask
from .shown_sql import identifier, qualified

__all__ = [
    "Key",
    "Publication",
    "PublishedTable",
    "UnpublishedTable",
    "read_publications",
    "read_tables",
    "read_unpublished",
]

_INCLUDED_COLUMNS: Final = 110000
_TRUNCATE: Final = 110000
_PARTITION_TREE: Final = 120000
_GENERATED_COLUMNS: Final = 120000
_VIA_ROOT: Final = 130000
_FILTERS: Final = 150000
_SCHEMAS: Final = 150000
_PUBLISHED_GENERATED_COLUMNS: Final = 180000
_VIRTUAL_COLUMNS: Final = 180000


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication; `generated`: whether stored generated columns are published, None where the
    server's version cannot."""

    name: str
    all_tables: bool
    schemas: tuple[str, ...]
    operations: tuple[str, ...]
    unpublished_operations: tuple[str, ...]
    via_root: bool
    generated: bool | None

    @property
    def sql(self) -> str:
        """The name, quoted."""
        return identifier(self.name)

    @property
    def needs_identity(self) -> bool:
        """Whether it publishes what can only be told by naming an old row."""
        return "update" in self.operations or "delete" in self.operations


@dataclass(frozen=True, slots=True)
class Key:
    """A unique index that can be a replica identity, as far as its own columns are concerned."""

    index: str
    is_primary: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table that a publication publishes, and the one whose replica identity counts for it.

    That is another one where a partitioned table is published as a whole: each of its partitions in
    turn, `level` steps below it, and the table itself only while it has none: then `is_written` is
    False. `identity`: columns that name an old row, None where there are none, () for all columns;
    `published_identity` is the same of the table that is published. `keys`: what else could be.
    `columns`, `row_filter`, `filter_columns`: what the publication restricts it to, None and () for
    nothing. `has_primary_key`: one that can be the identity, which a deferrable one
    (`has_deferrable_key`) cannot. `all_columns` has stored and virtual generated ones among them.
    """

    publication: str
    published_schema: str
    published_table: str
    schema: str
    table: str
    root: str | None
    level: int
    is_written: bool
    identity_kind: str
    identity: tuple[str, ...] | None
    published_identity: tuple[str, ...] | None
    has_primary_key: bool
    has_deferrable_key: bool
    keys: tuple[Key, ...]
    columns: tuple[str, ...] | None
    row_filter: str | None
    filter_columns: tuple[str, ...]
    has_stored_long_values: bool
    all_columns: tuple[str, ...]
    has_dropped_columns: bool
    stored_columns: tuple[str, ...]
    virtual_columns: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The name of the table whose identity counts, quoted."""
        return qualified(self.schema, self.table)

    @property
    def published_sql(self) -> str:
        """The name of the table that is published, quoted."""
        return qualified(self.published_schema, self.published_table)

    @property
    def name(self) -> str:
        """The name of the table whose identity counts, for people."""
        return f"{self.schema}.{self.table}"

    @property
    def published_name(self) -> str:
        """The name of the table that is published, for people."""
        return f"{self.published_schema}.{self.published_table}"


@dataclass(frozen=True, slots=True)
class UnpublishedTable:
    """A table that a publication of all tables, of the database or a schema, passes over.

    `has_identity`: something would name an old row of it.
    """

    publication: str
    schema: str
    table: str
    is_foreign: bool
    has_identity: bool


def read_publications(version: int) -> Questions[list[Publication]]:
    """Ask for the publications of the database, in the order of their names."""
    truncate = "pubtruncate" if version >= _TRUNCATE else "NULL::bool"
    via_root = "pubviaroot" if version >= _VIA_ROOT else "false"
    generated = "pubgencols = 's'" if version >= _PUBLISHED_GENERATED_COLUMNS else "NULL::bool"
    schemas = (
        "ARRAY(SELECT n.nspname::text FROM pg_publication_namespace AS pn"
        " JOIN pg_namespace AS n ON n.oid = pn.pnnspid WHERE pn.pnpubid = p.oid ORDER BY 1)"
        if version >= _SCHEMAS
        else "NULL"
    )
    rows = yield from ask(
        "SELECT pubname AS name, puballtables AS all_tables, pubinsert AS insert,"
        f" pubupdate AS update, pubdelete AS delete, {truncate} AS truncate,"
        f" {via_root} AS via_root, {generated} AS generated, {schemas} AS schemas"
        " FROM pg_publication AS p ORDER BY pubname",
    )
    return [_publication(row) for row in rows]


def _publication(row: Record) -> Publication:
    kinds = {kind: row.find(kind, bool) for kind in ("insert", "update", "delete", "truncate")}
    return Publication(
        name=row.get("name", str),
        all_tables=row.get("all_tables", bool),
        schemas=row.texts("schemas"),
        operations=tuple(kind for kind, published in kinds.items() if published),
        unpublished_operations=tuple(
            kind for kind, published in kinds.items() if published is False
        ),
        via_root=row.get("via_root", bool),
        generated=row.find("generated", bool),
    )


def read_tables(version: int, names: Sequence[str]) -> Questions[list[PublishedTable]]:
    """Ask what the publications of these names publish, ordered by publication and table."""
    rows = yield from ask(_tables(version, names))
    return [_table(row) for row in rows]


def _tables(version: int, names: Sequence[str]) -> str:
    has_filters = version >= _FILTERS
    has_trees = version >= _PARTITION_TREE
    stored = "c.reltoastrelid <> 0 AND pg_relation_size(c.reltoastrelid) > 0"
    return f"""
        SELECT t.pubname AS publication, t.schemaname AS published_schema,
            t.tablename AS published_table, n.nspname AS schema, c.relname AS table,
            {
        "CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::text END"
        if has_trees
        else "NULL"
    } AS root,
            {_LEVEL if has_trees else "0"} AS level, c.relkind <> 'p' AS is_written,
            c.relreplident AS identity_kind, i.columns AS identity,
            pc.relreplident AS published_identity_kind, pi.columns AS published_identity,
            EXISTS (SELECT FROM pg_index AS k WHERE k.indrelid = c.oid AND k.indisprimary
                AND k.indisvalid AND k.indimmediate) AS has_primary_key,
            EXISTS (SELECT FROM pg_index AS k WHERE k.indrelid = c.oid AND k.indisprimary
                AND NOT k.indimmediate) AS has_deferrable_key,
            {_keys(version)} AS keys, ({stored}) AS has_stored_long_values,
            {_every_column("true")} AS all_columns, pc.relnatts AS attributes,
            {_generated("s") if version >= _GENERATED_COLUMNS else "NULL"} AS stored_columns,
            {_generated("v") if version >= _VIRTUAL_COLUMNS else "NULL"} AS virtual_columns,
            {"t.rowfilter" if has_filters else "NULL"} AS row_filter,
            {_listed_columns() if has_filters else "NULL"} AS columns,
            {_filter_columns() if has_filters else "NULL"} AS filter_columns
        FROM pg_publication_tables AS t
        JOIN pg_publication AS p ON p.pubname = t.pubname
        JOIN pg_namespace AS pn ON pn.nspname = t.schemaname
        JOIN pg_class AS pc ON pc.relnamespace = pn.oid AND pc.relname = t.tablename
        LEFT JOIN pg_publication_rel AS pr ON pr.prpubid = p.oid AND pr.prrelid = pc.oid
        {_LEAVES if has_trees else ""}
        JOIN pg_class AS c ON c.oid = {"COALESCE(leaf.oid, pc.oid)" if has_trees else "pc.oid"}
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN LATERAL ({_identity(version, "c")}) AS i ON true
        LEFT JOIN LATERAL ({_identity(version, "pc")}) AS pi ON true
        WHERE t.pubname::text IN ({", ".join(map(literal, names))})
        ORDER BY t.pubname, t.schemaname, t.tablename, n.nspname, c.relname
    """


# What is published by a partitioned table's name is written to its partitions.
_LEAVES: Final = """
    LEFT JOIN LATERAL (SELECT leaf.oid FROM pg_partition_tree(pc.oid) AS tree
        JOIN pg_class AS leaf ON leaf.oid = tree.relid
        WHERE pc.relkind = 'p' AND tree.isleaf AND leaf.relkind = 'r') AS leaf ON true
"""

_LEVEL: Final = (
    "(SELECT count(*) FROM pg_partition_ancestors(c.oid))"
    " - (SELECT count(*) FROM pg_partition_ancestors(pc.oid))"
)


def _columns(numbers: str, relation: str, most: str = "listed.at") -> str:
    """SQL for the names of a relation's columns by an array of their numbers, `most` of them."""
    return (
        f"ARRAY(SELECT a.attname::text FROM unnest({numbers}::int2[])"
        f" WITH ORDINALITY AS listed(number, at) JOIN pg_attribute AS a ON a.attrelid = {relation}"
        f" AND a.attnum = listed.number WHERE listed.at <= {most} ORDER BY listed.at)"
    )


def _width(version: int, index: str) -> str:
    """SQL for how many of an index's columns are its key."""
    return f"{index}.indnkeyatts" if version >= _INCLUDED_COLUMNS else f"{index}.indnatts"


def _identity(version: int, table: str) -> str:
    """SQL for the columns of the index that is the replica identity; no row where none is."""
    return f"""
        SELECT {_columns("x.indkey", f"{table}.oid", _width(version, "x"))} AS columns
        FROM pg_index AS x
        WHERE x.indrelid = {table}.oid AND x.indisvalid AND x.indimmediate
            AND ({table}.relreplident = 'd' AND x.indisprimary
                OR {table}.relreplident = 'i' AND x.indisreplident)
    """


def _keys(version: int) -> str:
    """SQL for the unique indexes that can be a replica identity, the best first."""
    columns = _columns("k.indkey", "c.oid", _width(version, "k"))
    return f"""(
        SELECT json_agg(json_build_object('index', x.relname, 'is_primary', k.indisprimary,
                'columns', {columns})
            ORDER BY NOT k.indisprimary, k.indnatts, x.relname)
        FROM pg_index AS k JOIN pg_class AS x ON x.oid = k.indexrelid
        WHERE k.indrelid = c.oid AND k.indisunique AND k.indisvalid AND k.indimmediate
            AND k.indpred IS NULL AND k.indexprs IS NULL AND NOT EXISTS (
                SELECT FROM unnest(k.indkey::int2[]) AS u(number)
                JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = u.number
                WHERE NOT a.attnotnull))"""


def _every_column(condition: str) -> str:
    return (
        "ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = pc.oid"
        f" AND a.attnum > 0 AND NOT a.attisdropped AND {condition} ORDER BY a.attnum)"
    )


def _generated(kind: str) -> str:
    return _every_column(f"a.attgenerated = '{kind}'")


def _listed_columns() -> str:
    return f"CASE WHEN pr.prattrs IS NOT NULL THEN {_columns('pr.prattrs', 'pc.oid')} END"


def _filter_columns() -> str:
    """SQL for the columns that a row filter names.

    By its expression: pg_depend has the columns of a column list among them. No text in it can look
    like this, since braces and blanks are escaped there.
    """
    return _every_column(
        "a.attnum IN (SELECT m[1]::int2 FROM regexp_matches(pr.prqual::text,"
        " '[{]VAR :varno 1 :varattno ([0-9]+) ', 'g') AS m)"
    )


def _table(row: Record) -> PublishedTable:
    listed = row.find("columns", list) is not None
    return PublishedTable(
        publication=row.get("publication", str),
        published_schema=row.get("published_schema", str),
        published_table=row.get("published_table", str),
        schema=row.get("schema", str),
        table=row.get("table", str),
        root=row.find("root", str),
        level=row.get("level", int),
        is_written=row.get("is_written", bool),
        identity_kind=row.get("identity_kind", str),
        identity=_identity_of(row, "identity"),
        published_identity=_identity_of(row, "published_identity"),
        has_primary_key=row.get("has_primary_key", bool),
        has_deferrable_key=row.get("has_deferrable_key", bool),
        keys=tuple(map(_key, row.find("keys", list) or [])),
        columns=row.texts("columns") if listed else None,
        row_filter=row.find("row_filter", str),
        filter_columns=row.texts("filter_columns"),
        has_stored_long_values=row.get("has_stored_long_values", bool),
        all_columns=row.texts("all_columns"),
        has_dropped_columns=row.get("attributes", int) > len(row.texts("all_columns")),
        stored_columns=row.texts("stored_columns"),
        virtual_columns=row.texts("virtual_columns"),
    )


def _identity_of(row: Record, name: str) -> tuple[str, ...] | None:
    if row.get(f"{name}_kind", str) == "f":
        return ()
    return None if row.find(name, list) is None else row.texts(name)


def _key(value: object) -> Key:
    if not isinstance(value, dict):
        raise ProtocolError("expected an array of indexes in the server's answer")
    key = Record(value)
    return Key(key.get("index", str), key.get("is_primary", bool), key.texts("columns"))


def read_unpublished(
    version: int, publications: Sequence[Publication]
) -> Questions[list[UnpublishedTable]]:
    """Ask for the tables that publications of all tables pass over: unlogged and foreign ones."""
    found = []
    for publication in publications:
        if publication.all_tables:
            scope = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        elif publication.schemas:
            scope = f"n.nspname::text IN ({', '.join(map(literal, publication.schemas))})"
        else:
            continue
        rows = yield from ask(
            "SELECT n.nspname AS schema, c.relname AS table, c.relkind = 'f' AS is_foreign,"
            f" c.relreplident = 'f' OR EXISTS ({_identity(version, 'c')}) AS has_identity"
            " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            f" WHERE {scope} AND (c.relkind = 'f' OR c.relkind = 'r' AND c.relpersistence = 'u')"
            " ORDER BY n.nspname, c.relname",
        )
        found += [
            UnpublishedTable(
                publication.name,
                row.get("schema", str),
                row.get("table", str),
                row.get("is_foreign", bool),
                row.get("has_identity", bool),
            )
            for row in rows
        ]
    return found
