from libc.stdint cimport uint8_t


cdef class ValueType:
    cdef readonly object oid
    cdef readonly object name
    cdef object general         # the type of the same OID of pgrepl/codec/types
    cdef object from_text(self, const uint8_t *bytes, Py_ssize_t size)
    cdef object from_binary(self, const uint8_t *bytes, Py_ssize_t size)


# Reads a value, or returns NOT_READ for pgrepl/codec/types to have a look.
ctypedef object (*Reader)(const uint8_t *bytes, Py_ssize_t size)


cdef object NOT_READ


cdef class Scalar(ValueType):
    cdef Reader read_text
    cdef Reader read_binary


cdef class Types:
    cdef object registry        # the `Types` of pgrepl/codec/types
    cdef dict known             # by OID
    cdef bint is_utf8
    cdef ValueType get(self, object oid)
