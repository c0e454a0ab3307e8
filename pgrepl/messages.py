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

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeAlias

from .errors import UsageError
from .identifiers import quoted
from .lsn import Lsn

if TYPE_CHECKING:
    # Rows decode themselves, so each twin of the codec has its own: `pgrepl.Row` is the one in use.
    from .codec import Row

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
    "MOST_SHOWN",
    "printable",
    "to_datetime",
]

MOST_SHOWN: Final = 24
"""Columns that the repr of a relation, or of a row, tells of; there can be 1600."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def to_datetime(microseconds: int) -> datetime:
    """Return the aware UTC `datetime` of a time in microseconds since 2000-01-01 00:00 UTC.

    Raises `OverflowError` for a time outside the years 1 to 9999.
    """
    return _EPOCH + timedelta(microseconds=microseconds)


class Unchanged:
    """The type of `UNCHANGED`, its only instance."""

    __slots__ = ()
    _only: Unchanged | None = None

    def __new__(cls) -> Unchanged:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "UNCHANGED has no truth value: the server did not send this column because the update "
            "left its out-of-line value as it was; compare with `is UNCHANGED`"
        )

    def __reduce__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
"""An out-of-line (TOAST) value that an update left as it was, and that the server did not send."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation: `type_modifier` is -1 for none, `is_key` part of the identity.

    `type_name` is what SQL calls the type: ``int8``, ``text[]``, ``public.mood``; None where nobody
    told, see docs/types.md. It makes no difference to whether columns are equal.
    """

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool
    type_name: str | None = field(default=None, kw_only=True, compare=False, repr=False)


class Selection(NamedTuple):
    """Which columns of a relation a row has, in order: all of them, or those of a key."""

    places: tuple[int, ...]  # in the relation
    columns: tuple[Column, ...]
    positions: dict[str, int]  # in the row, by name


@dataclass(frozen=True, slots=True, repr=False)
class Relation:
    """A table as the server describes it before its first change, and again after DDL.

    `replica_identity` is ``d`` (primary key), ``n`` (nothing), ``f`` (full row) or ``i`` (an
    index). `xid` tells where a description came from and not what it says, so that two relations
    that differ in nothing else are equal.
    """

    oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]
    xid: int | None = field(default=None, compare=False)
    # What rows look columns up in: whole rows, and those of the columns that are marked as the key.
    _whole: Selection = field(init=False, repr=False, compare=False)
    _key: Selection = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        marked = tuple([i for i, column in enumerate(self.columns) if column.is_key])
        # A frozen dataclass sets what it derives this way.
        object.__setattr__(self, "_whole", self._selected(tuple(range(len(self.columns)))))
        object.__setattr__(self, "_key", self._selected(marked))

    def _select(self, places: Iterable[int]) -> Selection:
        """Return the columns at some places, as a row has them; ValueError for what is none."""
        chosen = tuple(places)
        if chosen == self._key.places:
            return self._key
        if chosen == self._whole.places:
            return self._whole
        if chosen != tuple(sorted({*chosen} & {*self._whole.places})):
            raise ValueError(
                f"expected places of columns in their order, each below {len(self.columns)}, got "
                f"{chosen!r:.100}"
            )
        return self._selected(chosen)

    def _selected(self, places: tuple[int, ...]) -> Selection:
        """Return the columns at some places, counted from 0."""
        columns = tuple([self.columns[place] for place in places])
        if len(columns) == len(self.columns):
            columns = self.columns
        # Backwards, so that of two equal names, which only a broken server sends, the first counts.
        positions = {columns[i].name: i for i in reversed(range(len(columns)))}
        return Selection(places, columns, positions)

    def __repr__(self) -> str:
        names = [printable(c.name) + "*" * c.is_key for c in self.columns[:MOST_SHOWN]]
        left = len(self.columns) - len(names)
        columns = ", ".join(names) + (f" and {left} more" if left else "")
        xid = "" if self.xid is None else f" xid={self.xid}"
        return (
            f"<Relation {printable(self.schema)}.{printable(self.name)} ({columns}) oid={self.oid} "
            f"replica_identity={self.replica_identity}{xid}>"
        )

    @property
    def full_name(self) -> str:
        """Schema and name as SQL reads them, each quoted where it has to be: ``public."Item"``."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The columns that are marked as the replica identity, in the order of the table."""
        return self._key.columns


def printable(name: str) -> str:
    """Return a name that came from a server so that it cannot steer a terminal."""
    return name if name.isprintable() else ascii(name)


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


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction came from another server: its commit there, and the origin's name."""

    commit_lsn: Lsn
    name: str


@dataclass(frozen=True, slots=True)
class Type:
    """A user-defined type that a following relation uses. Its `xid` is not compared either."""

    oid: int
    schema: str
    name: str
    xid: int | None = field(default=None, compare=False)


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
        marked = None if self.relation.replica_identity == "f" else self.new._of_key()
        return _identity(self.relation, marked, None)

    def complete(self) -> Row:
        """Return the new row with the unchanged values that `old`, or `key`, knows.

        What none of them has is still `UNCHANGED`: without REPLICA IDENTITY FULL that is every
        unchanged value outside of the key. It is `new` itself where nothing is to be filled in;
        otherwise it was made from values, so that `raw` has nothing, and all values of `new` are
        read for it: raises `DecodeError` for one that cannot be decoded.
        """
        return self.new._completed(self.key if self.old is None else self.old)


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


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables were emptied together. Equal to another whatever the `lsn` of the two."""

    relations: tuple[Relation, ...]
    cascade: bool
    restart_identity: bool
    xid: int | None = None
    lsn: Lsn | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Where the change begins in the WAL, None where nobody said; acknowledge its `Commit`."""


@dataclass(frozen=True, slots=True)
class Message:
    """What ``pg_logical_emit_message`` wrote; one that is not transactional stands by itself."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A block of a transaction that has not ended yet; `first_segment`: it begins the transaction.

    A transaction that was streamed in part before a restart begins again with a first segment.
    """

    xid: int
    first_segment: bool


@dataclass(frozen=True, slots=True)
class StreamStop:
    """The block ends; another one of the same transaction, or of another one, may follow."""


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


@dataclass(frozen=True, slots=True)
class BeginPrepare(_Prepared):
    """A transaction begins that is prepared already, as `Prepare` will say once more."""


@dataclass(frozen=True, slots=True)
class Prepare(_Prepared):
    """A transaction is prepared: whether it is committed or rolled back comes later, by its `gid`.

    Acknowledge it by `end_lsn`. It may come again after a restart: `gid` and `end_lsn` tell.
    """


@dataclass(frozen=True, slots=True)
class StreamPrepare(_Prepared):
    """A streamed transaction is prepared; otherwise as `Prepare`."""


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
