from libc.stdint cimport int64_t, uint8_t, uint64_t

from .pgoutput cimport pgr_error, pgr_message, pgr_span, pgr_truncate
from .rows cimport Layout


cdef object flaw_of(const pgr_error *error)
cdef object flaw_at(
    const pgr_message *message, int fault, const uint8_t *field, int64_t expected, int64_t got,
    where=*
)
cdef object xid_of(const pgr_message *message)
cdef object lsn_of(uint64_t position)
cdef object text_of(pgr_span text)

cdef int check_widths(const pgr_message *message, Layout layout) except -1
cdef object make_change(const pgr_message *message, Layout layout, uint64_t lsn, bint has_lsn)
cdef object make_truncate(
    const pgr_message *message, tuple layouts, uint64_t lsn, bint has_lsn
)
cdef object make_message(const pgr_message *message)
