"""Values, native: a column's bytes become Python's own values, without a detour through text.

The types that tables are made of are read here, in C. Whatever is not read here - another type, a
value that is beyond Python's (infinity, BC, 24:00), bytes that make no sense - goes to the pure
twin, which knows everything: so both twins agree by construction, and this file is the fast part.
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
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from .slots cimport Slots, new_instance, put, slots_of
from .whole cimport seal

from datetime import timezone
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Inexact, InvalidOperation
from uuid import UUID, SafeUUID

from ...lsn import Lsn
from .._pure.values import Types as PureTypes


cdef extern from "Python.h":
    object _PyLong_FromByteArray(
        const uint8_t *bytes, size_t size, int little_endian, int is_signed
    )
    double PyOS_string_to_double(const char *, char **, PyObject *) except? -1
    object PyFloat_FromDouble(double)
    double PyFloat_Unpack4(const char *, int) except? -1
    double PyFloat_Unpack8(const char *, int) except? -1

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
# Any precision will do, so that nothing is rounded. It costs less than the class itself, which
# looks for the context of the moment.
cdef object new_decimal = Context(
    prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact, InvalidOperation]
).create_decimal
cdef object unknown_safety = SafeUUID.unknown
cdef Slots UUID_SLOTS = slots_of(UUID, ("int", "is_safe"))
cdef dict offsets = {0: UTC}        # seconds east of UTC to a timezone

cdef enum:
    MAX_OFFSETS = 1000


cdef object text_bool(const uint8_t *bytes, Py_ssize_t size):
    if size == 1 and bytes[0] == c"t":
        return True
    if size == 1 and bytes[0] == c"f":
        return False
    return NOT_READ


cdef object text_int(const uint8_t *bytes, Py_ssize_t size):
    cdef int64_t value
    if pgr_text_int64(bytes, <size_t>size, &value) != PGR_PARSED:
        return NOT_READ
    return value


cdef object text_unsigned(const uint8_t *bytes, Py_ssize_t size):
    cdef uint64_t value
    if pgr_text_uint64(bytes, <size_t>size, &value) != PGR_PARSED:
        return NOT_READ
    return value


cdef object text_str(const uint8_t *bytes, Py_ssize_t size):
    return PyUnicode_DecodeUTF8(<const char *>bytes, size, NULL)


cdef object text_float(const uint8_t *bytes, Py_ssize_t size):
    # The conversion wants a zero byte at the end; no server writes a float longer than this.
    cdef char[32] text
    cdef Py_ssize_t sign = size > 0 and bytes[0] == c"-"
    if size == sign or size >= <Py_ssize_t>sizeof(text):
        return NOT_READ
    if not c"0" <= bytes[sign] <= c"9":
        return NOT_READ     # NaN or Infinity, which C spells in more ways than the server
    memcpy(text, bytes, <size_t>size)
    text[size] = 0
    if strlen(text) != <size_t>size:
        return NOT_READ
    try:
        return PyFloat_FromDouble(PyOS_string_to_double(text, NULL, NULL))
    except ValueError:
        return NOT_READ


cdef bint is_plain_decimal(const uint8_t *bytes, Py_ssize_t size):
    # Whether this is what numeric's output function writes for a number: Decimal takes more.
    cdef Py_ssize_t i = 0, whole, fraction
    if i < size and bytes[i] == c"-":
        i += 1
    whole = i
    while i < size and c"0" <= bytes[i] <= c"9":
        i += 1
    if i == whole:
        return False
    if i < size and bytes[i] == c".":
        i += 1
        fraction = i
        while i < size and c"0" <= bytes[i] <= c"9":
            i += 1
        if i == fraction:
            return False
    return i == size


cdef object text_numeric(const uint8_t *bytes, Py_ssize_t size):
    if not is_plain_decimal(bytes, size):
        return NOT_READ
    text = PyUnicode_DecodeUTF8(<const char *>bytes, size, NULL)
    try:
        return new_decimal(text)
    except ArithmeticError:
        return NOT_READ


cdef object text_bytea(const uint8_t *bytes, Py_ssize_t size):
    if size < 2 or bytes[0] != c"\\" or bytes[1] != c"x":
        return NOT_READ
    content = PyBytes_FromStringAndSize(NULL, size // 2 - 1)
    if pgr_text_bytea_hex(
        bytes, <size_t>size, <uint8_t *>PyBytes_AS_STRING(content)
    ) != PGR_PARSED:
        return NOT_READ
    return content


cdef object make_uuid(const uint8_t *content):
    # What UUID.__init__ does in the end, without its checks: 16 bytes are always one.
    uuid = new_instance(&UUID_SLOTS)
    put(uuid, &UUID_SLOTS, 0, _PyLong_FromByteArray(content, 16, 0, 0))
    put(uuid, &UUID_SLOTS, 1, unknown_safety)
    return uuid


cdef object text_uuid(const uint8_t *bytes, Py_ssize_t size):
    cdef uint8_t[16] content
    if pgr_text_uuid(bytes, <size_t>size, content) != PGR_PARSED:
        return NOT_READ
    return make_uuid(content)


cdef object text_date(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_date date
    if pgr_text_date(bytes, <size_t>size, &date) != PGR_PARSED:
        return NOT_READ
    return date_new(date.year, date.month, date.day)


cdef object text_time(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_time time
    if pgr_text_time(bytes, <size_t>size, &time) != PGR_PARSED:
        return NOT_READ
    return time_new(time.hour, time.minute, time.second, time.microsecond, None)


cdef inline object make_datetime(const pgr_date *date, const pgr_time *time, object zone):
    return datetime_new(
        date.year, date.month, date.day, time.hour, time.minute, time.second, time.microsecond, zone
    )


cdef object text_timestamp(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_date date
    cdef pgr_time time
    if pgr_text_timestamp(bytes, <size_t>size, &date, &time) != PGR_PARSED:
        return NOT_READ
    return make_datetime(&date, &time, None)


cdef object text_timestamptz(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_date date
    cdef pgr_time time
    cdef int32_t offset
    if pgr_text_timestamptz(bytes, <size_t>size, &date, &time, &offset) != PGR_PARSED:
        return NOT_READ
    zone = offsets.get(offset)
    if zone is None:
        zone = timezone(timedelta_new(0, offset, 0))
        # The world has fewer; a server could send one for each second.
        if len(offsets) < MAX_OFFSETS:
            offsets[offset] = zone
    return make_datetime(&date, &time, zone)


cdef object text_lsn(const uint8_t *bytes, Py_ssize_t size):
    try:
        return Lsn(PyUnicode_DecodeUTF8(<const char *>bytes, size, NULL))
    except ValueError:
        return NOT_READ


cdef object binary_bool(const uint8_t *bytes, Py_ssize_t size):
    return bytes[0] != 0 if size == 1 and bytes[0] <= 1 else NOT_READ


cdef object binary_int2(const uint8_t *bytes, Py_ssize_t size):
    return <int16_t>pgr_load16(bytes) if size == 2 else NOT_READ


cdef object binary_int4(const uint8_t *bytes, Py_ssize_t size):
    return pgr_signed32(pgr_load32(bytes)) if size == 4 else NOT_READ


cdef object binary_int8(const uint8_t *bytes, Py_ssize_t size):
    return pgr_signed64(pgr_load64(bytes)) if size == 8 else NOT_READ


cdef object binary_unsigned4(const uint8_t *bytes, Py_ssize_t size):
    return pgr_load32(bytes) if size == 4 else NOT_READ


cdef object binary_unsigned8(const uint8_t *bytes, Py_ssize_t size):
    return pgr_load64(bytes) if size == 8 else NOT_READ


cdef object binary_float4(const uint8_t *bytes, Py_ssize_t size):
    return PyFloat_FromDouble(PyFloat_Unpack4(<const char *>bytes, 0)) if size == 4 else NOT_READ


cdef object binary_float8(const uint8_t *bytes, Py_ssize_t size):
    return PyFloat_FromDouble(PyFloat_Unpack8(<const char *>bytes, 0)) if size == 8 else NOT_READ


cdef object binary_numeric(const uint8_t *bytes, Py_ssize_t size):
    cdef char[64] few
    cdef char *text = few
    cdef pgr_numeric numeric
    cdef size_t length, room = pgr_numeric_read(bytes, <size_t>size, &numeric)
    if room == 0:
        return NOT_READ
    if room > sizeof(few):
        text = <char *>PyMem_Malloc(room)
        if text == NULL:
            raise MemoryError()
    try:
        if pgr_numeric_text(&numeric, text, &length) != PGR_PARSED:
            return NOT_READ
        return new_decimal(PyUnicode_DecodeUTF8(text, <Py_ssize_t>length, NULL))
    finally:
        if text != few:
            PyMem_Free(text)


cdef object binary_bytes(const uint8_t *bytes, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char *>bytes, size)


cdef object binary_jsonb(const uint8_t *bytes, Py_ssize_t size):
    if size == 0 or bytes[0] != 1:
        return NOT_READ
    return PyUnicode_DecodeUTF8(<const char *>bytes + 1, size - 1, NULL)


cdef object binary_uuid(const uint8_t *bytes, Py_ssize_t size):
    return make_uuid(bytes) if size == 16 else NOT_READ


cdef object binary_date(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_date date
    if size != 4 or pgr_binary_date(pgr_signed32(pgr_load32(bytes)), &date) != PGR_PARSED:
        return NOT_READ
    return date_new(date.year, date.month, date.day)


cdef object binary_time(const uint8_t *bytes, Py_ssize_t size):
    cdef pgr_time time
    if size != 8 or pgr_binary_time(pgr_signed64(pgr_load64(bytes)), &time) != PGR_PARSED:
        return NOT_READ
    return time_new(time.hour, time.minute, time.second, time.microsecond, None)


cdef inline object read_timestamp(const uint8_t *bytes, Py_ssize_t size, object zone):
    cdef pgr_date date
    cdef pgr_time time
    if size != 8 or pgr_binary_timestamp(
        pgr_signed64(pgr_load64(bytes)), &date, &time
    ) != PGR_PARSED:
        return NOT_READ
    return make_datetime(&date, &time, zone)


cdef object binary_timestamp(const uint8_t *bytes, Py_ssize_t size):
    return read_timestamp(bytes, size, None)


cdef object binary_timestamptz(const uint8_t *bytes, Py_ssize_t size):
    return read_timestamp(bytes, size, UTC)


cdef object binary_lsn(const uint8_t *bytes, Py_ssize_t size):
    return Lsn(pgr_load64(bytes)) if size == 8 else NOT_READ


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

    This one leaves it to the pure twin.
    """

    def __cinit__(self, pure):
        self.pure = pure
        self.oid = pure.oid
        self.name = pure.name

    def text(self, data):
        """Make the value of a column sent as text."""
        cdef bytes own = owned(data)
        return self.from_text(<const uint8_t *>PyBytes_AS_STRING(own), PyBytes_GET_SIZE(own))

    def binary(self, data):
        """Make the value of a column sent in binary."""
        cdef bytes own = owned(data)
        return self.from_binary(<const uint8_t *>PyBytes_AS_STRING(own), PyBytes_GET_SIZE(own))

    cdef object from_text(self, const uint8_t *bytes, Py_ssize_t size):
        return self.pure.text(PyBytes_FromStringAndSize(<const char *>bytes, size))

    cdef object from_binary(self, const uint8_t *bytes, Py_ssize_t size):
        return self.pure.binary(PyBytes_FromStringAndSize(<const char *>bytes, size))


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


