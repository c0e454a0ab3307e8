"""Values, native: a column's bytes become Python's own values, without a detour through text.

The types that tables are made of are read here, in C. Whatever is not read here - another type, a
value that is beyond Python's (infinity, BC, 24:00), bytes that make no sense - goes to
pgrepl/codec/types, which knows everything and is all that the pure twin has: so both twins agree by
construction, and this file is the fast part.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
)
from cpython.datetime cimport (
    date_new, datetime_new, get_utc, import_datetime, time_new, timedelta_new
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from .slots cimport Slots, new_instance, put, slots_of
from .whole cimport seal

from datetime import timezone
from ...lsn import Lsn


cdef extern from "Python.h":
    object _PyLong_FromByteArray(
        const uint8_t *bytes, size_t size, int little_endian, int is_signed
    )
    double PyOS_string_to_double(const char *, char **, PyObject *) except? -1
    object PyFloat_FromDouble(double)
    double PyFloat_Unpack4(const char *, int) except? -1
    double PyFloat_Unpack8(const char *, int) except? -1

    object PyUnicode_New(Py_ssize_t, Py_UCS4)
    char *PyUnicode_1BYTE_DATA(object)
    ctypedef object (*PyCFunction)(PyObject *, object)
    PyCFunction PyCFunction_GetFunction(object) except? NULL
    PyObject *PyCFunction_GetSelf(object) except? NULL
    int PyCFunction_GetFlags(object) except -1
    int METH_VARARGS

cdef extern from "pgr_base.h":
    uint32_t pgr_load32(const uint8_t *)
    uint64_t pgr_load64(const uint8_t *)
    int32_t pgr_signed32(uint32_t)
    int64_t pgr_signed64(uint64_t)
    unsigned short pgr_load16(const uint8_t *)

cdef extern from "pgr_values.h":
    ctypedef enum pgr_parse:
        PGR_PARSED
        PGR_MALFORMED
        PGR_OUT_OF_RANGE
    ctypedef struct pgr_date:
        int32_t year
        uint8_t month
        uint8_t day
    ctypedef struct pgr_time:
        uint8_t hour
        uint8_t minute
        uint8_t second
        uint32_t microsecond
    pgr_parse pgr_text_int64(const uint8_t *, size_t, int64_t *)
    pgr_parse pgr_text_uint64(const uint8_t *, size_t, uint64_t *)
    pgr_parse pgr_text_date(const uint8_t *, size_t, pgr_date *)
    pgr_parse pgr_text_time(const uint8_t *, size_t, pgr_time *)
    pgr_parse pgr_text_timestamp(const uint8_t *, size_t, pgr_date *, pgr_time *)
    pgr_parse pgr_text_timestamptz(const uint8_t *, size_t, pgr_date *, pgr_time *, int32_t *)
    pgr_parse pgr_text_uuid(const uint8_t *, size_t, uint8_t *)
    pgr_parse pgr_text_bytea_hex(const uint8_t *, size_t, uint8_t *)
    pgr_parse pgr_binary_date(int32_t, pgr_date *)
    pgr_parse pgr_binary_time(int64_t, pgr_time *)
    pgr_parse pgr_binary_timestamp(int64_t, pgr_date *, pgr_time *)
    ctypedef struct pgr_numeric:
        pass
    size_t pgr_numeric_read(const uint8_t *, size_t, pgr_numeric *)
    pgr_parse pgr_numeric_text(const pgr_numeric *, char *, size_t *)


import_datetime()

cdef object NOT_READ = object()
cdef object UTC = get_utc()
cdef object new_decimal             # these are set before the first value is made
cdef PyCFunction c_new_decimal      # what it calls, NULL where that cannot be called so
cdef PyObject *decimal_context
cdef tuple decimal_arguments = (None,)
cdef object unknown_safety
cdef Slots UUID_SLOTS
cdef dict offsets = {0: UTC}        # seconds east of UTC to a timezone

cdef enum:
    MAX_OFFSETS = 1000


cdef object make_uuid(const uint8_t *content):
    # What UUID.__init__ does in the end, without its checks: 16 bytes are always one.
    uuid = new_instance(&UUID_SLOTS)
    put(uuid, &UUID_SLOTS, 0, _PyLong_FromByteArray(content, 16, 0, 0))
    put(uuid, &UUID_SLOTS, 1, unknown_safety)
    return uuid


cdef object decimal_of(text):
    """Make a Decimal of a number's text; NOT_READ where it cannot be one."""
    try:
        if c_new_decimal == NULL:
            return new_decimal(text)
        # Without a tuple for each call. This one has the text only as long as it is looked at, and
        # owns it no more than the None that it has otherwise.
        PyTuple_SET_ITEM(decimal_arguments, 0, text)
        try:
            return c_new_decimal(decimal_context, decimal_arguments)
        finally:
            PyTuple_SET_ITEM(decimal_arguments, 0, None)
    except ArithmeticError:
        return NOT_READ


