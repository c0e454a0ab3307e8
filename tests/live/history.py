"""A database with a history of everything that is easy to get wrong, from three hands.

`CURATED` has a statement for each kind of change; RandomWriter has values of every type, DDL and
savepoints as chance has them; and the sessions of tests.live.writers stand side by side.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from psycopg import sql

from tests.live.type_samples import RANDOM
from tests.live.writers import Session, Writer, write_all_kinds
from tests.support.clusters import Database

__all__ = [
    "SEED",
    "THE_END",
    "forget_an_origin",
    "origins_dropped",
    "prepare",
    "random_types",
    "write",
]

SEED: Final = int(os.environ.get("PGREPL_SEED", "20261122"))  # the same changes in every run
THE_END: Final = "the end"  # the prefix of the message that comes last
FORGOTTEN: Final = "origin_forgotten"
WRITERS: Final = 3

SCHEMA: Final = r"""
CREATE SCHEMA "sch.äma";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "so"');
CREATE TYPE "sch.äma"."Weird] type" AS (x int, y text);
CREATE DOMAIN percent AS int CHECK (VALUE <= 100);
CREATE DOMAIN yes AS bool;
CREATE TABLE item (id int PRIMARY KEY, note text, m mood);
ALTER TABLE item ALTER note SET STORAGE EXTERNAL;
CREATE TABLE thing (id int PRIMARY KEY, note text, n numeric(12, 2));
ALTER TABLE thing ALTER note SET STORAGE EXTERNAL;
CREATE TABLE whole (id int, note text, n int);
ALTER TABLE whole ALTER note SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE indexed (a int, b text NOT NULL, c int NOT NULL, d text);
CREATE UNIQUE INDEX by_c_b ON indexed (c, b);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_c_b;
CREATE TABLE keyless (a int, b text);
ALTER TABLE keyless REPLICA IDENTITY NOTHING;
CREATE TABLE parent (id serial PRIMARY KEY);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE "sch.äma"."Tab""le: x" ("Col umn]" int PRIMARY KEY, "a]b[c" text, "🐘" text,
    "x'y" "sch.äma"."Weird] type", "new-tuple" text, "select" mood);
CREATE TABLE made (id int PRIMARY KEY, gone text, note text,
    twice int GENERATED ALWAYS AS (id * 2) STORED, last text);
ALTER TABLE made DROP gone;
CREATE TABLE parts (id int, region text, note text, PRIMARY KEY (id, region))
    PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b (note text, region text NOT NULL, id int NOT NULL);
ALTER TABLE parts ATTACH PARTITION parts_b FOR VALUES IN ('b');
CREATE TABLE kinds (id int PRIMARY KEY, b bool, y yes, p percent, bits bit(5), js json, jb jsonb,
    i2 int2, f4 float4, m mood[], vc varchar(9), o oid, mm money, ch char(4), c1 "char", nm name);
