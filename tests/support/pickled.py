"""One of everything public that can be pickled, and what makes two of them the same."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pgrepl
from pgrepl import Lsn, basebackup, physical
from pgrepl.values import composite_class

__all__ = ["errors", "same", "values"]

_TIME = 1_000_000
_COLUMNS = (
    pgrepl.Column("id", 23, -1, True, type_name="int4"),
    pgrepl.Column("note", 25, -1, False),
)
_TABLE = pgrepl.Relation(16389, "public", "item", "d", _COLUMNS, 7)
_PREPARED = (Lsn(1), Lsn(2), _TIME, 732, "gid")
_TOKEN = pgrepl.ResumeToken("7312345678901234567", 1, Lsn("1/F73E0220"), 5)
_AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
_POSITIONS = (Lsn(1), Lsn(2), Lsn(3), Lsn(4), Lsn(5))
_TEXTS: Any = ["a"] * 20
_FIELDS = {"severity": "ERROR", "sqlstate": "42704", "message": "it is not there"}


def values(codec: Any) -> dict[str, Any]:
    """What is no error, by the name of its class; rows and WAL messages are those of a twin."""
    row = codec.Row(_TABLE, (1, "a"), lsn=Lsn(9))
    insert = pgrepl.Insert(_TABLE, row, 732)
    batch = pgrepl.Batch([insert], Lsn(3), 1)
    part = pgrepl.TransactionPart("commit", 732, None, Lsn(2), 0, None, Lsn(3), 0, slice(0, 1))
    batch._parts = (part,)  # as a stream gives it
    samples: list[Any] = [
        Lsn("1/F73E0220"),
        *_COLUMNS[:1],
        *(_TABLE, row, insert, batch, part, _TOKEN),
        pgrepl.Begin(Lsn(1), _TIME, 732),
        pgrepl.Commit(Lsn(1), Lsn(2), _TIME),
        pgrepl.Origin(Lsn(1), "elsewhere"),
        pgrepl.Type(16385, "public", "mood", 7),
        pgrepl.Update(_TABLE, row, None, row),
        pgrepl.Delete(_TABLE, None, row, 732),
        pgrepl.Truncate((_TABLE,), True, False, lsn=Lsn(4)),
        pgrepl.Message(False, Lsn(1), "prefix", b"content"),
        pgrepl.StreamStart(732, True),
        pgrepl.StreamStop(),
        pgrepl.StreamCommit(732, Lsn(1), Lsn(2), _TIME),
        pgrepl.StreamAbort(732, 733, Lsn(1), _TIME),
        pgrepl.BeginPrepare(*_PREPARED),
        pgrepl.Prepare(*_PREPARED),
        pgrepl.StreamPrepare(*_PREPARED),
        pgrepl.CommitPrepared(*_PREPARED),
        pgrepl.RollbackPrepared(Lsn(1), Lsn(2), _TIME, _TIME, 732, "gid"),
        pgrepl.UNCHANGED,
        codec.XLogData(1, 2, 3, b"data"),
        codec.PrimaryKeepalive(1, 2, True),
        pgrepl.Interval(1, -2, 3),
        pgrepl.Range(1, 5, "[]"),
        pgrepl.Multirange([pgrepl.Range(1, 5)]),
        pgrepl.Array([1, None], (0,)),
        composite_class("mood", ("a", "b"))._make((1, "b")),  # type: ignore[attr-defined]
        pgrepl.Stats(*_POSITIONS, 6, Lsn(7), 8, 0.5, 9, 10, 11, _AT),
        pgrepl.Idle(_TOKEN, Lsn(9)),
        pgrepl.StreamEvent(insert, 1, 2),
        pgrepl.Slot("s", Lsn(1), None, "pgoutput"),
        pgrepl.ReplicationSlot("s", *_TEXTS, None),  # type: ignore[call-arg]
        pgrepl.SystemIdentity("7312345678901234567", 1, Lsn(1), "postgres"),
        pgrepl.Result(("a",), [("1",), (None,)], "SELECT 2"),
        physical.PhysicalSlot(Lsn(1), 1),
        physical.TimelineHistory("00000002.history", b"1\t0/5000000\tno reason\n"),
        physical.TimelineSwitch(1, Lsn("0/5000000"), "no reason"),
        physical.EndOfTimeline(2, Lsn(1)),
        physical.ReceivedWal(1, Lsn(1), Lsn(2), 3),
        physical.ReceivedSegment("000000010000000000000001", 1, Lsn(1), Lsn(2)),
        basebackup.Tablespace(16384, "/srv/space", 50),
        basebackup.BackupStart(Lsn(1), 1, (basebackup.Tablespace(None, None, 1),)),
        basebackup.ArchiveStart("base.tar", None, None),
        basebackup.ArchiveData(b"data"),  # type: ignore[arg-type]
        basebackup.Progress(5),
        basebackup.ManifestStart(),
        basebackup.ManifestData(b"data"),  # type: ignore[arg-type]
        basebackup.BackupEnd(Lsn(1), 1),
        basebackup.BackupProgress("archive", 5, None),  # type: ignore[arg-type]
        basebackup.ReceivedBackup(Path("to"), Lsn(1), Lsn(2), 1, (), ("base.tar",), 5),
    ]
    return {type(each).__name__: each for each in samples}


def errors() -> dict[str, BaseException]:
    """An error of each class, with everything that it can carry."""
    plain = [
        *(pgrepl.Error, pgrepl.UsageError, pgrepl.ConnectionFailed, pgrepl.AuthenticationError),
        *(pgrepl.SpoolError, pgrepl.WalStorageError, pgrepl.BackupStorageError),
        pgrepl.UnknownTypeWarning,
    ]
    server = [
        *(pgrepl.ServerError, pgrepl.AuthenticationRejected, pgrepl.SlotNotFound),
        *(pgrepl.SlotExists, pgrepl.SlotInUse, pgrepl.ServerShutdown),
    ]
    samples: list[BaseException] = [
        *(each("what went wrong") for each in plain),
        *(each(_FIELDS) for each in server),
        pgrepl.TLSError("no TLS", interrupted=True),
        pgrepl.ProtocolError("bad", tag=b"w", offset=5),
        pgrepl.DecodeError("bad", tag=b"I", offset=5, lsn=Lsn(7)),
        pgrepl.SlotInvalidated(_FIELDS, reason="wal_removed"),
        pgrepl.SlotGap(_FIELDS, wanted=Lsn(1), available=Lsn(2)),
        pgrepl.PublicationNotFound(_FIELDS, names=["p"], lsn=Lsn(3)),
        pgrepl.SystemMismatch(_FIELDS, expected=("1", 1), got=("2", 1)),
    ]
    return {type(each).__name__: each for each in samples}


def same(one: Any, other: Any) -> bool:
    """Whether two are of one class, and say the same."""
    if isinstance(one, BaseException):
        return type(one) is type(other) and (one.args, vars(one)) == (other.args, vars(other))
    if isinstance(one, pgrepl.Batch):
        fields = ("changes", "end_lsn", "index", "transactions")
        return all(getattr(one, each) == getattr(other, each) for each in fields)
    return type(one) is type(other) and repr(one) == repr(other) and bool(one == other)
