"""The contract of the codec: what each twin provides, and what both must agree on.

A twin is a module with the names of `Codec`. For every input, in whatever pieces it comes, both
give the same values, or the same error class with the same message and offset.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias, overload

from ..lsn import Lsn
from ..messages import LogicalMessage, Origin
from ..row import Row
from ..typedefs import TypeDefinition
from .abc_types import Types, ValueType
from .spool import Spool
from .stored import Stored

__all__ = [
    "MAX_FRAME_LENGTH",
    "Changes",
    "Codec",
    "Decoder",
    "FrameReader",
    "Kept",
    "PrimaryKeepalive",
    "Replay",
    "Row",
    "Types",
    "ValueType",
    "WalBatch",
    "WalMessage",
    "XLogData",
]

MAX_FRAME_LENGTH = 0x3FFFFFFF
"""The largest length word of a message, 1 GiB - 1: the server's own limit."""


class FrameReader(Protocol):
    """Takes bytes as they arrive and gives whole frames; the driver fills its buffer in place.

    Memory grows with what has arrived, never with what a length word claims. Bytes that a view can
    see are never written again. A fault is raised when everything before it has been taken, and
    then again at every further call.
    """

    limit: int
    """Largest length word that `next_frame` accepts, 4..`MAX_FRAME_LENGTH`; lower while the peer
    is unknown. Batches come from a known one: `Codec.next_batch` takes what the protocol allows.
    """

    def __init__(self, chunk_size: int = 131072) -> None: ...

    @property
    def pending(self) -> int:
        """Bytes that arrived and were not taken yet."""

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return room for at least one byte, to be filled from its start."""

    def buffer_updated(self, nbytes: int) -> None:
        """Tell how much of the room was filled; `ValueError` if there was not that much."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that are in memory already."""

    def next_frame(self) -> tuple[bytes, bytes] | None:
        """Take the next frame as (tag, body), or return None if none is whole yet.

        Raises `ProtocolError` for an unknown tag or a length out of range.
        """


class XLogData(Protocol):
    """One WAL data message. Supports the buffer protocol; `bytes(message)` copies the payload.

    Positions are plain integers here, since a stream brings millions of them: ``Lsn(m.wal_start)``.
    """

    def __init__(self, wal_start: int, wal_end: int, server_time: int, data: Any) -> None: ...

    @property
    def wal_start(self) -> int:
        """Position of the data."""

    @property
    def wal_end(self) -> int:
        """Physical: the end of the server's WAL. Logical: equal to `wal_start`."""

    @property
    def server_time(self) -> int:
        """When the server sent it, in microseconds since 2000-01-01 00:00 UTC."""

    @property
    def server_datetime(self) -> datetime:
        """`server_time` as an aware `datetime`."""

    @property
    def data(self) -> memoryview:
        """The payload, read-only and not copied. The view keeps the whole chunk in memory."""

    def __len__(self) -> int:
        """Return the size of the payload in bytes."""

    def __bytes__(self) -> bytes: ...


class PrimaryKeepalive(Protocol):
    """The server's sign of life: its position, its clock, and whether it wants an answer now."""

    def __init__(self, wal_end: int, server_time: int, reply_requested: bool) -> None: ...

    @property
    def wal_end(self) -> Lsn:
        """Physical: what was sent so far. Logical: how far the server has read its WAL."""

    @property
    def server_time(self) -> int:
        """When the server sent it, in microseconds since 2000-01-01 00:00 UTC."""

    @property
    def server_datetime(self) -> datetime:
        """`server_time` as an aware `datetime`."""

    @property
    def reply_requested(self) -> bool:
        """Whether the server closes the connection unless a status comes soon."""


WalMessage: TypeAlias = XLogData | PrimaryKeepalive