CREATE PUBLICATION p FOR ALL TABLES;
"""

# A line is a transaction, unless it begins and ends some itself.
CURATED: Final = r"""
INSERT INTO thing VALUES (1, 'a', 1), (2, NULL, NULL), (3, E'q''q "x" \\\n\t', 'NaN'), (4, '', 0)
UPDATE thing SET note = 'b' WHERE id = 1; UPDATE thing SET id = 10 WHERE id = 2; DELETE FROM thing WHERE id = 10
UPDATE thing SET note = repeat('x', 9000) WHERE id = 1
UPDATE thing SET n = 5 WHERE id = 1; UPDATE thing SET id = 11, n = NULL WHERE id = 1
INSERT INTO whole VALUES (1, repeat('y', 9000), 1), (NULL, NULL, NULL), (2, 's', NULL)
UPDATE whole SET n = 2; UPDATE whole SET id = 3; DELETE FROM whole
INSERT INTO indexed VALUES (1, 'b', 1, NULL), (2, 'c', 2, 'd')
UPDATE indexed SET a = 3; UPDATE indexed SET b = 'new'; DELETE FROM indexed WHERE c = 1
INSERT INTO keyless VALUES (1, 'b'), (NULL, NULL)
INSERT INTO parent SELECT generate_series(1, 3); INSERT INTO child VALUES (1, 1); INSERT INTO thing VALUES (12)
TRUNCATE child
TRUNCATE parent, child RESTART IDENTITY; TRUNCATE parent CASCADE; TRUNCATE thing, parent RESTART IDENTITY CASCADE
INSERT INTO "sch.äma"."Tab""le: x" VALUES (1, 'a', 'b', (1, 'x y'), 'c', 'it''s "so"')
UPDATE "sch.äma"."Tab""le: x" SET "Col umn]" = 2, "new-tuple" = ' new-tuple: a[text]:''1'
INSERT INTO made VALUES (1, 'x'); UPDATE made SET id = 2; UPDATE made SET note = 'z'; DELETE FROM made
INSERT INTO parts VALUES (1, 'a', 'x'), (2, 'b', 'y'); UPDATE parts SET region = 'b' WHERE id = 1; TRUNCATE parts
TRUNCATE parts_a
INSERT INTO kinds VALUES (1, true, false, 7, B'10101', '{"a": "''"}', '[1.50]', -1, 'NaN', '{sad}', 'v', 4294967295, -5, 'ab', 'c', 'n')
INSERT INTO kinds (id, b, f4) VALUES (2, false, '-Infinity'), (3, NULL, '1e-20')
SELECT pg_logical_emit_message(false, 'pre, sz: 3 content:', 'x')
SELECT pg_logical_emit_message(true, 'prä', '\x00ff0a27'::bytea); INSERT INTO thing VALUES (77)
SELECT pg_logical_emit_message(true, '', '')
SELECT txid_current()
CREATE TABLE later (a int PRIMARY KEY); INSERT INTO later VALUES (1)
CREATE MATERIALIZED VIEW seen AS SELECT a FROM later; CREATE UNIQUE INDEX by_a ON seen (a)
INSERT INTO later VALUES (2); REFRESH MATERIALIZED VIEW CONCURRENTLY seen
BEGIN; INSERT INTO thing VALUES (999); ROLLBACK
BEGIN; INSERT INTO thing VALUES (100); SAVEPOINT s; INSERT INTO thing VALUES (101); ROLLBACK TO s; ALTER TABLE thing ADD z int DEFAULT 7; INSERT INTO thing VALUES (102); SAVEPOINT t; ALTER TABLE thing RENAME z TO zz; UPDATE thing SET note = 'q' WHERE id = 100; RELEASE t; ALTER TABLE thing DROP zz; INSERT INTO thing VALUES (103); COMMIT
CREATE TABLE rewritten AS SELECT 1 a; ALTER TABLE rewritten ALTER a TYPE int8; INSERT INTO rewritten VALUES (2)
"""  # noqa: E501


class RandomWriter:
    """Transactions, savepoints, DDL and changes of rows as chance has them, in a single session.

    Each table has an own replica identity; together they have columns of every type.
    """

    def __init__(self, session: Session, types: list[str], draw: random.Random) -> None:
        self._session = session
        self._types = types
        self._draw = draw
        self._next = 0
        self._names = 0
        # Not by `draw`: whoever makes the tables may be another than who writes.
        types = random.Random(SEED).sample(types, len(types))
        # The types of the columns, by table and name.
        self._tables = {
            f"random_{name}": {f"c{i}": types[i] for i in range(offset, len(types), 3)}
            for offset, name in enumerate(("default", "full", "index"))
        }

    def create_tables(self) -> None:
        for table, columns in self._tables.items():
            listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            self._run(f"CREATE TABLE {table} (id int NOT NULL, {listed})")
        self._run("ALTER TABLE random_default ADD PRIMARY KEY (id)")
        self._run("ALTER TABLE random_full REPLICA IDENTITY FULL")
        self._run("CREATE UNIQUE INDEX by_id ON random_index (id)")
        self._run("ALTER TABLE random_index REPLICA IDENTITY USING INDEX by_id")

    def write(self, transactions: int) -> None:
        # Rows before any DDL, so that no type is missing whatever chance brings.
        for table in self._tables:
            self._insert(table)
        for _ in range(transactions):
            self._block("BEGIN", "COMMIT", "ROLLBACK")

    def _block(self, begin: str, keep: str, undo: str, depth: int = 1) -> None:
        self._run(begin)
        before = copy.deepcopy(self._tables)
        for _ in range(self._draw.randint(1, 8)):
            if depth < 4 and self._draw.random() < 0.15:
                point = f"s{depth}"
                self._block(
                    f"SAVEPOINT {point}", f"RELEASE {point}", f"ROLLBACK TO {point}", depth + 1
                )
            else:
                self._statement()
        if self._draw.random() < 0.75:
            self._run(keep)
        else:
            self._run(undo)
            self._tables = before

    def _statement(self) -> None:
        table = self._draw.choice(list(self._tables))
        actions = (
            [self._insert] * 4 + [self._update] * 4 + [self._delete, self._rekey] + [self._alter]
        )
        self._draw.choice(actions)(table)

    def _insert(self, table: str) -> None:
        columns = self._tables[table]
        for _ in range(self._draw.randint(1, 3)):
            self._next += 1
            values = [self._value(kind) for kind in columns.values()]
            names = ", ".join(["id", *columns])
            marks = ", ".join(["%s"] * (1 + len(columns)))
            self._run(f"INSERT INTO {table} ({names}) VALUES ({marks})", [self._next, *values])

    def _update(self, table: str) -> None:
        columns = self._tables[table]
        chosen = self._draw.sample(sorted(columns), min(2, len(columns)))
        values = [self._value(columns[name]) for name in chosen]
        assignments = ", ".join(f"{name} = %s" for name in chosen)
        first, last = self._some_ids()
        self._run(
            f"UPDATE {table} SET {assignments} WHERE id BETWEEN %s AND %s", [*values, first, last]
        )

    def _rekey(self, table: str) -> None:
        self._run(f"UPDATE {table} SET id = -id WHERE id BETWEEN %s AND %s", self._some_ids())

    def _delete(self, table: str) -> None:
        self._run(f"DELETE FROM {table} WHERE id BETWEEN %s AND %s", self._some_ids())

    def _alter(self, table: str) -> None:
        columns = self._tables[table]
        name = self._draw.choice(sorted(columns))
        self._names += 1
        match self._draw.choice(("ADD", "DROP", "RENAME")):
            case "ADD":
                kind = self._draw.choice(self._types)
                default = sql.Literal(self._value(kind)).as_string(self._session)
                columns[f"c_{self._names}"] = kind
                self._run(f"ALTER TABLE {table} ADD c_{self._names} {kind} DEFAULT {default}")
            case "DROP" if len(columns) > 5:
                del columns[name]
                self._run(f"ALTER TABLE {table} DROP {name}")
            case _:
                # The dictionary keeps the order of the table, which chance goes by.
                new = f'"C {self._names}"'
                renamed = {new if each == name else each: kind for each, kind in columns.items()}
                self._tables[table] = renamed
                self._run(f"ALTER TABLE {table} RENAME {name} TO {new}")

    def _some_ids(self) -> list[object]:
        first = self._draw.randint(max(0, self._next - 30), self._next)
        return [first, first + self._draw.choice((0, 3, 10))]

    def _value(self, kind: str) -> str | None:
        return None if self._draw.random() < 0.15 else RANDOM[kind](self._draw)

    def _run(self, statement: str, parameters: list[object] | None = None) -> None:
        self._session.execute(statement.encode(), parameters)


def random_types(database: Database) -> list[str]:
    """The types of the columns that RandomWriter makes."""
    # Those of an extension; and such whose long values came into the range with PostgreSQL 15.
    left_out = {"hstore"} | ({"interval"} if database.cluster.major < 15 else set())
    return sorted(RANDOM.keys() - left_out)


def prepare(database: Database) -> None:
    """Make the tables and the publications."""
    own = "".join(f"CREATE TABLE own{n} (id int PRIMARY KEY, note text);" for n in range(WRITERS))
    database.execute(SCHEMA + own)
    if database.cluster.major >= 18:
        database.execute("ALTER TABLE made ADD thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL")
        database.execute(
            "CREATE PUBLICATION with_generated FOR ALL TABLES"
            " WITH (publish_generated_columns = stored)"
        )
    with database.connect() as session:
        RandomWriter(session, random_types(database), random.Random(SEED)).create_tables()


def write(database: Database) -> set[int]:
    """Write everything; returns the transactions that have an origin, by xid."""
    draw = random.Random(SEED)
    with database.connect() as session:
        for statements in CURATED.strip().splitlines():
            session.execute(statements.encode())
        with session.cursor().copy("COPY thing FROM STDIN") as copying:
            for number in range(3000):
                copying.write_row((1000 + number, f"line\n{number}" * (number % 3), number / 4))
        marked = {
            write_as_from_elsewhere(session, database.slot(name), -number)
            for number, name in enumerate(("origin_known", FORGOTTEN), 1)
        }
        RandomWriter(session, random_types(database), draw).write(120)
    write_side_by_side(database, draw)
    # What is not flushed is not decoded, and an abort is not flushed by itself.
    database.execute("SELECT pg_logical_emit_message(true, %s, '')", [THE_END])
    return marked


def write_as_from_elsewhere(session: Session, origin: str, row: int) -> int:
    """A transaction that has an origin; returns its xid."""
    session.execute("SELECT pg_replication_origin_create(%s)", [origin])
    session.execute("SELECT pg_replication_origin_session_setup(%s)", [origin])
    with session.transaction():
        session.execute("SELECT pg_replication_origin_xact_setup('A/BC', '2020-02-02 02:02:02Z')")
        session.execute("INSERT INTO thing VALUES (%s)", [row])
        [(xid,)] = session.execute("SELECT txid_current() % (1::int8 << 32)").fetchall()
    session.execute("SELECT pg_replication_origin_session_reset()")
    return int(xid)


def forget_an_origin(database: Database) -> None:
    """From here on one of the transactions that have an origin cannot tell its name."""
    database.execute("SELECT pg_replication_origin_drop(%s)", [database.slot(FORGOTTEN)])


def write_side_by_side(database: Database, draw: random.Random) -> None:
    sessions = [database.connect() for _ in range(WRITERS)]
    try:
        writers = [Writer(session, n, draw) for n, session in enumerate(sessions)]
        write_all_kinds(writers[0], writers[1])
        for _ in range(150):
            draw.choice(writers).step()
        for writer in writers:
            writer.finish()
    finally:
        for session in sessions:
            session.close()


@contextmanager
def origins_dropped(database: Database) -> Iterator[None]:
    """They belong to the whole server, and outlive a database."""
    try:
        yield
    finally:
        database.execute(
            "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin"
            " WHERE starts_with(roname, %s)",
            [database.slot("origin_")],
        )