cdef inline object make_datetime(const pgr_date *date, const pgr_time *time, object zone):
    return datetime_new(
        date.year, date.month, date.day, time.hour, time.minute, time.second, time.microsecond, zone
    )


include "text_values.pxi"
include "binary_values.pxi"


cdef bytes owned(data):
    """Return bytes that nobody writes to: a value is looked at more than once."""
    cdef Py_buffer view
    if PyBytes_CheckExact(data):
        return data
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return PyBytes_FromStringAndSize(<const char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef class ValueType:
    """How the values of one type are made. NULL never comes here.

    This one leaves it to pgrepl/codec/types.
    """

    def __cinit__(self, general):
        self.general = general
        self.oid = general.oid
        self.name = general.name

    def text(self, data):
        """Make the value of a column sent as text."""
        cdef bytes own = owned(data)
        return self.from_text(<const uint8_t *>PyBytes_AS_STRING(own), PyBytes_GET_SIZE(own))

    def binary(self, data):
        """Make the value of a column sent in binary."""
        cdef bytes own = owned(data)
        return self.from_binary(<const uint8_t *>PyBytes_AS_STRING(own), PyBytes_GET_SIZE(own))

    cdef object from_text(self, const uint8_t *bytes, Py_ssize_t size):
        return self.general.text(PyBytes_FromStringAndSize(<const char *>bytes, size))

    cdef object from_binary(self, const uint8_t *bytes, Py_ssize_t size):
        return self.general.binary(PyBytes_FromStringAndSize(<const char *>bytes, size))


@cython.final
cdef class Scalar(ValueType):
    """A type that is read here, and whose values lead nowhere: numbers, text, times."""

    cdef object from_text(self, const uint8_t *bytes, Py_ssize_t size):
        value = self.read_text(bytes, size)
        return ValueType.from_text(self, bytes, size) if value is NOT_READ else value

    cdef object from_binary(self, const uint8_t *bytes, Py_ssize_t size):
        value = self.read_binary(bytes, size)
        return ValueType.from_binary(self, bytes, size) if value is NOT_READ else value


cdef dict scalars = {}              # by OID: the types of PostgreSQL's own that are read here


cdef int add(object registry, int oid, Reader read_text, Reader read_binary) except -1:
    cdef Scalar scalar = Scalar.__new__(Scalar, registry.lookup(oid))
    scalar.read_text = read_text
    scalar.read_binary = read_binary
    scalars[oid] = scalar
    return 0


cdef object registry_class = None


cdef object new_registry(overrides, typed, encoding):
    """Return a `Types` of pgrepl/codec/types, which is loaded for the first decoder."""
    global registry_class
    if registry_class is None:
        from ..types.registry import Types as Registry
        add_all(Registry())
        registry_class = Registry
    return registry_class(overrides, typed, encoding)


cdef int add_all(object registry) except -1:
    """Get ready to make values; what that takes long to load is not loaded by an import alone."""
    global new_decimal, c_new_decimal, decimal_context, unknown_safety, UUID_SLOTS
    from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Inexact, InvalidOperation
    from types import BuiltinMethodType
    from uuid import UUID, SafeUUID
    # Any precision will do, so that nothing is rounded. It costs less than the class itself, which
    # looks for the context of the moment.
    new_decimal = Context(
        prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact, InvalidOperation]
    ).create_decimal
    if isinstance(new_decimal, BuiltinMethodType) and (
        PyCFunction_GetFlags(new_decimal) == METH_VARARGS
    ):
        c_new_decimal = PyCFunction_GetFunction(new_decimal)
        decimal_context = PyCFunction_GetSelf(new_decimal)
    unknown_safety = SafeUUID.unknown
    UUID_SLOTS = slots_of(UUID, ("int", "is_safe"))

    add(registry, 16, text_bool, binary_bool)
    add(registry, 17, text_bytea, binary_bytes)
    add(registry, 19, text_str, text_str)  # name
    add(registry, 20, text_int, binary_int8)
    add(registry, 21, text_int, binary_int2)
    add(registry, 23, text_int, binary_int4)
    add(registry, 25, text_str, text_str)
    add(registry, 26, text_unsigned, binary_unsigned4)  # oid
    add(registry, 28, text_unsigned, binary_unsigned4)  # xid
    add(registry, 29, text_unsigned, binary_unsigned4)  # cid
    add(registry, 114, text_str, text_str)  # json
    add(registry, 142, text_str, text_str)  # xml
    add(registry, 700, text_float, binary_float4)
    add(registry, 701, text_float, binary_float8)
    add(registry, 1042, text_str, text_str)  # bpchar
    add(registry, 1043, text_str, text_str)  # varchar
    add(registry, 1082, text_date, binary_date)
    add(registry, 1083, text_time, binary_time)
    add(registry, 1114, text_timestamp, binary_timestamp)
    add(registry, 1184, text_timestamptz, binary_timestamptz)
    add(registry, 1700, text_numeric, binary_numeric)
    add(registry, 2950, text_uuid, binary_uuid)
    add(registry, 3220, text_lsn, binary_lsn)
    add(registry, 3802, text_str, binary_jsonb)
    add(registry, 5069, text_unsigned, binary_unsigned8)  # xid8

    # What is nobody's: the server's text, and the bytes of a binary value.
    add(registry, 0, text_str, binary_bytes)
    return 0


