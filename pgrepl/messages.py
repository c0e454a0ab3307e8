"""What pgoutput says, a class each.

Positions are `Lsn`, times integers in microseconds since 2000-01-01 00:00 UTC with an aware
`datetime` beside them, identifiers PostgreSQL's own numbers. All of them are immutable, compare by
value and can be matched by position or by name. Both twins of the codec make these same classes.

From protocol version 2 on a transaction can be streamed before it ends: in blocks, each between a
`StreamStart` and a `StreamStop`, until a `StreamCommit`, `StreamAbort` or `StreamPrepare` says what
became of it. What comes inside of a block has an `xid`, that of the transaction or subtransaction
which made the change (of a `Message` always the transaction); everywhere else it is None.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from .errors import UsageError
from .escapes import printable
from .lsn import Lsn
from .public import imported_from
from .relation import UNCHANGED, Column, Relation, Unchanged, completed
from .row import Default, Row

__all__ = [
    "UNCHANGED",
    "Begin",
    "BeginPrepare",
    "Column",
    "Commit",
    "CommitPrepared",
    "Delete",
    "Insert",
    "LogicalMessage",
    "Message",
    "Origin",
    "Prepare",
    "Relation",
    "RollbackPrepared",
    "StreamAbort",
    "StreamCommit",
    "StreamPrepare",
    "StreamStart",
    "StreamStop",
    "Truncate",
    "Type",
    "Unchanged",
    "Update",
    "to_datetime",
]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def to_datetime(microseconds: int) -> datetime:
    """Return the aware UTC `datetime` of a time in microseconds since 2000-01-01 00:00 UTC.

    Raises `OverflowError` for a time outside the years 1 to 9999.
    """
    return _EPOCH + timedelta(microseconds=microseconds)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction begins; `final_lsn` is the position of its commit record."""

    final_lsn: Lsn
    commit_time: int
    xid: int

    @property
    def commit_datetime(self) -> datetime:
        """`commit_time` as an aware `datetime`."""
        return to_datetime(self.commit_time)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction is committed. Acknowledge it by `end_lsn`, never by `commit_lsn`."""

    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int

    @property
    def commit_datetime(self) -> datetime:
        """`commit_time` as an aware `datetime`."""
        return to_datetime(self.commit_time)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction came from another server: its commit there, and the origin's name."""

    commit_lsn: Lsn
    name: str


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Type:
    """A user-defined type that a following relation uses. Its `xid` is not compared either."""

    oid: int
    schema: str
    name: str
    xid: int | None = field(default=None, compare=False)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Insert:
    """A new row.

    A value in it is `UNCHANGED` where an update moved the row into what the publication's row
    filter lets pass, and left an out-of-line value as it was.
    """

    relation: Relation
    new: Row
    xid: int | None = None

    @property
    def lsn(self) -> Lsn | None:
        """Where the change begins in the WAL, None where nobody said; acknowledge its `Commit`."""
        return self.new.lsn

    def to_json(self, default: Default = None) -> str:
        """Return it as a line of typed JSON: docs/types.md, "JSON", has the form.

        `default` makes of a value of a class unknown there, which a rule of `types` made, one that
        is known. Raises `TypeError` without it, and `DecodeError` for a value that cannot be read.
        """
        from . import json_form

        members = {
            "new": json_form.row_object(self.new, default),
            "unchanged": json_form.unchanged_names(self.new),
        }
        return json_form.json_line(_head("insert", self) | members)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Update:
    """A changed row: `new` always, and of the old one what the replica identity gives.

    `key` is a key-only row, sent when a key column changed, and also when one that did not is so
    long that it is stored out of line: then `new` has `UNCHANGED` for it, and `key` the value.
    `old` is a full row, sent under REPLICA IDENTITY FULL; at most one of them is not None.
    """

    relation: Relation
    key: Row | None
    old: Row | None
    new: Row
    xid: int | None = None

    @property
    def lsn(self) -> Lsn | None:
        """Where the change begins in the WAL, None where nobody said; acknowledge its `Commit`."""
        return self.new.lsn

    @property
    def identity(self) -> Row:
        """By what the row can be found as it was before: `key`, or `old`, or the key within `new`.

        Raises `UsageError` where the server did not say by what; see docs/types.md, "Keys".
        """
        if self.key is not None or self.old is not None:
            return _identity(self.relation, self.key, self.old)
        if self.relation.replica_identity == "f":
            return _identity(self.relation, None, None)
        # Nobody but an Update asks a row for it, and users have no use for the name.
        return _identity(self.relation, self.new._of_key(), None)  # noqa: SLF001

    def complete(self) -> Row:
        """Return the new row with the unchanged values that `old`, or `key`, knows.

        What none of them has is still `UNCHANGED`: without REPLICA IDENTITY FULL that is every
        unchanged value outside of the key. It is `new` itself where nothing is to be filled in;
        otherwise it was made from values, so that `raw` has nothing, and all values of `new` are
        read for it: raises `DecodeError` for one that cannot be decoded.
        """
        made: Row = completed(self.relation, self.new, self.key if self.old is None else self.old)
        return made

    def to_json(self, default: Default = None) -> str:
        """Return it as a line of typed JSON; see `Insert.to_json`."""
        from . import json_form

        members = {
            "key": json_form.row_object(self.key, default),
            "old": json_form.row_object(self.old, default),
            "new": json_form.row_object(self.new, default),
            "unchanged": json_form.unchanged_names(self.new),
        }
        return json_form.json_line(_head("update", self) | members)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Delete:
    """A deleted row: `key`, a key-only row, or `old`, the full one under REPLICA IDENTITY FULL."""

    relation: Relation
    key: Row | None
    old: Row | None
    xid: int | None = None

    @property
    def lsn(self) -> Lsn | None:
        """Where the change begins in the WAL, None where nobody said; acknowledge its `Commit`."""
        row = self.old if self.key is None else self.key
        return None if row is None else row.lsn

    @property
    def identity(self) -> Row:
        """By what the row can be found: `key`, or `old`.

        Raises `UsageError` where the server did not say by what; see docs/types.md, "Keys".
        """
        return _identity(self.relation, self.key, self.old)

    def to_json(self, default: Default = None) -> str:
        """Return it as a line of typed JSON; see `Insert.to_json`."""
        from . import json_form

        members = {
            "key": json_form.row_object(self.key, default),
            "old": json_form.row_object(self.old, default),
        }
        return json_form.json_line(_head("delete", self) | members)