cdef int add(int oid, Reader read_text, Reader read_binary) except -1:
    cdef Scalar scalar = Scalar.__new__(Scalar, plain.lookup(oid))
    scalar.read_text = read_text
    scalar.read_binary = read_binary
    scalars[oid] = scalar
    return 0


cdef object plain = PureTypes()

add(16, text_bool, binary_bool)
add(17, text_bytea, binary_bytes)
add(19, text_str, text_str)                         # name
add(20, text_int, binary_int8)
add(21, text_int, binary_int2)
add(23, text_int, binary_int4)
add(25, text_str, text_str)
add(26, text_unsigned, binary_unsigned4)            # oid
add(28, text_unsigned, binary_unsigned4)            # xid
add(29, text_unsigned, binary_unsigned4)            # cid
add(114, text_str, text_str)                        # json
add(142, text_str, text_str)                        # xml
add(700, text_float, binary_float4)
add(701, text_float, binary_float8)
add(1042, text_str, text_str)                       # bpchar
add(1043, text_str, text_str)                       # varchar
add(1082, text_date, binary_date)
add(1083, text_time, binary_time)
add(1114, text_timestamp, binary_timestamp)
add(1184, text_timestamptz, binary_timestamptz)
add(1700, text_numeric, binary_numeric)
add(2950, text_uuid, binary_uuid)
add(3220, text_lsn, binary_lsn)
add(3802, text_str, binary_jsonb)
add(5069, text_unsigned, binary_unsigned8)          # xid8

