from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .pgoutput cimport pgr_stream
from .rows cimport Layout


cdef class Writer:
    cdef readonly object stored
    cdef list bound             # what relations mean: a Layout, or a tuple of them for a Truncate
    cdef dict indexes           # in it of what is meant now, by OID, or a tuple of them
    cdef Layout recent          # the last one used, and its index: rows of one table come in runs
    cdef uint32_t recent_index
    cdef bytearray piece        # that is being filled, or None
    cdef uint32_t bind(self, Layout layout) except? 0
    cdef uint32_t bind_all(self, tuple layouts) except? 0
    cdef int append(
        self, const uint8_t *payload, size_t size, uint64_t lsn, uint32_t binding
    ) except -1


cdef Writer writer_of(stored)
cdef object replay_of(stored, const pgr_stream *stream, uint32_t xid)
