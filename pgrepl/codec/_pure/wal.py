"""WAL, pure Python: the twin of pgrepl/codec/_native/wal.pyx and src_c/pgr_wal.c."""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, overload

from ...errors import ProtocolError
from ...lsn import Lsn, encode_lsn
from ...messages import to_datetime
from .. import abc as contract
from ..abc import MAX_FRAME_LENGTH
from ..faults import Fault, fault_error
from .frames import HEADER, FrameReader, parse_header

__all__ = ["PrimaryKeepalive", "WalBatch", "XLogData", "next_batch", "standby_status"]

_XLOGDATA: Final = struct.Struct(">BQQq")
_KEEPALIVE: Final = struct.Struct(">BQqB")
_STATUS: Final = struct.Struct(">BiBQQQqB")
_STATUS_LENGTH: Final = _STATUS.size - 1
_UNSIGNED64: Final = 1 << 64


class _Arrived(NamedTuple):
    """A payload within what has arrived, which nobody writes to."""

    payload: memoryview


class _Run(NamedTuple):
    """CopyData messages that stand one behind the other, by where each begins and ends."""

    data: bytes
    spans: list[tuple[int, int]]


class XLogData:
    __doc__ = contract.XLogData.__doc__

    # `memoryview(message)` works from Python 3.12 on, where a class can export a buffer; `data` and
    # `bytes(message)` work everywhere.

    __slots__ = ("_data", "_server_time", "_wal_end", "_wal_start")
    __match_args__ = ("wal_start", "wal_end", "server_time", "data")

    def __init__(self, wal_start: int, wal_end: int, server_time: int, data: Any) -> None:
        if hasattr(self, "_data"):
            raise TypeError("an XLogData cannot be initialised twice")
        if type(data) is _Arrived:
            # The numbers come off the wire and need no check.
            self._wal_start, self._wal_end, self._server_time = wal_start, wal_end, server_time
            self._data = data.payload
            return
        self._wal_start = _unsigned(wal_start)
        self._wal_end = _unsigned(wal_end)
        self._server_time = _signed(server_time)
        self._data = memoryview(bytes(memoryview(data)))

    @property
    def wal_start(self) -> int:
        """Position of the data."""
        return self._wal_start

    @property
    def wal_end(self) -> int:
        """Physical: the end of the server's WAL. Logical: equal to `wal_start`."""
        return self._wal_end

    @property
    def server_time(self) -> int:
        """When the server sent it, in microseconds since 2000-01-01 00:00 UTC."""
        return self._server_time

    @property
    def server_datetime(self) -> datetime:
        """`server_time` as an aware `datetime`."""
        return to_datetime(self._server_time)

    @property
    def data(self) -> memoryview:
        """The payload, read-only and not copied. The view keeps the whole chunk in memory."""
        return self._data[:]

    def __len__(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def __buffer__(self, flags: int) -> memoryview:
        return self._data[:]

    def _fields(self) -> tuple[int, int, int, bytes]:
        return self._wal_start, self._wal_end, self._server_time, bytes(self._data)

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, XLogData) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __reduce__(self) -> tuple[Any, ...]:
        return XLogData, self._fields()

    def __repr__(self) -> str:
        return (
            f"<XLogData wal_start={encode_lsn(self._wal_start)} "
            f"wal_end={encode_lsn(self._wal_end)} server_time={self._server_time} "
            f"{len(self)} bytes>"
        )


