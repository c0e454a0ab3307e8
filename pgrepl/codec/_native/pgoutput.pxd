# What src_c/pgr_pgoutput.h and src_c/pgr_cursor.h declare; they say what it means.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "pgr_cursor.h":
    ctypedef enum pgr_status:
        PGR_OK
        PGR_BAD
    ctypedef struct pgr_error:
        int fault
        uint8_t tag
        uint64_t offset
        int64_t expected
        int64_t got
    ctypedef struct pgr_span:
        const uint8_t *bytes
        size_t size
    ctypedef struct pgr_cursor:
        const uint8_t *at
        pgr_error error
    uint32_t pgr_load32(const uint8_t *p) nogil
    uint64_t pgr_load64(const uint8_t *p) nogil
    pgr_cursor pgr_cursor_over(const uint8_t *start, uint8_t tag, pgr_span part) nogil


cdef extern from "pgr_pgoutput.h":
    ctypedef struct pgr_stream:
        uint8_t proto_version
        uint8_t parallel
        uint8_t ordered
        uint8_t in_block
        uint32_t block_xid
        uint8_t transaction
    ctypedef struct pgr_begin:
        uint64_t final_lsn
        int64_t commit_time
        uint32_t xid
    ctypedef struct pgr_commit:
        uint64_t commit_lsn
        uint64_t end_lsn
        int64_t commit_time
    ctypedef struct pgr_origin:
        uint64_t commit_lsn
        pgr_span name
    ctypedef struct pgr_relation:
        uint32_t oid
        pgr_span schema
        pgr_span name
        uint8_t replica_identity
        uint16_t attribute_count
        pgr_span attributes
    ctypedef struct pgr_attribute:
        uint8_t is_key
        pgr_span name
        uint32_t type_oid
        int32_t type_modifier
    ctypedef struct pgr_type:
        uint32_t oid
        pgr_span schema
        pgr_span name
    ctypedef struct pgr_tuple:
        uint8_t mark
        uint16_t column_count
        pgr_span columns
    ctypedef struct pgr_column:
        uint8_t kind
        pgr_span value
    ctypedef struct pgr_change:
        uint32_t relation
        pgr_tuple old_tuple
        pgr_tuple new_tuple
    ctypedef struct pgr_truncate:
        uint32_t relation_count
        uint8_t cascade
        uint8_t restart_identity
        pgr_span relations
    ctypedef struct pgr_logical:
        uint8_t transactional
        uint64_t lsn
        pgr_span prefix
        pgr_span content
    ctypedef struct pgr_stream_start:
        uint32_t xid
        uint8_t first_segment
    ctypedef struct pgr_stream_commit:
        uint32_t xid
        pgr_commit commit
    ctypedef struct pgr_stream_abort:
        uint32_t xid
        uint32_t subxid
        uint8_t detailed
        uint64_t abort_lsn
        int64_t abort_time
    ctypedef struct pgr_prepared:
        uint64_t lsn
        uint64_t end_lsn
        int64_t time
        uint32_t xid
        pgr_span gid
    ctypedef struct pgr_rollback_prepared:
        uint64_t prepare_end_lsn
        uint64_t rollback_end_lsn
        int64_t prepare_time
        int64_t rollback_time
        uint32_t xid
        pgr_span gid
    ctypedef union pgr_body:
        pgr_begin begin
        pgr_commit commit
        pgr_origin origin
        pgr_relation relation
        pgr_type type
        pgr_change change
        pgr_truncate truncate
        pgr_logical logical
        pgr_stream_start stream_start
        pgr_stream_commit stream_commit
        pgr_stream_abort stream_abort
        pgr_prepared prepared
        pgr_rollback_prepared rollback_prepared
    ctypedef struct pgr_message:
        uint8_t tag
        uint8_t marked
        uint32_t xid
        const uint8_t *start
        pgr_body body
    pgr_status pgr_pgoutput_read(
        pgr_stream *stream, const uint8_t *bytes, size_t size, pgr_message *message,
        pgr_error *error
    ) nogil
    const uint8_t *pgr_message_body(const pgr_message *message) nogil
    pgr_cursor pgr_message_cursor(const pgr_message *message, pgr_span part) nogil
    pgr_status pgr_column_next(pgr_cursor *cursor, pgr_column *column) nogil
    pgr_status pgr_attribute_next(pgr_cursor *cursor, pgr_attribute *attribute) nogil
