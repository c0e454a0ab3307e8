"""How a server decides when to describe a relation, and to whom: a model of pgoutput's own cache.

The server sends a Relation only to those who, as it believes, do not know the present description.
What a change means to a decoder must be what the server believes it to mean, however transactions,
subtransactions and DDL are mixed. `Server` makes such mixtures, each the same for the same seed.

Source: PostgreSQL, src/backend/replication/pgoutput/pgoutput.c: `get_rel_sync_entry`,
`maybe_send_schema` and `cleanup_rel_sync_cache`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from pgrepl.codec import Row
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Insert,
    LogicalMessage,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
)

__all__ = ["Server"]

_OIDS = (1, 2, 3)
_LSN = Lsn(0)


class _Table:
    """A table, and what the server's cache holds of it.

    `versions` has the one that all see and then those that a transaction still open has made, each
    with the xid of the (sub)transaction: such a transaction has the table for itself.
    """

    def __init__(self, oid: int) -> None:
        self.oid = oid
        self.versions: list[tuple[int, int]] = [(0, 0)]
        self.owner: int | None = None
        self.users: set[int] = set()
        self.valid = False
        self.cached = 0
        self.known_to_all = False
        self.known_to: set[int] = set()

    def look_up(self) -> None:
        """What precedes every use: a cache entry that was invalidated is made anew."""
        if not self.valid:
            self.cached = self.versions[-1][1]
            self.known_to_all = False
            self.known_to.clear()
            self.valid = True

    def describe(self, xid: int | None) -> Relation:
        """The cached version: no two have the same columns, and neighbours differ in number."""
        width = self.cached % 3 + 1
        columns = (Column(f"v{self.cached}c{i}", 23, -1, i == 0) for i in range(width))
        return Relation(self.oid, "public", f"t{self.oid}", "d", tuple(columns), xid)

    def end(self, xid: int, keep: bool) -> None:
        """A transaction ends that may have altered the table."""
        self.users.discard(xid)
        self.known_to.discard(xid)
        if self.owner == xid:
            version = self.versions[-1 if keep else 0][1]
            self.versions, self.owner, self.valid = [(0, version)], None, False


class Server:
    """Makes conversations of protocol version 3 with streaming."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._tables = [_Table(oid) for oid in _OIDS]
        self._xids = itertools.count(700)
        self._versions = itertools.count(1)
        self._streams: dict[int, list[int]] = {}  # the subtransactions of each
        self._prepared: list[int] = []

    def messages(self, steps: int) -> Iterator[LogicalMessage]:
        """What the server sends while as many things happen."""
        happenings = (self._transaction, self._block, self._block, self._rollback_to_savepoint)
        endings = (self._end_stream, self._end_prepared, self._alter_publication)
        for _ in range(steps):
            yield from self._draw.choice((*happenings, *endings))()

    def _transaction(self) -> Iterator[LogicalMessage]:
        """One that is sent as a whole, when it is committed or prepared."""
        xid = next(self._xids)
        prepared = self._draw.random() < 0.3
        gid = f"g{xid}"
        yield BeginPrepare(_LSN, _LSN, 0, xid, gid) if prepared else Begin(_LSN, 0, xid)
        for _ in range(self._draw.randint(1, 3)):
            yield from self._change(xid, xid, streamed=False)
        self._invalidate(xid)
        if prepared:
            self._prepared.append(xid)
            yield Prepare(_LSN, _LSN, 0, xid, gid)
        else:
            self._end(xid, keep=True)
            yield Commit(_LSN, _LSN, 0)

    def _block(self) -> Iterator[LogicalMessage]:
        """Of a transaction that is streamed, or begins to be."""
        first = not self._streams or self._draw.random() < 0.3
        xid = next(self._xids) if first else self._draw.choice([*self._streams])
        parts = self._streams.setdefault(xid, [])
        yield StreamStart(xid, first)
        for _ in range(self._draw.randint(0, 4)):
            if self._draw.random() < 0.3:
                parts.append(next(self._xids))
            part = parts[-1] if parts and self._draw.random() < 0.6 else xid
            yield from self._change(xid, part, streamed=True)
        self._invalidate(xid)
        yield StreamStop()

    def _change(self, xid: int, part: int, *, streamed: bool) -> Iterator[LogicalMessage]:
        table = self._draw.choice(self._tables)
        if table.owner not in (None, xid):
            return  # it would wait for the lock
        if self._draw.random() < 0.3 and not table.users - {xid}:
            table.versions.append((part, next(self._versions)))
            table.owner, table.valid = xid, False
        table.users.add(xid)
        table.look_up()
        mark = part if streamed else None
        relation = table.describe(mark)
        if streamed and xid not in table.known_to:
            table.known_to.add(xid)
            yield relation
        elif not streamed and not table.known_to_all:
            table.known_to_all = True
            yield relation
        yield Insert(relation, Row(relation, (None,) * len(relation.columns)), mark)

    def _rollback_to_savepoint(self) -> Iterator[LogicalMessage]:
        # The last one alone: an earlier one would take those after it along.
        candidates = [xid for xid, parts in self._streams.items() if parts]
        if not candidates:
            return
        xid = self._draw.choice(candidates)
        part = self._streams[xid].pop()
        for table in self._tables:
            table.known_to.discard(xid)
            if table.owner == xid and table.versions[-1][0] == part:
                while table.versions[-1][0] == part:
                    table.versions.pop()
                table.valid = False
        yield StreamAbort(xid, part)

    def _end_stream(self) -> Iterator[LogicalMessage]:
        if not self._streams:
            return
        xid = self._draw.choice([*self._streams])
        del self._streams[xid]
        match self._draw.choice("cAp"):
            case "c":
                for table in self._tables:
                    table.known_to_all |= xid in table.known_to
                self._end(xid, keep=True)
                yield StreamCommit(xid, _LSN, _LSN, 0)
            case "A":
                self._end(xid, keep=False)
                yield StreamAbort(xid, xid)
            case "p":
                # The server forgets nobody here, and counts the description as known to nobody.
                self._prepared.append(xid)
                yield StreamPrepare(_LSN, _LSN, 0, xid, f"g{xid}")

    def _end_prepared(self) -> Iterator[LogicalMessage]:
        if not self._prepared:
            return
        xid = self._prepared.pop(self._draw.randrange(len(self._prepared)))
        if self._draw.random() < 0.5:
            self._end(xid, keep=True)
            yield CommitPrepared(_LSN, _LSN, 0, xid, f"g{xid}")
        else:
            self._end(xid, keep=False)
            yield RollbackPrepared(_LSN, _LSN, 0, 0, xid, f"g{xid}")

    def _alter_publication(self) -> Iterator[LogicalMessage]:
        """Another list of columns, which needs no lock that users of the table would mind."""
        table = self._draw.choice(self._tables)
        if table.owner is None:
            table.versions, table.valid = [(0, next(self._versions))], False
        yield from ()

    def _invalidate(self, xid: int) -> None:
        """What a transaction altered is looked up anew whenever it was decoded so far."""
        for table in self._tables:
            table.valid = table.valid and table.owner != xid

    def _end(self, xid: int, *, keep: bool) -> None:
        for table in self._tables:
            table.end(xid, keep)