class PrimaryKeepalive:
    __doc__ = contract.PrimaryKeepalive.__doc__

    __slots__ = ("_reply_requested", "_server_time", "_wal_end")
    __match_args__ = ("wal_end", "server_time", "reply_requested")

    def __init__(self, wal_end: int, server_time: int, reply_requested: bool) -> None:
        if hasattr(self, "_reply_requested"):
            raise TypeError("a PrimaryKeepalive cannot be initialised twice")
        self._wal_end = _unsigned(wal_end)
        self._server_time = _signed(server_time)
        self._reply_requested = bool(reply_requested)

    @property
    def wal_end(self) -> Lsn:
        """Physical: what was sent so far. Logical: how far the server has read its WAL."""
        return Lsn(self._wal_end)

    @property
    def server_time(self) -> int:
        """When the server sent it, in microseconds since 2000-01-01 00:00 UTC."""
        return self._server_time

    @property
    def server_datetime(self) -> datetime:
        """`server_time` as an aware `datetime`."""
        return to_datetime(self._server_time)

    @property
    def reply_requested(self) -> bool:
        """Whether the server closes the connection unless a status comes soon."""
        return self._reply_requested

    def _fields(self) -> tuple[int, int, bool]:
        return self._wal_end, self._server_time, self._reply_requested

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PrimaryKeepalive):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __reduce__(self) -> tuple[Any, ...]:
        return PrimaryKeepalive, self._fields()

    def __repr__(self) -> str:
        return (
            f"<PrimaryKeepalive wal_end={encode_lsn(self._wal_end)} "
            f"server_time={self._server_time} reply_requested={self._reply_requested}>"
        )


class WalBatch(Sequence["XLogData | PrimaryKeepalive"]):
    __doc__ = contract.WalBatch.__doc__

    __slots__ = ("_bytes", "_data", "_headers", "_keepalives", "_spans")

    def __init__(self, *runs: _Run) -> None:
        # Without a run it is the empty batch, which says that streaming has ended.
        data, spans = _one_run(runs) if runs else _Run(b"", [])
        self._bytes = data
        self._data = memoryview(data)
        self._spans = spans
        self._headers: list[tuple[int, int, int]] = []
        self._keepalives: dict[int, PrimaryKeepalive] = {}
        for index, (start, _) in enumerate(spans):
            if data[start] == 0x6B:  # 'k'
                self._keepalives[index] = PrimaryKeepalive(*_KEEPALIVE.unpack_from(data, start)[1:])
                self._headers.append((0, 0, 0))
            else:
                _, *header = _XLOGDATA.unpack_from(data, start)
                self._headers.append((header[0], header[1], header[2]))

    def _make(self, index: int) -> XLogData | PrimaryKeepalive:
        keepalive = self._keepalives.get(index)
        if keepalive is not None:
            return keepalive
        start, end = self._spans[index]
        payload = self._data[start + _XLOGDATA.size : end]
        return XLogData(*self._headers[index], _Arrived(payload))

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[XLogData | PrimaryKeepalive]:
        return map(self._make, range(len(self._spans)))

    @overload
    def __getitem__(self, index: int) -> XLogData | PrimaryKeepalive: ...
    @overload
    def __getitem__(self, index: slice) -> list[XLogData | PrimaryKeepalive]: ...
    def __getitem__(self, index: int | slice) -> Any:
        count = len(self._spans)
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(count))]
        position = index + count if index < 0 else index
        if not 0 <= position < count:
            raise IndexError(f"expected an index below {count}, got {index}")
        return self._make(position)

    def _column(self, field: int, format: Literal["Q", "q"]) -> memoryview:
        values = [h[field] for i, h in enumerate(self._headers) if i not in self._keepalives]
        return memoryview(struct.pack(f"={len(values)}{format}", *values)).cast(format)

    @property
    def wal_start(self) -> memoryview:
        """Positions of the XLogData: a memoryview of unsigned 64-bit integers."""
        return self._column(0, "Q")

    @property
    def wal_end(self) -> memoryview:
        """The server's position at each XLogData: a memoryview of unsigned 64-bit integers."""
        return self._column(1, "Q")

    @property
    def server_time(self) -> memoryview:
        """When each XLogData was sent: a memoryview of signed 64-bit integers, microseconds."""
        return self._column(2, "q")

    @property
    def reply_requested(self) -> bool:
        """Whether one of the keepalives asks for an answer."""
        return any(keepalive.reply_requested for keepalive in self._keepalives.values())

    @property
    def nbytes(self) -> int:
        """The size of its messages as they came, with their headers."""
        return sum(end - start + HEADER.size for start, end in self._spans)

    def received(self, physical: bool) -> int:
        """Return the highest position that the batch brought; 0 for an empty one."""
        positions = [int(keepalive.wal_end) for keepalive in self._keepalives.values()]
        for (start, end), header in zip(self._spans, self._headers, strict=True):
            size = end - start - _XLOGDATA.size if physical else 0
            # What a hostile server can make overflow wraps in both twins alike.
            positions.append((header[0] + max(size, 0)) % _UNSIGNED64)
        return max(positions, default=0)

    def payloads(self, end: bytes = b"", count: int | None = None) -> bytes:
        """Return the payloads of the XLogData in one piece, each followed by `end`."""
        if type(end) is not bytes:
            raise TypeError(f"expected bytes to follow each payload, got {type(end).__name__}")
        pieces = [
            self._data[start + _XLOGDATA.size : stop]
            for index, (start, stop) in enumerate(self._spans)
            if index not in self._keepalives
        ]
        wanted = pieces if count is None else pieces[: max(0, operator.index(count))]
        return end.join((*wanted, b"")) if wanted else b""

    def tail(self, index: int) -> WalBatch:
        """Return the batch of the messages from `index` on; it shares the payloads."""
        return WalBatch(_Run(self._bytes, self._spans[_tail_start(index, len(self)) :]))

    def __repr__(self) -> str:
        keepalives = len(self._keepalives)
        return f"<WalBatch {len(self) - keepalives} XLogData, {keepalives} keepalives>"