class WalBatch(Protocol):
    """The messages of one read, in order; each is made when it is looked at.

    The columns are memoryviews over the batch's XLogData alone, keepalives left out: ``wal_start``
    and ``wal_end`` unsigned (format ``Q``), ``server_time`` signed (``q``), 64 bits each.
    """

    @property
    def wal_start(self) -> memoryview: ...
    @property
    def wal_end(self) -> memoryview: ...
    @property
    def server_time(self) -> memoryview: ...

    @property
    def reply_requested(self) -> bool:
        """Whether one of the keepalives asks for an answer."""

    @property
    def nbytes(self) -> int:
        """The size of its messages as they came, with their headers."""

    def received(self, physical: bool) -> int:
        """Return the highest position that the batch brought.

        Logical: of any header. Physical: the end of the WAL bytes, since ``wal_end`` is only how
        far the server has written. 0 for an empty batch.
        """

    def payloads(self, end: bytes = b"", count: int | None = None) -> bytes:
        """Return the payloads of the XLogData in one piece, each followed by `end`.

        Of the first `count` of them, all where that is None. One copy, without an object a message.
        """

    def tail(self, index: int) -> WalBatch:
        """Return the batch of the messages from `index` on; it shares the payloads."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[WalMessage]: ...
    @overload
    def __getitem__(self, index: int) -> WalMessage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[WalMessage]: ...


class Decoder(Protocol):
    """Decodes the pgoutput payloads of one stream, keeping the relations that they refer to.

    `proto_version` (1 to 4) and `streaming` (``off``, ``on`` or ``parallel``) are what the server
    was asked for by the options of these names. A version has the messages of the earlier ones:
    from 2 on those of streamed transactions, from 3 on those of prepared ones. A StreamAbort can
    come in all of them. Of `streaming`, ``parallel`` alone makes a difference: then a StreamAbort
    tells its position and time.

    Inside of a stream block the server adds an xid to its messages and describes relations to that
    transaction alone, so that payloads must come in their order and from the stream's beginning; a
    stream that begins again, on a new connection or by another call of the SQL function, takes a
    new decoder. With `ordered` a transaction has to begin before its changes, and to end before
    the next one begins; without, changes may come by themselves.

    Values are Python's own, see docs/types.md; `types` says by OID or name how to make others.
    Without `typed` they stay what was sent: `str`, or `bytes` of a column in binary. `encoding` is
    Python's name for what columns sent as text are in; names are read as UTF-8 in any case, and
    their other bytes written as in ``\\xe9``.

    Raises `ValueError` for a version or mode that there is not, or that do not go together, and
    `TypeError` or `ValueError` for `types` that make no sense.
    """

    def __init__(
        self,
        proto_version: int = 1,
        streaming: str = "off",
        types: Mapping[int | str, Callable[[Any], Any] | int] | None = None,
        typed: bool = True,
        ordered: bool = False,
        encoding: str = "utf-8",
    ) -> None: ...

    def feed(self, payload: Any, lsn: int | None = None) -> LogicalMessage:
        """Decode one message from any bytes-like object or an `XLogData`.

        `lsn`, for errors, is taken from an XLogData's ``wal_start`` where not given. Raises
        `DecodeError`; the decoder then raises it again for whatever it is fed. What is wrong with
        a single value shows when it is read.
        """

    def define(self, definitions: Iterable[TypeDefinition]) -> None:
        """Take in what the catalogue says of types, before the relations that use them come."""

    @property
    def delivered(self) -> int:
        """The highest position by which something that was decoded can be acknowledged.

        The end of a transaction, or the position of a message that belongs to none; 0 at first. One
        that was put aside in a spool counts from `Changes.settle` on.
        """

    @property
    def totals(self) -> tuple[int, int, int | None]:
        """How many changes and transactions there were, and when the last one was committed.

        Changes when they are decoded or put aside, whatever becomes of their transaction; what can
        be acknowledged by itself counts as a transaction, once it can be. The time of a commit, or
        of what ended it, in microseconds since 2000-01-01 00:00 UTC; None before the first.
        """

    @property
    def is_between(self) -> bool:
        """Whether no transaction is open or being read, and no stream block is open."""

    def decode_batch(self, batch: Any, spool: Spool | None = None) -> Changes:
        """Decode the payloads of a `WalBatch` of the same twin, one at a time.

        With a `spool`, what stream blocks hold is checked, put aside, and not given: see `Changes`.
        A stream is decoded with one spool from its beginning, or without.
        """


class Changes(Protocol):
    """The decoded messages of a batch, in order, each made when it is asked for.

    Whoever iterates takes what comes next, also after iterating over a transaction. Raises what
    `Decoder.feed` raises.

    With a spool, what comes between StreamStart and StreamStop is put aside, but for a Message that
    is not transactional: that has happened, whatever becomes of the transaction. When StreamCommit
    or StreamPrepare comes, `streamed` has the rest. Raises `SpoolError` when the system does not
    let it be put aside; nothing can be decoded after that. A StreamCommit of a transaction of which
    no block came, or a block without the first one, is a `DecodeError`.
    """

    def __iter__(self) -> Iterator[LogicalMessage]: ...
    def __next__(self) -> LogicalMessage: ...

    def peek(self) -> str | None:
        """Return the tag of the next message, None at the end of the batch."""

    def begin(self, mould: Any) -> Any:
        """Begin the transaction that comes next, if the batch has all of it and it is ordinary.

        Returns what the `Mould` of the same twin makes of it; its `run` decodes the changes, and
        settles its end. None: something else comes next, which iterating gives as ever. Ordinary
        are changes that were neither streamed nor prepared, without an origin, and whose Commit
        keeps what their Begin said. Raises what `Decoder.feed` raises.
        """

    def gather(self, changes: list[Any], parts: list[Any], max_rows: int) -> int:
        """Add the changes of ordinary transactions that the batch has as a whole, see `begin`.

        Up to so many in `changes`, and no part of a transaction. Adds to `parts` their
        `outlines`, packed, where their changes begin in the list, and 0. Returns where the last
        of them ends; 0: there was none. Raises what `Decoder.feed` raises.
        """

    def of_transaction(self) -> Iterator[LogicalMessage]:
        """Iterate over the changes of the transaction that is open, as far as the batch has it.

        Gives Insert, Update, Delete, Truncate and Message; what else comes in between has done its
        work in the decoder. Stops behind the message that ends the transaction.
        """

    def streamed(self, xid: int) -> Replay:
        """Iterate over the changes of a transaction whose StreamCommit or StreamPrepare came last.

        Without those of subtransactions that were rolled back. A change's `xid` is that of its
        subtransaction, as it came. Raises `ValueError` without a spool.
        """

    def put_aside(self, stored: Stored) -> None:
        """Put the changes of the transaction that is open aside, as far as the batch has them.

        What `of_transaction` would give is checked and not made; `end` and `origin` are as behind
        that. Raises what `Decoder.feed` raises, and `SpoolError`.
        """

    def kept(self, stored: Stored) -> Kept:
        """Return the changes of a transaction that was put aside as a whole."""

    def settle(self) -> None:
        """Count what `streamed` gave as delivered."""

    @property
    def end(self) -> LogicalMessage | None:
        """The Commit or Prepare behind which `of_transaction` stopped; None: it goes on."""

    @property
    def origin(self) -> Origin | None:
        """The Origin that `of_transaction` met, or None."""


class Replay(Protocol):
    """The changes of a streamed transaction, read from where they were put aside.

    They mean what they meant when they came, whatever relations were described since. Raises
    `SpoolError` when they cannot be read, and `UsageError` when the spool was closed. What it
    takes, in memory or on disk, is given back at its end, or when nobody has it any more.
    """

    def __iter__(self) -> Iterator[LogicalMessage]: ...
    def __next__(self) -> LogicalMessage: ...

    def peek(self) -> str | None:
        """Return the tag of the next change, None behind the last one."""

    def release(self) -> None:
        """Pass over what was not read, and give back what it takes."""

    def keep(self) -> Kept:
        """Have all of it kept, before anything of it was read; nothing more can be read here."""

    @property
    def origin(self) -> Origin | None:
        """The Origin that came in the transaction's blocks, or None."""


