"""pgoutput payloads as a real server sent them, each with the message that it stands for.

PostgreSQL 15.18 gave them by pg_logical_slot_get_binary_changes with proto_version '1', for

    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE t (id int PRIMARY KEY, note text, m mood, big text);
    CREATE TABLE f (a int, b text);  ALTER TABLE f REPLICA IDENTITY FULL;
    CREATE TABLE k (a int, b text, c int, d int NOT NULL, PRIMARY KEY (c, a));

and the commands that stand above the payloads.
"""

from __future__ import annotations

from pgrepl.codec import Row
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
    Truncate,
    Type,
    Update,
)

__all__ = ["CAPTURED", "K"]

T = Relation(
    16389,
    "public",
    "t",
    "d",
    (
        Column("id", 23, -1, True),
        Column("note", 25, -1, False),
        Column("m", 16385, -1, False),
        Column("big", 25, -1, False),
    ),
)
F = Relation(16396, "public", "f", "f", (Column("a", 23, -1, True), Column("b", 25, -1, True)))
K = Relation(
    16404,
    "public",
    "k",
    "d",
    (
        Column("a", 23, -1, True),
        Column("b", 25, -1, False),
        Column("c", 23, -1, True),
        Column("d", 23, -1, False),
    ),
)
B = Relation(
    16420,
    "public",
    "b",
    "d",
    (Column("a", 23, -1, False), Column("b", 25, -1, False), Column("c", 16, -1, False)),
)
CAPTURED: tuple[tuple[str, LogicalMessage], ...] = (
    (
        "42 000000000153a830 000303d8831cc536 000002dc",
        Begin(Lsn("0/153A830"), 848653377652022, 732),
    ),
    ("59 00004001 7075626c696300 6d6f6f6400", Type(16385, "public", "mood")),
    (
        "52 00004005 7075626c696300 7400 64 0004 01 696400 00000017 ffffffff"
        "00 6e6f746500 00000019 ffffffff 00 6d00 00004001 ffffffff"
        "00 62696700 00000019 ffffffff",
        T,
    ),
    # INSERT INTO t, the large value cut out and the column NULL instead
    (
        "49 00004005 4e 0004 74 00000001 31 74 0000000a 7a61c5bcc3b3c582c487 74 00000002 6f6b 6e",
        Insert(T, Row(T, ("1", "zażółć", "ok", None))),
    ),
    # UPDATE t SET note = NULL
    (
        "55 00004005 4e 0004 74 00000001 31 6e 74 00000002 6f6b 75",
        Update(T, None, None, Row(T, ("1", None, "ok", UNCHANGED))),
    ),
    # UPDATE t SET id = 2, big = 'b'
    (
        "55 00004005 4b 0004 74 00000001 31 6e6e6e"
        "4e 0004 74 00000001 32 6e 74 00000002 6f6b 74 00000001 62",
        Update(T, Row(T, ("1",), True), None, Row(T, ("2", None, "ok", "b"))),
    ),
    # DELETE FROM t
    (
        "44 00004005 4b 0004 74 00000001 32 6e6e6e",
        Delete(T, Row(T, ("2",), True), None),
    ),
    (
        "43 00 000000000153ab80 000000000153abb0 000303d8831cd04f",
        Commit(Lsn("0/153AB80"), Lsn("0/153ABB0"), 848653377654863),
    ),
    (
        "52 0000400c 7075626c696300 6600 66 0002 01 6100 00000017 ffffffff"
        "01 6200 00000019 ffffffff",
        F,
    ),
    # UPDATE f SET b = ''
    (
        "55 0000400c 4f 0002 74 00000001 31 6e 4e 0002 74 00000001 31 74 00000000",
        Update(F, None, Row(F, ("1", None)), Row(F, ("1", ""))),
    ),
    # DELETE FROM f
    (
        "44 0000400c 4f 0002 74 00000001 31 74 00000000",
        Delete(F, None, Row(F, ("1", ""))),
    ),
    (
        "52 00004014 7075626c696300 6b00 64 0004 01 6100 00000017 ffffffff"
        "00 6200 00000019 ffffffff 01 6300 00000017 ffffffff 00 6400 00000017 ffffffff",
        K,
    ),
    # UPDATE k SET c = 9
    (
        "55 00004014 4b 0004 74 00000001 31 6e 74 00000001 32 6e"
        "4e 0004 74 00000001 31 74 00000001 62 74 00000001 39 74 00000001 33",
        Update(K, Row(K, ("1", "2"), True), None, Row(K, ("1", "b", "9", "3"))),
    ),
    # TRUNCATE t, f RESTART IDENTITY CASCADE
    ("54 00000002 03 00004005 0000400c", Truncate((T, F), True, True)),
    # pg_logical_emit_message(true, 'pre', 'content'), and (false, 'pré', '\x00ff')
    (
        "4d 01 000000000153c630 70726500 00000007 636f6e74656e74",
        Message(True, Lsn("0/153C630"), "pre", b"content"),
    ),
    (
        "4d 00 000000000153c6a0 7072c3a900 00000002 00ff",
        Message(False, Lsn("0/153C6A0"), "pré", b"\0\xff"),
    ),
    # after pg_replication_origin_xact_setup('0/AABBCC', ...)
    ("4f 0000000000aabbcc 656c7365776865726500", Origin(Lsn("0/AABBCC"), "elsewhere")),
    # with binary 'true': INSERT INTO b VALUES (258, 'é', true)
    (
        "52 00004024 7075626c696300 6200 64 0003 00 6100 00000017 ffffffff"
        "00 6200 00000019 ffffffff 00 6300 00000010 ffffffff",
        B,
    ),
    (
        "49 00004024 4e 0003 62 00000004 00000102 62 00000002 c3a9 62 00000001 01",
        Insert(B, Row(B, (b"\0\0\1\2", "é".encode(), b"\1"))),
    ),
)
