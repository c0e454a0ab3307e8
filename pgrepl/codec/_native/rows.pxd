from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .pgoutput cimport pgr_column, pgr_cursor, pgr_message, pgr_tuple
from .values cimport Types


cdef class Layout:
    cdef readonly object relation
    cdef readonly unsigned long edition     # of the types, see pgrepl/codec/types/registry.py
    cdef uint32_t oid
    cdef uint16_t width         # columns on the wire
    cdef uint16_t key_width     # those of them that a key-only row has
    cdef uint16_t *key          # their places
    cdef object whole           # the Selection of all columns
    cdef object selection       # and of those that a key-only row has
    cdef Layout other           # of the last key tuple that had others; None: none had
    cdef dict positions
    cdef dict key_positions
    cdef tuple names
    cdef tuple key_names
    cdef dict blank             # from each name to None
    cdef dict key_blank
    cdef tuple types            # a ValueType for each column; None: of rows made from values
    cdef bint plain             # nothing leads from a row back to it, see Row
    cdef Layout with_key(self, tuple places)


cdef class Row:
    cdef Layout layout
    cdef object sent            # bytes: the columns as they came; None: made from values
    cdef object made            # values: a tuple of all, a list with gaps, or None: none was read
    cdef uint32_t *offsets      # of the columns in what was sent, once one of them was looked for
    cdef uint64_t position      # of the message
    cdef uint32_t start         # of the columns in the message, likewise
    cdef uint8_t tag
    cdef bint has_position
    cdef bint key_only
    cdef bint fresh             # comes from __new__, and __init__ is to be called once more
    cdef int find_key(self) except -1
    cdef int find(self) except -1
    cdef pgr_cursor cursor(self, uint32_t offset)
    cdef pgr_column column(self, uint16_t place) except *
    cdef object decode(self, uint16_t place, const pgr_column *column)
    cdef object fault(self, uint16_t place, const pgr_column *column, object error)
    cdef object at(self, Py_ssize_t position)
    cdef tuple all(self)
    cdef Py_ssize_t position_of(self, object key) except -1


cdef Layout layout_of(object relation, Types types)
cdef Row row_of(const pgr_message *message, const pgr_tuple *source, Layout layout)
