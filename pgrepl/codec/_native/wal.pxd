# What src_c/pgr_wal.h declares, and the classes of wal.pyx that others look into.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .frames cimport Chunk, pgr_error, pgr_status


cdef extern from "pgr_wal.h":
    enum:
        PGR_STATUS_FRAME_SIZE
    ctypedef struct pgr_keepalive:
        uint64_t wal_end
        int64_t server_time
        uint32_t index
        uint8_t reply_requested
    ctypedef struct pgr_wal_columns:
        size_t capacity
        size_t keepalive_capacity
        uint64_t *wal_start
        uint64_t *wal_end
        int64_t *server_time
        uint32_t *offset
        uint32_t *size
        pgr_keepalive *keepalive
    ctypedef struct pgr_wal_run:
        size_t bytes
        size_t xlogdata
        size_t keepalives
        uint64_t highest_position
        uint64_t highest_end
        bint full
    pgr_status pgr_wal_read(
        const uint8_t *bytes, size_t size, const pgr_wal_columns *columns, pgr_wal_run *run,
        pgr_error *error
    ) nogil
    void pgr_wal_tail(
        const pgr_wal_columns *columns, const pgr_wal_run *run, size_t xlogdata, size_t keepalives,
        pgr_wal_columns *to, pgr_wal_run *tail
    ) nogil
    void pgr_wal_write_status(
        uint8_t *out, uint64_t written, uint64_t flushed, uint64_t applied, int64_t client_time,
        uint8_t reply_requested
    ) nogil


cdef class XLogData:
    # Python reads these three as slots, see expose_slots().
    cdef object wal_start
    cdef object wal_end
    cdef object server_time
    cdef const uint8_t *payload
    cdef Py_ssize_t size
    cdef object owner       # of the payload's memory: a Chunk, or bytes
    cdef bint fresh         # comes from __new__, and __init__ is to be called once more


cdef class PrimaryKeepalive:
    cdef uint64_t position
    cdef int64_t time
    cdef bint is_request
    cdef bint fresh         # as above
    cdef bint known         # was initialised


cdef class Table:
    cdef pgr_wal_columns columns
    cdef uint8_t *memory

    @staticmethod
    cdef Table of(size_t capacity, size_t keepalives)


cdef class WalBatch:
    cdef Table table
    cdef Chunk chunk
    cdef const uint8_t *bytes       # of the run that the columns' offsets count from
    cdef pgr_wal_run run
    cdef XLogData make_xlogdata(self, Py_ssize_t i)
    cdef int fill(self, XLogData message, Py_ssize_t i) except -1
    cdef PrimaryKeepalive make_keepalive(self, Py_ssize_t i)
    cdef object make(self, Py_ssize_t index)
