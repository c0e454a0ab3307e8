"""Whole conversations of pgoutput as real servers sent them, each payload with its message.

pg_logical_slot_peek_binary_changes gave them, of a slot made with two_phase, for

    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE item (id int PRIMARY KEY, m mood);
    CREATE TABLE filler (note text);
    CREATE PUBLICATION p FOR TABLE item;

    BEGIN; INSERT INTO item VALUES (1, 'ok');  -- and filler
    SAVEPOINT a; INSERT INTO item VALUES (2, 'ok');  -- and filler
    ROLLBACK TO a; UPDATE item SET id = 3; DELETE FROM item; TRUNCATE item;
    SELECT pg_logical_emit_message(true, 'pre', 'content');  -- and filler
    COMMIT;
    BEGIN; INSERT INTO item VALUES (4, NULL);  -- and filler
    PREPARE TRANSACTION 'gid é'; COMMIT PREPARED 'gid é';
    BEGIN; INSERT INTO item VALUES (5, 'ok'); PREPARE TRANSACTION 'g2'; ROLLBACK PREPARED 'g2';
    BEGIN; SAVEPOINT a; INSERT INTO item VALUES (6, 'ok'); RELEASE a;  -- and filler
    ROLLBACK;

with logical_decoding_work_mem = '64kB'. The filler is not published but has to be decoded:

    INSERT INTO filler SELECT repeat('x', 100) FROM generate_series(1, 300)

`ON` is of PostgreSQL 15.18 with proto_version '3', streaming 'on', `PARALLEL` of PostgreSQL 18.6
with proto_version '4', streaming 'parallel'; both with two_phase and messages 'true'. `SKIPPED` is
all that PostgreSQL 18.6 sends of the last transaction with proto_version '1' and without streaming.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeAlias

from pgrepl.codec import Row
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    BeginPrepare,
    Column,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)

__all__ = ["ON", "PARALLEL", "SKIPPED"]

Conversation: TypeAlias = tuple[tuple[str, LogicalMessage], ...]

MOOD: Final = Type(16385, "public", "mood")
ITEM: Final = Relation(
    16389, "public", "item", "d", (Column("id", 23, -1, True), Column("m", 16385, -1, False))
)

# The same in every payload that describes them.
_MOOD: Final = "00004001 7075626c696300 6d6f6f6400"
_ITEM: Final = (
    "00004005 7075626c696300 6974656d00 64 0002"
    "01 696400 00000017 ffffffff 00 6d00 00004001 ffffffff"
)

SKIPPED: Final = ("41 000002f9 000002fa", StreamAbort(761, 762))

ON: Final[Conversation] = (
    ("53 000002d8 01", StreamStart(728, True)),
    (f"59 000002d8 {_MOOD}", replace(MOOD, xid=728)),
    (f"52 000002d8 {_ITEM}", replace(ITEM, xid=728)),
    (
        "49 000002d8 00004005 4e000274000000013174000000026f6b",
        Insert(ITEM, Row(ITEM, ("1", "ok")), 728),
    ),
    ("45", StreamStop()),
    ("53 000002d8 00", StreamStart(728, False)),
    (
        "49 000002d9 00004005 4e000274000000013274000000026f6b",
        Insert(ITEM, Row(ITEM, ("2", "ok")), 729),
    ),
    ("45", StreamStop()),
    ("41 000002d8 000002d9", StreamAbort(728, 729)),
    ("53 000002d8 00", StreamStart(728, False)),
    (f"59 000002da {_MOOD}", replace(MOOD, xid=730)),
    (f"52 000002da {_ITEM}", replace(ITEM, xid=730)),
    (
        "55 000002da 00004005 4b00027400000001316e4e000274000000013374000000026f6b",
        Update(ITEM, Row(ITEM, ("1",), True), None, Row(ITEM, ("3", "ok")), 730),
    ),
    ("44 000002da 00004005 4b00027400000001336e", Delete(ITEM, Row(ITEM, ("3",), True), None, 730)),
    (f"59 000002da {_MOOD}", replace(MOOD, xid=730)),
    (f"52 000002da {_ITEM}", replace(ITEM, xid=730)),
    ("54 000002da 00000001 0000004005", Truncate((ITEM,), False, False, 730)),
    (
        "4d 000002d8 01 000000000151f8e8 7072650000000007636f6e74656e74",
        Message(True, Lsn("0/151F8E8"), "pre", b"content", 728),
    ),
    ("45", StreamStop()),
    ("53 000002d8 00", StreamStart(728, False)),
    ("45", StreamStop()),
    (
        "63 000002d8 00 000000000152b4f8 000000000152b5d0 000303da2c5fec88",
        StreamCommit(728, Lsn("0/152B4F8"), Lsn("0/152B5D0"), 848660512369800),
    ),
    ("53 000002db 01", StreamStart(731, True)),
    (f"59 000002db {_MOOD}", replace(MOOD, xid=731)),
    (f"52 000002db {_ITEM}", replace(ITEM, xid=731)),
    ("49 000002db 00004005 4e00027400000001346e", Insert(ITEM, Row(ITEM, ("4", None)), 731)),
    ("45", StreamStop()),
    ("53 000002db 00", StreamStart(731, False)),
    ("45", StreamStop()),
    (
        "70 00 00000000015372c0 0000000001537418 000303da2c5ff31a 000002db 67696420c3a900",
        StreamPrepare(Lsn("0/15372C0"), Lsn("0/1537418"), 848660512371482, 731, "gid é"),
    ),
    (
        "4b 00 0000000001537418 0000000001537458 000303da2c5ff3c5 000002db 67696420c3a900",
        CommitPrepared(Lsn("0/1537418"), Lsn("0/1537458"), 848660512371653, 731, "gid é"),
    ),
    (
        "62 00000000015374d8 00000000015375d0 000303da2c5ff8ba 000002dc 673200",
        BeginPrepare(Lsn("0/15374D8"), Lsn("0/15375D0"), 848660512372922, 732, "g2"),
    ),
    (f"59 {_MOOD}", MOOD),
    (f"52 {_ITEM}", ITEM),
    ("49 00004005 4e000274000000013574000000026f6b", Insert(ITEM, Row(ITEM, ("5", "ok")))),
    (
        "50 00 00000000015374d8 00000000015375d0 000303da2c5ff8ba 000002dc 673200",
        Prepare(Lsn("0/15374D8"), Lsn("0/15375D0"), 848660512372922, 732, "g2"),
    ),
    (
        "72 00 00000000015375d0 0000000001537608 000303da2c5ff8ba 000303da2c6003dd000002dc 673200",
        RollbackPrepared(
            Lsn("0/15375D0"), Lsn("0/1537608"), 848660512372922, 848660512375773, 732, "g2"
        ),
    ),
    ("53 000002dd 01", StreamStart(733, True)),
    (f"59 000002de {_MOOD}", replace(MOOD, xid=734)),
    (f"52 000002de {_ITEM}", replace(ITEM, xid=734)),
    (
        "49 000002de 00004005 4e000274000000013674000000026f6b",
        Insert(ITEM, Row(ITEM, ("6", "ok")), 734),
    ),
    ("45", StreamStop()),
    ("41 000002dd 000002de", StreamAbort(733, 734)),
    ("41 000002dd 000002dd", StreamAbort(733, 733)),
)

PARALLEL: Final[Conversation] = (
    ("53 000002f4 01", StreamStart(756, True)),
    (f"59 000002f4 {_MOOD}", replace(MOOD, xid=756)),
    (f"52 000002f4 {_ITEM}", replace(ITEM, xid=756)),
    (
        "49 000002f4 00004005 4e000274000000013174000000026f6b",
        Insert(ITEM, Row(ITEM, ("1", "ok")), 756),
    ),
    ("45", StreamStop()),
    ("53 000002f4 00", StreamStart(756, False)),
    (
        "49 000002f5 00004005 4e000274000000013274000000026f6b",
        Insert(ITEM, Row(ITEM, ("2", "ok")), 757),
    ),
    ("45", StreamStop()),
    (
        "41 000002f4 000002f5 000000000170e420 000303da2c769390",
        StreamAbort(756, 757, Lsn("0/170E420"), 848660513854352),
    ),
    ("53 000002f4 00", StreamStart(756, False)),
    (f"59 000002f6 {_MOOD}", replace(MOOD, xid=758)),
    (f"52 000002f6 {_ITEM}", replace(ITEM, xid=758)),
    (
        "55 000002f6 00004005 4b00027400000001316e4e000274000000013374000000026f6b",
        Update(ITEM, Row(ITEM, ("1",), True), None, Row(ITEM, ("3", "ok")), 758),
    ),
    ("44 000002f6 00004005 4b00027400000001336e", Delete(ITEM, Row(ITEM, ("3",), True), None, 758)),
    (f"59 000002f6 {_MOOD}", replace(MOOD, xid=758)),
    (f"52 000002f6 {_ITEM}", replace(ITEM, xid=758)),
    ("54 000002f6 00000001 0000004005", Truncate((ITEM,), False, False, 758)),
    (
        "4d 000002f4 01 000000000170eb10 7072650000000007636f6e74656e74",
        Message(True, Lsn("0/170EB10"), "pre", b"content", 756),
    ),
    ("45", StreamStop()),
    ("53 000002f4 00", StreamStart(756, False)),
    ("45", StreamStop()),
    (
        "63 000002f4 00 000000000171a720 000000000171a7f8 000303da2c76ad4d",
        StreamCommit(756, Lsn("0/171A720"), Lsn("0/171A7F8"), 848660513860941),
    ),
    ("53 000002f7 01", StreamStart(759, True)),
    (f"59 000002f7 {_MOOD}", replace(MOOD, xid=759)),
    (f"52 000002f7 {_ITEM}", replace(ITEM, xid=759)),
    ("49 000002f7 00004005 4e00027400000001346e", Insert(ITEM, Row(ITEM, ("4", None)), 759)),
    ("45", StreamStop()),
    ("53 000002f7 00", StreamStart(759, False)),
    ("45", StreamStop()),
    (
        "70 00 00000000017264e8 0000000001726640 000303da2c76b188 000002f7 67696420c3a900",
        StreamPrepare(Lsn("0/17264E8"), Lsn("0/1726640"), 848660513862024, 759, "gid é"),
    ),
    (
        "4b 00 0000000001726640 0000000001726680 000303da2c76bc2c 000002f7 67696420c3a900",
        CommitPrepared(Lsn("0/1726640"), Lsn("0/1726680"), 848660513864748, 759, "gid é"),
    ),
    (
        "62 0000000001726700 00000000017267f8 000303da2c76be2e 000002f8 673200",
        BeginPrepare(Lsn("0/1726700"), Lsn("0/17267F8"), 848660513865262, 760, "g2"),
    ),
    (f"59 {_MOOD}", MOOD),
    (f"52 {_ITEM}", ITEM),
    ("49 00004005 4e000274000000013574000000026f6b", Insert(ITEM, Row(ITEM, ("5", "ok")))),
    (
        "50 00 0000000001726700 00000000017267f8 000303da2c76be2e 000002f8 673200",
        Prepare(Lsn("0/1726700"), Lsn("0/17267F8"), 848660513865262, 760, "g2"),
    ),
    (
        "72 00 00000000017267f8 0000000001726830 000303da2c76be2e 000303da2c76beac000002f8 673200",
        RollbackPrepared(
            Lsn("0/17267F8"), Lsn("0/1726830"), 848660513865262, 848660513865388, 760, "g2"
        ),
    ),
    (
        "41 000002f9 000002fa 0000000001732520 000303da2c76c2b7",
        StreamAbort(761, 762, Lsn("0/1732520"), 848660513866423),
    ),
)