def _one_run(given: tuple[_Run, ...]) -> _Run:
    if len(given) != 1 or type(given[0]) is not _Run:
        raise TypeError(
            "expected no arguments for a WalBatch, which only an empty one is made with"
        )
    return given[0]


def _tail_start(index: int, count: int) -> int:
    if not 0 <= index <= count:
        raise IndexError(f"expected an index between 0 and {count}, got {index}")
    return index


def next_batch(reader: FrameReader) -> WalBatch | None:
    """Take all whole CopyData frames at the front of a reader of the same twin: a `WalBatch`.

    None: the next frame is not whole yet, or is not CopyData. Raises `ProtocolError` when the
    first frame is at fault.
    """
    if not reader.join(MAX_FRAME_LENGTH):
        return None
    data, at = reader.data, reader.start
    spans: list[tuple[int, int]] = []
    while True:
        try:
            header = parse_header(data, at, MAX_FRAME_LENGTH)
            if header is None or header[1] > len(data) or header[0] != 0x64:  # 'd'
                break
            _check_body(data, at + HEADER.size, header[1])
        except ProtocolError:
            # What came before a fault is always delivered, however the bytes were cut.
            if spans:
                break
            raise
        spans.append((at + HEADER.size, header[1]))
        at = header[1]
    if not spans:
        return None
    reader.start = at
    return WalBatch(_Run(data, spans))


def _check_body(data: bytes, start: int, end: int) -> None:
    size = end - start
    if size == 0:
        raise fault_error(Fault.COPY_EMPTY, ord("d"), 0, 1, 0)
    kind = data[start]
    if kind == 0x77:  # 'w'
        if size < _XLOGDATA.size:
            raise fault_error(Fault.WAL_HEADER, kind, 0, _XLOGDATA.size, size)
    elif kind == 0x6B:  # 'k'
        if size != _KEEPALIVE.size:
            raise fault_error(Fault.KEEPALIVE_SIZE, kind, 0, _KEEPALIVE.size, size)
    else:
        raise fault_error(Fault.COPY_TAG, kind, 0, 0, kind)


def standby_status(
    written: int, flushed: int, applied: int, client_time: int, reply_requested: bool
) -> bytes:
    """Return a whole frame with a standby status update, ready to be sent."""
    positions = [_unsigned(position) for position in (written, flushed, applied)]
    return _STATUS.pack(
        ord("d"), _STATUS_LENGTH, ord("r"), *positions, _signed(client_time), bool(reply_requested)
    )


def _unsigned(value: int) -> int:
    """Check what C holds in 64 unsigned bits, with the error that the native twin raises."""
    number = int(operator.index(value))
    if not 0 <= number < _UNSIGNED64:
        raise OverflowError(f"expected a position between 0 and 2**64-1, got {number}")
    return number


def _signed(value: int) -> int:
    number = int(operator.index(value))
    if not -_UNSIGNED64 // 2 <= number < _UNSIGNED64 // 2:
        raise OverflowError(f"expected a time in 64 signed bits, got {number}")
    return number
