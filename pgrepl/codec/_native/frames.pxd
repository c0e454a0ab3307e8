from libc.stdint cimport uint8_t, uint32_t


cdef extern from "pgr_base.h":
    ctypedef enum pgr_status:
        PGR_OK
        PGR_NEED_MORE
        PGR_BAD
    ctypedef struct pgr_error:
        int fault
        uint8_t tag
        unsigned long long offset
        long long expected
        long long got

cdef extern from "pgr_frames.h":
    enum:
        PGR_FRAME_HEADER
        PGR_FRAME_MAX_LENGTH
    ctypedef struct pgr_frame:
        const uint8_t *body
        uint32_t body_size
        uint8_t tag
    pgr_status pgr_frame_next(
        const uint8_t *bytes, size_t size, uint32_t limit, pgr_frame *frame, pgr_error *error
    ) nogil


cdef class Chunk:
    cdef uint8_t *bytes
    cdef size_t capacity
    cdef size_t room        # where the part that may be written begins
    cdef int resize(self, size_t capacity) except -1


cdef class FrameReader:
    cdef Chunk chunk
    cdef list spares        # chunks of standard size that views may still look into
    cdef size_t start       # of what was not taken yet
    cdef size_t end         # of what has arrived
    cdef size_t chunk_size
    cdef size_t typical_frame   # size of a frame in the last batch, for the next one's columns
    cdef uint32_t max_length
    cdef size_t missing(self)
    cdef int make_room(self) except -1
    cdef int relocate(self, size_t capacity) except -1
    cdef Chunk standard_chunk(self)