class Kept(Protocol):
    """The changes of a whole transaction; iterate over them as often as wanted, from any thread.

    They mean what they meant when they came, and what a `Replay` of them would give. What they
    take, in memory or on disk, is given back when nobody has this any more, nor what iterates over
    it. Iterating raises `SpoolError` when they cannot be read.
    """

    def __iter__(self) -> Iterator[Any]: ...


class Mould(Protocol):
    """Makes transactions that a batch has as a whole, each a copy of two templates.

    `received` and `given`: what is known of a transaction, and what users get, with slots and
    nothing else. The given copy has the received one as `_received`; that has `xid`, `commit_lsn`
    and `commit_time` of its own, and a `run`, which gives the changes, until it is set to another:
    then comes ``rest(received, reading)``, which iterates as well. At the end the run sets
    `end_lsn`, `has_ended`, `unreadable` to `read`, and `run` to None, and calls
    ``reading.end(received)`` where `acknowledged` is not None. ``reading.has_failed(error)`` is
    called where decoding raises.
    """

    def __init__(
        self, received: Any, given: Any, reading: Any, read: Any, rest: Callable[[Any, Any], Any]
    ) -> None: ...

    @property
    def received(self) -> Any:
        """What is known of the transaction that was made last."""


# By another name, since `Codec.WalBatch` hides the class inside of `Codec`.
_NextBatch: TypeAlias = WalBatch | None


class Codec(Protocol):
    """A twin: a module with these names."""

    @property
    def FrameReader(self) -> type[FrameReader]: ...
    @property
    def XLogData(self) -> type[XLogData]: ...
    @property
    def PrimaryKeepalive(self) -> type[PrimaryKeepalive]: ...
    @property
    def WalBatch(self) -> type[WalBatch]: ...
    @property
    def Decoder(self) -> type[Decoder]: ...
    @property
    def Row(self) -> type[Row]: ...
    @property
    def Mould(self) -> type[Mould]: ...
    @property
    def Types(self) -> type[Types]: ...

    def name_place(self, place: str, *classes: type) -> None:
        """Have classes of this twin say that users import them from the module `place`."""

    def next_batch(self, reader: Any) -> _NextBatch:
        """Take all whole CopyData frames at the front of a reader of the same twin: a `WalBatch`.

        None: the next frame is not whole yet, or is not CopyData. Raises `ProtocolError` when the
        first frame is at fault.
        """

    def ready(self, result: Any) -> Awaitable[Any]:
        """Return an awaitable for what is there; None: for the end of an asynchronous iteration."""

    def standby_status(
        self, written: int, flushed: int, applied: int, client_time: int, reply_requested: bool
    ) -> bytes:
        """Return a whole frame with a standby status update, ready to be sent."""
