"""WAL, native: runs of CopyData as batches, one object a message, made when it is looked at.

A batch reads all headers of a run at once, in C, into columns; a message is three numbers and a
reference to the chunk that its payload lies in. The message itself exports the buffer: `bytes(m)`,
`memoryview(m)` and `struct.unpack_from(f, m)` need no view object in between.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport PyObject, PyTypeObject
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .frames cimport (
    PGR_BAD,
    PGR_FRAME_MAX_LENGTH,
    PGR_NEED_MORE,
    PGR_OK,
    Chunk,
    FrameReader,
    pgr_error,
    pgr_frame,
    pgr_frame_next,
    pgr_status,
)

from .integers cimport refill
from .members cimport PyMemberDef, expose
from .whole cimport complete, newfunc, seal, whole

from collections.abc import Sequence
from operator import index as as_int

from ...lsn import Lsn, encode_lsn
from ...messages import to_datetime
from ..faults import fault_error


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)


include "wal_messages.pxi"


@cython.final
@cython.no_gc
cdef class Table:
    """The memory of a batch's columns, shared by the batch and the views of its columns."""

    @staticmethod
    cdef Table of(size_t capacity, size_t keepalives):
        cdef Table self = Table.__new__(Table)
        cdef pgr_wal_columns *to = &self.columns
        self.memory = <uint8_t *>PyMem_RawMalloc(
            keepalives * sizeof(pgr_keepalive)
            + capacity * (3 * sizeof(uint64_t) + 2 * sizeof(uint32_t))
        )
        if self.memory == NULL:
            raise MemoryError()
        to.capacity = capacity
        to.keepalive_capacity = keepalives
        # Widest first, so that each column is aligned.
        to.keepalive = <pgr_keepalive *>self.memory
        to.wal_start = <uint64_t *>(to.keepalive + keepalives)
        to.wal_end = to.wal_start + capacity
        to.server_time = <int64_t *>(to.wal_end + capacity)
        to.offset = <uint32_t *>(to.server_time + capacity)
        to.size = to.offset + capacity
        return self

    def __dealloc__(self):
        PyMem_RawFree(self.memory)


cdef Table NO_MESSAGES = Table.of(0, 0)


@cython.final
@cython.no_gc
cdef class Column:
    """Exports one column of 64-bit integers; keeps the table alive, and not the chunk."""

    cdef Table table
    cdef void *items
    cdef char *format
    cdef Py_ssize_t count
    cdef Py_ssize_t itemsize

    @staticmethod
    cdef object view(Table table, void *items, char *format, size_t count):
        cdef Column self = Column.__new__(Column)
        self.table = table
        self.items = items
        self.format = format
        self.count = <Py_ssize_t>count
        self.itemsize = sizeof(uint64_t)
        return PyMemoryView_FromObject(self)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.items, self.count * self.itemsize, True, flags)
        buffer.itemsize = self.itemsize
        if flags & PyBUF_FORMAT:
            buffer.format = self.format
        if flags & PyBUF_ND:
            buffer.shape = &self.count
        if (flags & PyBUF_STRIDES) == PyBUF_STRIDES:
            buffer.strides = &self.itemsize


