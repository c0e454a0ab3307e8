"""Publications for which PostgreSQL refuses writers or streams, and what it says; and some that
look like it and work. A row filter that fails for a value, by zero for instance, ends a stream too:
nobody knows that before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WRITES: Final = ("UPDATE t SET a = 3", "DELETE FROM t")
NEWEST: Final = 99

MISSING, FILTER, LIST = "replica_identity_missing", "row_filter_identity", "column_list_identity"
GENERATED = "generated_identity"

NO_IDENTITY: Final = "does not have a replica identity and publishes"
NOT_FILTERED: Final = "WHERE expression is not part of the replica identity"
NOT_LISTED: Final = "olumn list used by the publication does not cover the replica identity"
NOT_PUBLISHED: Final = "Replica identity must not contain unpublished generated columns"

PARTITIONED: Final = "CREATE TABLE t (id int, a int) PARTITION BY RANGE (id)"
PART: Final = "CREATE TABLE part PARTITION OF t {} FOR VALUES FROM (1) TO (9)"
# The same columns in another order.
ATTACHED: Final = (
    "CREATE TABLE part (a int, id int NOT NULL PRIMARY KEY);"
    "ALTER TABLE t ATTACH PARTITION part FOR VALUES FROM (1) TO (9)"
)
VIA_ROOT: Final = "WITH (publish_via_partition_root)"
STORED: Final = "g int GENERATED ALWAYS AS (a * 2) STORED"
VIRTUAL: Final = "g int GENERATED ALWAYS AS (a * 2) VIRTUAL"


@dataclass(frozen=True)
class Case:
    """`refused`: what the server says. `mended` False: no SQL would do, words have to."""

    name: str
    versions: tuple[int, int]
    sql: str
    refused: str
    kind: str
    mended: bool = True
    table: str = "t"

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


WRITERS: Final = (
    Case(
        "no key",
        (10, NEWEST),
        "CREATE TABLE t (id int, a int); CREATE PUBLICATION p FOR TABLE t",
        NO_IDENTITY,
        MISSING,
    ),
    Case(
        "a filter and no key",
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); CREATE PUBLICATION p FOR TABLE t WHERE (a > 0)",
        NOT_FILTERED,
        MISSING,
    ),
    Case(
        "a list and no key",
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); CREATE PUBLICATION p FOR TABLE t (id)",
        NO_IDENTITY,
        MISSING,
        mended=False,
    ),
    Case(
        "a filter by another column",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);CREATE PUBLICATION p FOR TABLE t WHERE (a > 0)",
        NOT_FILTERED,
        FILTER,
    ),
    Case(
        "a filter by another column, and a list",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int);"
        "CREATE PUBLICATION p FOR TABLE t (id, a) WHERE (a > 0)",
        NOT_FILTERED,
        FILTER,
        mended=False,
    ),
    Case(
        "a filter and a list that another index fits",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int, UNIQUE (a, id));"
        "CREATE PUBLICATION p FOR TABLE t (id, a) WHERE (a > 0)",
        NOT_FILTERED,
        FILTER,
    ),
    Case(
        "a list without the key",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE PUBLICATION p FOR TABLE t (a)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list and the identity FULL",
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id, a)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list, FULL, and a key that is listed",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list, and a generated column in the key",
        (15, 17),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
        mended=False,
    ),
    Case(
        "a list without a generated column of the key",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
    ),
    Case(
        "a list, FULL, and a virtual column",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {VIRTUAL}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id)",
        NOT_LISTED,
        LIST,
        mended=False,
    ),
    Case(
        "a partition without its root's FULL",
        (13, NEWEST),
        f"{PARTITIONED}; {PART.format('')}; ALTER TABLE t REPLICA IDENTITY FULL;"
        f"CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}",
        NO_IDENTITY,
        MISSING,
        table="part",
    ),
    Case(
        "a root's list without a partition's key",
        (15, NEWEST),
        f"{PARTITIONED}; {PART.format('(PRIMARY KEY (id, a))')};"
        f"CREATE PUBLICATION p FOR TABLE t (id) {VIA_ROOT}",
        NOT_LISTED,
        LIST,
        table="part",
    ),
    Case(
        "a root's filter by what is no partition's key",
        (15, NEWEST),
        f"{PARTITIONED}; {ATTACHED}; CREATE PUBLICATION p FOR TABLE t WHERE (a > 0) {VIA_ROOT}",
        NOT_FILTERED,
        FILTER,
        table="part",
    ),
    Case(
        "FULL and a stored column of all tables",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR ALL TABLES",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "FULL, a stored column and a key",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "ALTER TABLE t REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "FULL and a virtual column",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {VIRTUAL}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored)",
        NOT_PUBLISHED,
        GENERATED,
        mended=False,
    ),
    Case(
        "FULL, a virtual column and a key",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {VIRTUAL});"
        "ALTER TABLE t REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "a generated column in the key",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t",
        NOT_PUBLISHED,
        GENERATED,
    ),
    Case(
        "a partition's FULL and a stored column",
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}) PARTITION BY RANGE (id); {PART.format('')};"
        f"ALTER TABLE part REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}",
        NOT_PUBLISHED,
        GENERATED,
        table="part",
    ),
)

COLUMNS_DIFFER: Final = "cannot use different column lists for table"
GENERATED_DIFFER: Final = "cannot use different values of publish_generated_columns for table"

STREAMS: Final = (
    Case(
        "lists that differ",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int);"
        "CREATE PUBLICATION p FOR TABLE t (id, a); CREATE PUBLICATION q FOR TABLE t (id, b)",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list and all tables",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);"
        "CREATE PUBLICATION p FOR ALL TABLES; CREATE PUBLICATION q FOR TABLE t (id)",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list and all tables of a schema",
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);"
        "CREATE PUBLICATION p FOR TABLE t (id);"
        "CREATE PUBLICATION q FOR TABLES IN SCHEMA public",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list of all columns, of which some were dropped",
        (15, 15),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); ALTER TABLE t DROP b;"
        "CREATE PUBLICATION p FOR TABLE t (a, id); CREATE PUBLICATION q FOR ALL TABLES",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list of all columns, of which some are generated",
        (15, 15),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t (id, a); CREATE PUBLICATION q FOR TABLE t",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "a list without what the other generates",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored);"
        "CREATE PUBLICATION q FOR TABLE t (id, a)",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
    Case(
        "generated columns published and not",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored);"
        "CREATE PUBLICATION q FOR ALL TABLES",
        GENERATED_DIFFER,
        "generated_columns_differ",
    ),
    Case(
        "virtual columns that nobody publishes",
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {VIRTUAL});"
        "CREATE PUBLICATION p FOR TABLE t;"
        "CREATE PUBLICATION q FOR TABLE t WITH (publish_generated_columns = stored)",
        GENERATED_DIFFER,
        "generated_columns_differ",
    ),
    Case(
        "partitions of roots that differ",
        (15, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); {PART.format('')};"
        f"CREATE PUBLICATION p FOR TABLE t (id) {VIA_ROOT};"
        f"CREATE PUBLICATION q FOR TABLE t {VIA_ROOT}",
        COLUMNS_DIFFER,
        "column_lists_differ",
    ),
)

SOUND: Final = {
    "a list of all columns, and none": (
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int);"
        "CREATE PUBLICATION p FOR TABLE t (a, id); CREATE PUBLICATION q FOR ALL TABLES",
    ),
    "a list of all columns but dropped ones": (
        (16, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); ALTER TABLE t DROP b;"
        "CREATE PUBLICATION p FOR TABLE t (a, id); CREATE PUBLICATION q FOR ALL TABLES",
    ),
    "a list of all but what is generated, and none": (
        (16, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t (id, a); CREATE PUBLICATION q FOR TABLE t",
    ),
    "a list of all, with what is generated": (
        (18, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int, {STORED});"
        "CREATE PUBLICATION p FOR TABLE t (id, a, g);"
        "CREATE PUBLICATION q FOR TABLE t WITH (publish_generated_columns = stored)",
    ),
    "a list with a generated column of the key": (
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}, PRIMARY KEY (id, g));"
        "CREATE PUBLICATION p FOR TABLE t (id, a, g)",
    ),
    "FULL and a generated column that is published": (
        (18, NEWEST),
        f"CREATE TABLE t (id int, a int, {STORED}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored)",
    ),
    "FULL and a generated column": (
        (12, 17),
        f"CREATE TABLE t (id int, a int, {STORED}); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR ALL TABLES",
    ),
    "inserts alone": (
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t (id) WHERE (a > 0) WITH (publish = 'insert, truncate')",
    ),
    "a filter by the key, and a list with it": (
        (15, NEWEST),
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int);"
        "CREATE PUBLICATION p FOR TABLE t (id, a) WHERE (id > 0)",
    ),
    "FULL and a filter": (
        (15, NEWEST),
        "CREATE TABLE t (id int, a int); ALTER TABLE t REPLICA IDENTITY FULL;"
        "CREATE PUBLICATION p FOR TABLE t WHERE (a > 0)",
    ),
    "no partition yet": (
        (13, NEWEST),
        f"{PARTITIONED}; CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}",
    ),
    "columns in another order": (
        (15, NEWEST),
        f"{PARTITIONED}; {ATTACHED};"
        f"CREATE PUBLICATION p FOR TABLE t (id) WHERE (id > 0) {VIA_ROOT}",
    ),
    "a root's list, and another of the partition": (
        (15, NEWEST),
        f"CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); {PART.format('')};"
        f"CREATE PUBLICATION p FOR TABLE t {VIA_ROOT}; CREATE PUBLICATION q FOR TABLE part (id)",
    ),
}