cdef enum:
    MAX_KNOWN = 10000


cdef ValueType made(general):
    # Returns a type that is read here where that does the same.
    cdef Scalar model = scalars.get(general.like)
    cdef Scalar scalar
    if model is None:
        return ValueType.__new__(ValueType, general)
    if general.oid == model.oid:
        return model
    scalar = Scalar.__new__(Scalar, general)
    scalar.read_text = model.read_text
    scalar.read_binary = model.read_binary
    return scalar


@cython.final
cdef class Types:
    """Types(overrides=None, typed=True)\n--\n
    The types that a decoder knows: PostgreSQL's own, those that the server describes, and those
    that the catalogue's definitions tell of.
    """

    def __cinit__(self, overrides=None, typed=True, encoding="utf-8"):
        self.registry = new_registry(overrides, typed, encoding)
        self.is_utf8 = encoding == "utf-8"
        self.known = {}

    def lookup(self, oid):
        """Return the type of an OID; of an unknown one the text is `str`, the binary `bytes`."""
        return self.get(oid)

    def name_of(self, oid):
        """Return what SQL calls the type with an OID; None where nobody told of it."""
        return self.registry.name_of(oid)

    def describe(self, oid, schema, name):
        """Take in what a Type message says: a user's type, or for a domain what it is over."""
        before = self.registry.edition
        self.registry.describe(oid, schema, name)
        if self.registry.edition != before:
            self.known = {}     # an array may now know its elements

    def define(self, definitions):
        """Take in what the catalogue says of types: see `pgrepl.typedefs`."""
        try:
            self.registry.define(definitions)
        finally:
            self.known = {}

    cdef ValueType get(self, object oid):
        found = self.known.get(oid)
        if found is None:
            if self.is_utf8:
                found = made(self.registry.lookup(oid))
            else:
                found = ValueType.__new__(ValueType, self.registry.of_column(oid))
            # An OID that nobody described may come out of a value, and there is no end of those.
            if len(self.known) < MAX_KNOWN:
                self.known[oid] = found
        return <ValueType>found


seal(<PyTypeObject *>ValueType)
seal(<PyTypeObject *>Scalar)