@cython.final
@cython.no_gc
@cython.collection_type("sequence")
cdef class WalBatch:
    """WalBatch()\n--\n
    The messages of one read, in order; each is made when it is looked at.

    The columns are memoryviews over the batch's XLogData alone, keepalives left out: ``wal_start``
    and ``wal_end`` unsigned (format ``Q``), ``server_time`` signed (``q``), 64 bits each.
    """

    def __cinit__(self):
        # An empty batch, which says that streaming has ended, until batch_at() fills it.
        self.table = NO_MESSAGES
        self.run.bytes = self.run.xlogdata = self.run.keepalives = 0
        self.run.highest_position = self.run.highest_end = 0

    cdef XLogData make_xlogdata(self, Py_ssize_t i):
        cdef XLogData message = XLogData.__new__(XLogData)
        message.owner = self.chunk
        self.fill(message, i)
        return message

    cdef int fill(self, XLogData message, Py_ssize_t i) except -1:
        cdef pgr_wal_columns *columns = &self.table.columns
        cdef uint64_t start = columns.wal_start[i], end = columns.wal_end[i]
        cdef int64_t time = columns.server_time[i]
        cdef bint shared = message.wal_start is message.wal_end
        if start == end:
            # So it always is in a logical stream: one integer serves both.
            if not (shared and refill(<PyObject *>message.wal_start, 2, start)):
                message.wal_start = message.wal_end = start
        else:
            if shared or not refill(<PyObject *>message.wal_start, 1, start):
                message.wal_start = start
            if shared or not refill(<PyObject *>message.wal_end, 1, end):
                message.wal_end = end
        if time < 0 or not refill(<PyObject *>message.server_time, 1, <uint64_t>time):
            message.server_time = time
        message.payload = self.bytes + columns.offset[i]
        message.size = columns.size[i]
        return 0

    cdef PrimaryKeepalive make_keepalive(self, Py_ssize_t i):
        cdef PrimaryKeepalive message = PrimaryKeepalive.__new__(PrimaryKeepalive)
        message.position = self.table.columns.keepalive[i].wal_end
        message.time = self.table.columns.keepalive[i].server_time
        message.is_request = self.table.columns.keepalive[i].reply_requested
        message.known = True
        return message

    cdef object make(self, Py_ssize_t index):
        # Keepalives are few: count those that come before.
        cdef Py_ssize_t before = 0
        cdef pgr_keepalive *keepalive = self.table.columns.keepalive
        while before < <Py_ssize_t>self.run.keepalives and keepalive[before].index < index:
            before += 1
        if before < <Py_ssize_t>self.run.keepalives and keepalive[before].index == index:
            return self.make_keepalive(before)
        return self.make_xlogdata(index - before)

    def __len__(self):
        return <Py_ssize_t>(self.run.xlogdata + self.run.keepalives)

    def __getitem__(self, index):
        cdef Py_ssize_t count = len(self), i
        if isinstance(index, slice):
            return list(map(self.__getitem__, range(*index.indices(count))))
        i = PyNumber_AsSsize_t(index, IndexError)
        if i < 0:
            i += count
        if not 0 <= i < count:
            raise IndexError(f"expected an index below {count}, got {index}")
        return self.make(i)

    def index(self, value, *limits):
        """Return the position of the first message that equals `value`, or raise `ValueError`."""
        return Sequence.index(self, value, *limits)

    def count(self, value):
        """Return how many messages equal `value`."""
        return Sequence.count(self, value)

    def __iter__(self):
        cdef WalIterator iterator = WalIterator.__new__(WalIterator)
        iterator.batch = self
        return iterator

    @property
    def wal_start(self):
        """Positions of the XLogData: a memoryview of unsigned 64-bit integers."""
        return Column.view(self.table, self.table.columns.wal_start, b"Q", self.run.xlogdata)

    @property
    def wal_end(self):
        """The server's position at each XLogData: a memoryview of unsigned 64-bit integers."""
        return Column.view(self.table, self.table.columns.wal_end, b"Q", self.run.xlogdata)

    @property
    def server_time(self):
        """When each XLogData was sent: a memoryview of signed 64-bit integers, microseconds."""
        return Column.view(self.table, self.table.columns.server_time, b"q", self.run.xlogdata)

    @property
    def reply_requested(self):
        """Whether one of the keepalives asks for an answer."""
        cdef size_t i
        for i in range(self.run.keepalives):
            if self.table.columns.keepalive[i].reply_requested:
                return True
        return False

    @property
    def nbytes(self):
        """The size of its messages as they came, with their headers."""
        return self.run.bytes

    def received(self, bint physical):
        """Return the highest position that the batch brought; 0 for an empty one."""
        return self.run.highest_end if physical else self.run.highest_position

    def payloads(self, bytes end not None=b"", count=None):
        """Return the payloads of the XLogData in one piece, each followed by `end`."""
        cdef size_t wanted = self.run.xlogdata, i, size, tail = <size_t>PyBytes_GET_SIZE(end)
        cdef size_t total = 0
        if count is not None:
            wanted = <size_t>max(0, min(as_int(count), self.run.xlogdata))
        cdef pgr_wal_columns *columns = &self.table.columns
        for i in range(wanted):
            total += columns.size[i]
        cdef bytes joined = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(total + wanted * tail))
        cdef char *to = PyBytes_AS_STRING(joined)
        cdef const char *ending = PyBytes_AS_STRING(end)
        for i in range(wanted):
            size = columns.size[i]
            memcpy(to, self.bytes + columns.offset[i], size)
            to += size
            memcpy(to, ending, tail)
            to += tail
        return joined

    def tail(self, Py_ssize_t index):
        """Return the batch of the messages from `index` on; it shares the payloads."""
        cdef Py_ssize_t count = len(self)
        cdef WalBatch batch = WalBatch.__new__(WalBatch)
        cdef size_t before = 0, first
        if not 0 <= index <= count:
            raise IndexError(f"expected an index between 0 and {count}, got {index}")
        if index == count:
            return batch
        # By the columns: the chunk's headers count no more, and somebody may have written there.
        while before < self.run.keepalives and self.table.columns.keepalive[before].index < index:
            before += 1
        first = <size_t>index - before
        batch.table = Table.of(self.run.xlogdata - first, self.run.keepalives - before)
        pgr_wal_tail(
            &self.table.columns, &self.run, first, before, &batch.table.columns, &batch.run
        )
        batch.chunk = self.chunk
        batch.bytes = self.bytes
        return batch

    def __repr__(self):
        return f"<WalBatch {self.run.xlogdata} XLogData, {self.run.keepalives} keepalives>"


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class WalIterator:
    """Makes a batch's messages in order.

    A message that was let go is used again for the one after the next, as `zip` does with its
    tuples: a loop that keeps nothing makes two objects, not thousands. Whoever keeps a message, or
    a view of it, holds a reference, and then another object is made.
    """

    cdef WalBatch batch
    cdef XLogData spare             # made two steps ago
    cdef XLogData last              # made one step ago: the loop's variable still refers to it
    cdef size_t xlogdata            # how many of each were made
    cdef size_t keepalives

    def __iter__(self):
        return self

    def __next__(self):
        cdef WalBatch batch = self.batch
        if self.keepalives < batch.run.keepalives and (
            batch.table.columns.keepalive[self.keepalives].index
            == self.xlogdata + self.keepalives
        ):
            self.keepalives += 1
            return batch.make_keepalive(self.keepalives - 1)
        if self.xlogdata == batch.run.xlogdata:
            raise StopIteration
        cdef XLogData message = self.spare
        self.spare = self.last
        if message is not None and Py_REFCNT(<PyObject *>message) == 1:
            batch.fill(message, self.xlogdata)
        else:
            message = batch.make_xlogdata(self.xlogdata)
        self.last = message
        self.xlogdata += 1
        return message


