"""Which description of a relation a change refers to, while transactions are streamed.

Law: a change in a stream block means what the blocks of its transaction described, or else what was
described to all; any other change means what was described to all. Of two descriptions for all, the
one that the server sent later stands.

Why that is what the server means. It holds one description of a relation and remembers who knows
it: all, or certain streamed transactions, by their top-level xid. DDL makes it forget both, and
whoever comes next is told anew. A description in a stream block belongs to a transaction that has
not happened yet, and may hold DDL that nobody else sees. What becomes of it:

StreamStart, first segment
    The transaction is sent from its beginning, after a restart perhaps: nothing is known of it.
StreamCommit
    The server counts what the transaction knew as known to all, and does not repeat it, so it goes
    over to all. But if all were told something later, then by then the server had forgotten that
    this transaction knew anything, and what it knew is out of date.
StreamAbort
    The server counts nothing as known to the transaction any more, also where only a subtransaction
    is rolled back, and describes each relation again before its next change. What must go is what
    came with the xid of the (sub)transaction, since that may be of DDL that never was; what else
    the transaction described is replaced when the server describes it again.
StreamPrepare
    As when a transaction is prepared that was not streamed, whose descriptions were for all from
    the start. If it is rolled back later, then its DDL has made the server forget who knows what.

Source: PostgreSQL, src/backend/replication/pgoutput/pgoutput.c, versions 14 to 18.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar, final

__all__ = ["Relations"]

T = TypeVar("T")


class _Streamed(NamedTuple, Generic[T]):
    description: T
    subxid: int
    number: int


@final
class Relations(Generic[T]):
    """Descriptions, of whatever kind a twin keeps, by OID and by who knows them."""

    __slots__ = ("_count", "_numbers", "_streamed", "described")

    def __init__(self) -> None:
        self.described: dict[int, T] = {}
        """Those for all. The dictionary stays the same one, so that a twin may read it directly."""
        self._numbers: dict[int, int] = {}
        self._streamed: dict[int, dict[int, _Streamed[T]]] = {}
        self._count = 0

    def describe(self, oid: int, description: T) -> None:
        """Keep what was described outside of stream blocks."""
        self._count += 1
        self._keep(oid, description, self._count)

    def describe_streamed(self, xid: int, oid: int, description: T, subxid: int) -> None:
        """Keep what was described in a block of transaction `xid`, by its part `subxid`."""
        self._count += 1
        own = self._streamed.setdefault(xid, {})
        own[oid] = _Streamed(description, subxid, self._count)

    def find_streamed(self, xid: int, oid: int) -> T | None:
        """Return what an OID means in a block of transaction `xid`, or None."""
        own = self._streamed.get(xid)
        if own is not None and oid in own:
            return own[oid].description
        return self.described.get(oid)

    def settle(self, xid: int) -> None:
        """Let all know what a transaction knew: StreamCommit, StreamPrepare."""
        for oid, own in self._streamed.pop(xid, {}).items():
            if own.number > self._numbers.get(oid, 0):
                self._keep(oid, own.description, own.number)

    def abort(self, xid: int, subxid: int) -> None:
        """Forget what a subtransaction knew, or all of the transaction if `subxid` is its xid."""
        own = self._streamed.pop(xid, {})
        if subxid != xid:
            own = {oid: each for oid, each in own.items() if each.subxid != subxid}
            if own:
                self._streamed[xid] = own

    def _keep(self, oid: int, description: T, number: int) -> None:
        self.described[oid] = description
        self._numbers[oid] = number