def _head(kind: str, change: Insert | Update | Delete) -> dict[str, Any]:
    """Return the members with which the JSON of every change of a row begins."""
    return {
        "kind": kind,
        "xid": change.xid,
        "lsn": None if change.lsn is None else str(change.lsn),
        "schema": change.relation.schema,
        "table": change.relation.name,
    }


def _identity(relation: Relation, key: Row | None, old: Row | None) -> Row:
    """Return the one that is there, unless it is empty: no condition would mean every row."""
    row = old if key is None else key
    if row is None or not len(row):
        raise UsageError(
            "expected the server to say by which values a row can be found, it gave none for "
            f"{printable(relation.schema)}.{printable(relation.name)}, whose replica identity is "
            f"{relation.replica_identity!r}: a table that is published for its partitions needs "
            "the same replica identity as they have"
        )
    return row


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables were emptied together. Equal to another whatever the `lsn` of the two."""

    relations: tuple[Relation, ...]
    cascade: bool
    restart_identity: bool
    xid: int | None = None
    lsn: Lsn | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Where the change begins in the WAL, None where nobody said; acknowledge its `Commit`."""

    def to_json(self, default: Default = None) -> str:
        """Return it as a line of JSON; see `Insert.to_json`. It has no values."""
        from . import json_form

        members = {
            "kind": "truncate",
            "xid": self.xid,
            "lsn": None if self.lsn is None else str(self.lsn),
            "tables": [{"schema": each.schema, "table": each.name} for each in self.relations],
            "cascade": self.cascade,
            "restart_identity": self.restart_identity,
        }
        return json_form.json_line(members)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Message:
    """What ``pg_logical_emit_message`` wrote; one that is not transactional stands by itself."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes
    xid: int | None = None

    def to_json(self, default: Default = None) -> str:
        """Return it as a line of JSON, its content in hexadecimal; ``text``: of what is UTF-8."""
        from . import json_form

        try:
            text = self.content.decode()
        except UnicodeDecodeError:
            text = None
        members = {
            "kind": "message",
            "xid": self.xid,
            "lsn": str(self.lsn),
            "transactional": self.transactional,
            "prefix": self.prefix,
            "content": {"hex": self.content.hex()},
            "text": text,
        }
        return json_form.json_line(members)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class StreamStart:
    """A block of a transaction that has not ended yet; `first_segment`: it begins the transaction.

    A transaction that was streamed in part before a restart begins again with a first segment.
    """

    xid: int
    first_segment: bool


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class StreamStop:
    """The block ends; another one of the same transaction, or of another one, may follow."""


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class StreamCommit:
    """A streamed transaction is committed. Acknowledge it by `end_lsn`, never by `commit_lsn`."""

    xid: int
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int

    @property
    def commit_datetime(self) -> datetime:
        """`commit_time` as an aware `datetime`."""
        return to_datetime(self.commit_time)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class StreamAbort:
    """A streamed transaction, or one of its subtransactions, is rolled back.

    `xid` is that of the transaction. Where `subxid` equals it, nothing remains of the transaction;
    else all that came with `subxid` is void. `abort_lsn` and `abort_time` are sent in protocol
    version 4 with ``streaming 'parallel'`` alone, and are None otherwise.

    PostgreSQL 18 skips a large transaction that it finds aborted already, and then sends this of
    subtransactions that it has sent nothing of: in any protocol version, streaming or not.
    """

    xid: int
    subxid: int
    abort_lsn: Lsn | None = None
    abort_time: int | None = None

    @property
    def abort_datetime(self) -> datetime | None:
        """`abort_time` as an aware `datetime`, or None."""
        return None if self.abort_time is None else to_datetime(self.abort_time)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """`gid` is the name that ``PREPARE TRANSACTION`` gave, and by which the outcome comes later."""

    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_time: int
    xid: int
    gid: str

    @property
    def prepare_datetime(self) -> datetime:
        """`prepare_time` as an aware `datetime`."""
        return to_datetime(self.prepare_time)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class BeginPrepare(_Prepared):
    """A transaction begins that is prepared already, as `Prepare` will say once more."""


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Prepare(_Prepared):
    """A transaction is prepared: whether it is committed or rolled back comes later, by its `gid`.

    Acknowledge it by `end_lsn`. It may come again after a restart: `gid` and `end_lsn` tell.
    """


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class StreamPrepare(_Prepared):
    """A streamed transaction is prepared; otherwise as `Prepare`."""


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class CommitPrepared:
    """A prepared transaction is committed. Acknowledge it by `end_lsn`, never by `commit_lsn`."""

    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int
    xid: int
    gid: str

    @property
    def commit_datetime(self) -> datetime:
        """`commit_time` as an aware `datetime`."""
        return to_datetime(self.commit_time)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class RollbackPrepared:
    """A prepared transaction is rolled back. `prepare_end_lsn` is the `end_lsn` of its `Prepare`.

    Acknowledge it by `rollback_end_lsn`.
    """

    prepare_end_lsn: Lsn
    rollback_end_lsn: Lsn
    prepare_time: int
    rollback_time: int
    xid: int
    gid: str

    @property
    def prepare_datetime(self) -> datetime:
        """`prepare_time` as an aware `datetime`."""
        return to_datetime(self.prepare_time)

    @property
    def rollback_datetime(self) -> datetime:
        """`rollback_time` as an aware `datetime`."""
        return to_datetime(self.rollback_time)


LogicalMessage: TypeAlias = (
    Begin
    | Commit
    | Origin
    | Relation
    | Type
    | Insert
    | Update
    | Delete
    | Truncate
    | Message
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
    | BeginPrepare
    | Prepare
    | CommitPrepared
    | RollbackPrepared
    | StreamPrepare
)
"""Any message of pgoutput."""