# What is nobody's: the server's text, and the bytes of a binary value.
add(0, text_str, binary_bytes)

cdef enum:
    MAX_KNOWN = 10000


cdef ValueType made(pure):
    # Returns a type that is read here where that does the same as the pure twin's.
    cdef Scalar model = scalars.get(pure.like)
    cdef Scalar scalar
    if model is None:
        return ValueType.__new__(ValueType, pure)
    if pure.oid == model.oid:
        return model
    scalar = Scalar.__new__(Scalar, pure)
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
        self.pure = PureTypes(overrides, typed, encoding)
        self.is_utf8 = encoding == "utf-8"
        self.known = {}

    def lookup(self, oid):
        """Return the type of an OID; of an unknown one the text is `str`, the binary `bytes`."""
        return self.get(oid)

    def name_of(self, oid):
        """Return what SQL calls the type with an OID; None where nobody told of it."""
        return self.pure.name_of(oid)

    def describe(self, oid, schema, name):
        """Take in what a Type message says: a user's type, or for a domain what it is over."""
        before = self.pure.edition
        self.pure.describe(oid, schema, name)
        if self.pure.edition != before:
            self.known = {}     # an array may now know its elements

    def define(self, definitions):
        """Take in what the catalogue says of types: see `pgrepl.typedefs`."""
        try:
            self.pure.define(definitions)
        finally:
            self.known = {}

    cdef ValueType get(self, object oid):
        found = self.known.get(oid)
        if found is None:
            if self.is_utf8:
                found = made(self.pure.lookup(oid))
            else:
                found = ValueType.__new__(ValueType, self.pure.of_column(oid))
            # An OID that nobody described may come out of a value, and there is no end of those.
            if len(self.known) < MAX_KNOWN:
                self.known[oid] = found
        return <ValueType>found


seal(<PyTypeObject *>ValueType)
seal(<PyTypeObject *>Scalar)
