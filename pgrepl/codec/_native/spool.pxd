from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .pgoutput cimport pgr_stream
from .rows cimport Layout


cdef class Writer:
    cdef readonly object stored
    cdef dict indexes           # by OID: the Layout of what it means now, and its index
    cdef Layout recent          # the last one used, and its index: rows of one table come in runs
    cdef uint32_t recent_index
    cdef bytearray piece        # that is being filled, or None
    cdef Layout known(self, Layout layout)
    cdef uint32_t bind(self, Layout layout) except? 0
    cdef bytes bind_all(self, tuple layouts)
    cdef int append(
        self, const uint8_t *payload, size_t size, uint64_t lsn, uint32_t binding,
        bytes indexes=*
    ) except -1


cdef Writer writer_of(stored)
cdef object replay_of(stored, const pgr_stream *stream, uint32_t xid)
cdef object kept_of(stored, const pgr_stream *stream)
