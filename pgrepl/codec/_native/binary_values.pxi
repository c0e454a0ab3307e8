# Readers of values sent in binary, a part of values.pyx; NOT_READ is for pgrepl/codec/types.

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
        return decimal_of(PyUnicode_DecodeUTF8(text, <Py_ssize_t>length, NULL))
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
