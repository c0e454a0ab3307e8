"""Frames, native: the buffer that the driver fills, and the frames in it.

The law of the buffer: a byte that somebody can see is never written again. Whoever looks at a chunk
(a batch, a message, a view of its payload) holds a reference to it, so a chunk may be refilled from
its start only while the reader's own reference is the only one. Appending behind the bytes that
have arrived is always safe.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memmove

from .whole cimport seal

from ..abc import MAX_FRAME_LENGTH
from ..faults import fault_error


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)
    PyObject *PyList_GET_ITEM(PyObject *, Py_ssize_t)
    void PyType_Modified(PyTypeObject *)


cdef enum:
    MAX_SPARES = 3          # the consumer's batch, the one before it, and one more


@cython.final
@cython.no_gc
cdef class Chunk:
    """A piece of memory that the driver fills and that messages look into."""

    def __cinit__(self, size_t capacity):
        self.bytes = <uint8_t *>PyMem_RawMalloc(capacity)
        if self.bytes == NULL:
            raise MemoryError()
        self.capacity = capacity

    def __dealloc__(self):
        PyMem_RawFree(self.bytes)

    cdef int resize(self, size_t capacity) except -1:
        cdef void *moved = PyMem_RawRealloc(self.bytes, capacity)
        if moved == NULL:
            raise MemoryError()
        self.bytes = <uint8_t *>moved
        self.capacity = capacity
        return 0

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(
            buffer, self, self.bytes + self.room, self.capacity - self.room, False, flags
        )


@cython.final
cdef class FrameReader:
    """FrameReader(chunk_size=131072)\n--\n
    Takes bytes as they arrive and gives whole frames; the driver fills its buffer in place.

    Memory grows with what has arrived, never with what a length word claims. Bytes that a view can
    see are never written again. A fault is raised when everything before it has been taken, and
    then again at every further call.
    """

    def __cinit__(self, size_t chunk_size=131072):
        if chunk_size < 64:
            raise ValueError(f"expected a chunk size of at least 64 bytes, got {chunk_size}")
        self.chunk_size = chunk_size
        self.typical_frame = 64
        self.chunk = new_chunk(chunk_size)
        self.spares = []
        self.max_length = MAX_FRAME_LENGTH

    @property
    def limit(self):
        """Largest length word to accept, 4..`MAX_FRAME_LENGTH`."""
        return self.max_length

    @limit.setter
    def limit(self, value):
        if not 4 <= value <= MAX_FRAME_LENGTH:
            raise ValueError(f"expected a limit between 4 and {MAX_FRAME_LENGTH}, got {value}")
        self.max_length = value

    @property
    def pending(self):
        """Bytes that arrived and were not taken yet."""
        return self.end - self.start

    def get_buffer(self, Py_ssize_t sizehint=-1):
        """Return room for at least one byte, to be filled from its start."""
        self.make_room()
        self.chunk.room = self.end
        return PyMemoryView_FromObject(self.chunk)

    def buffer_updated(self, Py_ssize_t nbytes):
        """Tell how much of the room was filled; `ValueError` if there was not that much."""
        cdef size_t room = self.chunk.capacity - self.end
        if nbytes < 0 or <size_t>nbytes > room:
            raise ValueError(f"expected 0 to {room} filled bytes, got {nbytes}")
        self.end += <size_t>nbytes

    def feed(self, data):
        """Take bytes that are in memory already."""
        cdef Py_buffer view
        cdef size_t at = 0, part
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while at < <size_t>view.len:
                self.make_room()
                part = min(<size_t>view.len - at, self.chunk.capacity - self.end)
                memmove(self.chunk.bytes + self.end, <uint8_t *>view.buf + at, part)
                self.end += part
                at += part
        except MemoryError:
            self.end -= at      # all of it, or nothing: who calls cannot know how much there is
            raise
        finally:
            PyBuffer_Release(&view)

    def next_frame(self):
        """Take the next frame as (tag, body), or return None if none is whole yet."""
        cdef pgr_frame frame
        cdef pgr_error error
        cdef pgr_status status = pgr_frame_next(
            self.chunk.bytes + self.start, self.end - self.start, self.max_length, &frame, &error
        )
        if status == PGR_NEED_MORE:
            return None
        if status == PGR_BAD:
            raise fault_error(error.fault, error.tag, error.offset, error.expected, error.got)
        taken = (
            PyBytes_FromStringAndSize(<char *>&frame.tag, 1),
            PyBytes_FromStringAndSize(<char *>frame.body, frame.body_size),
        )
        # Only now: where memory is short, the frame is still there.
        self.start += PGR_FRAME_HEADER + frame.body_size
        return taken

    cdef size_t missing(self):
        # How many bytes the first frame still needs; 0 when it is whole, at fault or unknown.
        cdef pgr_frame frame
        cdef pgr_error error
        cdef size_t have = self.end - self.start
        cdef pgr_status status = pgr_frame_next(
            self.chunk.bytes + self.start, have, self.max_length, &frame, &error
        )
        if status != PGR_NEED_MORE or frame.tag == 0:
            return 0
        return PGR_FRAME_HEADER + frame.body_size - have

    cdef int make_room(self) except -1:
        cdef size_t half = self.chunk_size // 2
        cdef size_t have = self.end - self.start
        cdef size_t room = self.chunk.capacity - self.end
        cdef size_t missing
        if have == 0 and self.start > 0:
            # All was taken: begin anew where the cache is warm, if nobody looks.
            return self.relocate(self.chunk_size)
        if room >= half:
            return 0
        missing = self.missing()
        if have <= half and have + missing <= self.chunk_size:
            return self.relocate(self.chunk_size)
        if room >= missing > 0:
            return 0
        # A frame larger than a chunk, or frames that nobody takes: grow as bytes arrive, at most
        # to twice as many, whatever the frame claims to be.
        return self.relocate(have + max(half, min(missing, have)))

    cdef int relocate(self, size_t capacity) except -1:
        # Move what was not taken to the start of a chunk of this capacity that nobody looks into.
        # Where memory is short, everything that arrived is still there, in one chunk or the other.
        cdef size_t have = self.end - self.start
        cdef bint unseen = Py_REFCNT(<PyObject *>self.chunk) == 1
        cdef Chunk old
        if unseen and (self.chunk.capacity == capacity or capacity > self.chunk_size):
            memmove(self.chunk.bytes, self.chunk.bytes + self.start, have)
            self.start = 0
            self.end = have
            if self.chunk.capacity < capacity:
                self.chunk.resize(capacity)
        else:
            old = self.chunk
            if capacity == self.chunk_size:
                self.chunk = self.standard_chunk()
            else:
                self.chunk = new_chunk(capacity)
            memcpy(self.chunk.bytes, old.bytes + self.start, have)
            self.start = 0
            self.end = have
            if old.capacity == self.chunk_size:
                if len(self.spares) == MAX_SPARES:
                    del self.spares[0]
                self.spares.append(old)
        return 0

    cdef Chunk standard_chunk(self):
        cdef Py_ssize_t i
        for i in range(len(self.spares)):
            if Py_REFCNT(PyList_GET_ITEM(<PyObject *>self.spares, i)) == 1:
                return self.spares.pop(i)
        return new_chunk(self.chunk_size)


cdef inline Chunk new_chunk(size_t capacity):
    return Chunk.__new__(Chunk, capacity)


seal(<PyTypeObject *>Chunk)


cdef list type_names = []


def name_place(str place, *classes):
    """Have extension types of this package say that users import them from the module `place`."""
    # What a class statement would set cannot be set on an extension type: its name tells.
    cdef bytes name
    for cls in classes:
        if not isinstance(cls, type) or cls.__module__.partition(".")[0] != "pgrepl":
            raise TypeError(f"expected extension types of pgrepl, got {cls!r:.100}")
        name = f"{place}.{cls.__name__}".encode()
        type_names.append(name)  # the type refers to its bytes
        (<PyTypeObject *>cls).tp_name = PyBytes_AS_STRING(name)
        PyType_Modified(<PyTypeObject *>cls)