Sequence.register(WalBatch)


cdef enum:
    MIN_FRAME = 23              # the shortest, a keepalive; an XLogData without payload has 30
    FEW_KEEPALIVES = 16         # more in one read are rare


cdef WalBatch batch_at(
    Chunk chunk, const uint8_t *bytes, size_t size, size_t capacity, size_t keepalives
):
    # The batch of the run at the front of some bytes of a chunk; None where no run begins there.
    cdef pgr_error error
    cdef WalBatch batch = WalBatch.__new__(WalBatch)
    batch.table = Table.of(capacity, keepalives)
    cdef pgr_status status = pgr_wal_read(bytes, size, &batch.table.columns, &batch.run, &error)
    if status == PGR_OK and batch.run.full:
        # More messages than was guessed: read again, with room for the shortest possible.
        batch.table = Table.of(size // MIN_FRAME + 1, size // MIN_FRAME + 1)
        status = pgr_wal_read(bytes, size, &batch.table.columns, &batch.run, &error)
    if status == PGR_NEED_MORE:
        return None
    if status == PGR_BAD:
        raise fault_error(error.fault, error.tag, error.offset, error.expected, error.got)
    batch.chunk = chunk
    batch.bytes = bytes
    return batch


def next_batch(FrameReader reader not None):
    """Take all whole CopyData frames at the front of a reader of the same twin: a `WalBatch`.

    None: the next frame is not whole yet, or is not CopyData. Raises `ProtocolError` when the
    first frame is at fault.
    """
    cdef size_t size = reader.end - reader.start
    cdef const uint8_t *bytes = reader.chunk.bytes + reader.start
    cdef pgr_frame frame
    cdef pgr_error error
    cdef WalBatch batch
    # Between two reads there is a piece of a message: no batch need be made to see that.
    if pgr_frame_next(bytes, size, PGR_FRAME_MAX_LENGTH, &frame, &error) == PGR_NEED_MORE:
        return None
    batch = batch_at(
        reader.chunk, bytes, size, size // reader.typical_frame + 16, FEW_KEEPALIVES
    )
    if batch is not None:
        reader.start += batch.run.bytes
        # Somewhat below the average, so that the guess is seldom too low.
        reader.typical_frame = max(
            <size_t>MIN_FRAME,
            batch.run.bytes * 3 // (4 * (batch.run.xlogdata + batch.run.keepalives)),
        )
    return batch


def standby_status(written, flushed, applied, client_time, bint reply_requested):
    """Return a whole frame with a standby status update, ready to be sent."""
    cdef uint8_t[PGR_STATUS_FRAME_SIZE] frame
    pgr_wal_write_status(
        frame, as_int(written), as_int(flushed), as_int(applied), as_int(client_time),
        reply_requested
    )
    return PyBytes_FromStringAndSize(<char *>frame, PGR_STATUS_FRAME_SIZE)


cdef newfunc blank_xlogdata, blank_keepalive


cdef object whole_xlogdata(PyTypeObject *cls, PyObject *given, PyObject *named):
    return whole(blank_xlogdata, cls, given, named)


cdef object whole_keepalive(PyTypeObject *cls, PyObject *given, PyObject *named):
    return whole(blank_keepalive, cls, given, named)


complete(<PyTypeObject *>XLogData, &blank_xlogdata, whole_xlogdata)
complete(<PyTypeObject *>PrimaryKeepalive, &blank_keepalive, whole_keepalive)
seal(<PyTypeObject *>Table)
seal(<PyTypeObject *>Column)
seal(<PyTypeObject *>WalIterator)
